//! How many tokens and leases wait for their end, and how many leases are irrevocable: kept in memory by what is committed.
//!
//! The index on disk is counted once in the background, a page of names at a time, and again from time to time. In between
//! and meanwhile each committed entry counts: one that is taken in adds one and one that is taken out removes one, so an
//! entry is written only where none was ([`super::index`]). What is committed while a page is read may be in that page or
//! not; it is noted and put together with the page.

use std::collections::BTreeSet;

use keepfast_framework::Result;
use keepfast_framework::pace::Pace;
use keepfast_storage::Page;
use parking_lot::Mutex;

use super::index;
use super::store::Leases;

/// How many names one step reads.
const PAGE: usize = 1000;
/// Stands behind every name of an entry.
const BEHIND: &str = "~";

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tokens and leases that wait for their end.
    pub(crate) waiting: u64,
    /// Leases that could not be revoked.
    pub(crate) irrevocable: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct LeaseCount(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` until they were counted once.
    known: Option<Counts>,
    under_way: Option<Counting>,
}

/// A count that is under way.
#[derive(Default)]
struct Counting {
    counts: Counts,
    /// All entries up to this one are counted.
    position: String,
    /// What was committed behind the position since the reading of a page began, with whether it stands now.
    noted: Vec<(String, bool)>,
}

impl Counts {
    fn change(&mut self, key: &str, stands: bool) {
        let count = if key.starts_with(index::IRREVOCABLE) { &mut self.irrevocable } else { &mut self.waiting };
        *count = if stands { *count + 1 } else { count.saturating_sub(1) };
    }
}

impl LeaseCount {
    /// How many there are; `None` until they were counted once.
    pub(crate) fn read(&self) -> Option<Counts> {
        self.0.lock().known
    }

    /// Takes in a committed key below the token view.
    pub(super) fn applied(&self, key: &str, stands: bool) {
        if !is_counted(key) {
            return;
        }
        let mut state = self.0.lock();
        if let Some(known) = &mut state.known {
            known.change(key, stands);
        }
        if let Some(counting) = &mut state.under_way {
            if key <= counting.position.as_str() {
                counting.counts.change(key, stands);
            } else {
                counting.noted.push((key.to_owned(), stands));
            }
        }
    }

    /// What is noted from here on belongs to the page that is read next.
    fn begin_page(&self) {
        if let Some(counting) = &mut self.0.lock().under_way {
            counting.noted.clear();
        }
    }

    /// Counts the entries of a page, which are all that there are up to `end`.
    fn end_page(&self, mut page: BTreeSet<String>, end: String) {
        let mut state = self.0.lock();
        let Some(counting) = &mut state.under_way else { return };
        for (key, stands) in std::mem::take(&mut counting.noted) {
            match () {
                () if key > end => {}
                () if stands => drop(page.insert(key)),
                () => drop(page.remove(&key)),
            }
        }
        page.iter().for_each(|key| counting.counts.change(key, true));
        counting.position = end;
    }
}

fn is_counted(key: &str) -> bool {
    [index::ENDS, index::EXPIRY, index::IRREVOCABLE].iter().any(|folder| key.starts_with(folder))
}

impl Leases {
    /// Counts anew what waits for its end and what is irrevocable. One count at a time.
    ///
    /// Fails when storage fails; what is known stays.
    pub(crate) async fn count(&self, pace: &mut Pace) -> Result<()> {
        self.counts.0.lock().under_way = Some(Counting::default());
        let outcome = self.count_folders(pace).await;
        let mut state = self.counts.0.lock();
        let counting = state.under_way.take();
        if outcome.is_ok() {
            state.known = counting.map(|counting| counting.counts).or(state.known);
        }
        outcome
    }

    /// In the order of their names.
    async fn count_folders(&self, pace: &mut Pace) -> Result<()> {
        self.count_mounts(index::ENDS, pace).await?;
        self.count_folder(index::EXPIRY, pace).await?;
        self.count_mounts(index::IRREVOCABLE, pace).await
    }

    /// One mount after the other: those that come meanwhile are seen too.
    async fn count_mounts(&self, top: &str, pace: &mut Pace) -> Result<()> {
        let mut page = Page::first(1);
        loop {
            self.counts.begin_page();
            let names = self.barrier.begin_read().list(&self.view, top, &page).await?;
            let Some(name) = names.into_iter().next() else {
                self.counts.end_page(BTreeSet::new(), format!("{top}{BEHIND}"));
                return Ok(());
            };
            let folder = format!("{top}{name}");
            self.counts.end_page(BTreeSet::new(), folder.clone());
            self.count_folder(&folder, pace).await?;
            page.after = Some(name);
        }
    }

    async fn count_folder(&self, folder: &str, pace: &mut Pace) -> Result<()> {
        let mut page = Page::first(PAGE);
        loop {
            self.counts.begin_page();
            let names = self.barrier.begin_read().list(&self.view, folder, &page).await?;
            let is_last = names.len() < PAGE;
            page.after = names.last().cloned();
            let behind = format!("{folder}{BEHIND}");
            let end = page.after.as_ref().filter(|_| !is_last).map_or(behind, |name| format!("{folder}{name}"));
            self.counts.end_page(names.iter().map(|name| format!("{folder}{name}")).collect(), end);
            pace.step().await;
            if is_last {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(count: &LeaseCount, changes: &[(&str, bool)]) {
        changes.iter().for_each(|(key, exists)| count.applied(key, *exists));
    }

    fn put(key: &str) -> (&str, bool) {
        (key, true)
    }

    fn delete(key: &str) -> (&str, bool) {
        (key, false)
    }

    fn page(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_committed_while_it_is_counted_counts_once() {
        let count = LeaseCount::default();
        count.0.lock().under_way = Some(Counting::default());
        apply(&count, &[put("ends/m/1"), put("lease/x/1"), put("expiry/9")]);
        count.begin_page();
        // The page may have been read before or after these; 3 is behind it.
        apply(&count, &[put("ends/m/2"), delete("ends/m/1"), put("ends/m/3")]);
        count.end_page(page(&["ends/m/1", "ends/m/2"]), "ends/m/2".to_owned());
        apply(&count, &[put("ends/a/7"), delete("ends/m/2"), put("irrevocable/m/2")]);
        count.begin_page();
        count.end_page(page(&["ends/m/3"]), "ends/~".to_owned());
        count.begin_page();
        apply(&count, &[delete("expiry/9")]);
        count.end_page(page(&["expiry/9"]), "expiry/~".to_owned());
        count.begin_page();
        count.end_page(page(&["irrevocable/m/2"]), "irrevocable/~".to_owned());
        let counted = count.0.lock().under_way.take().unwrap().counts;
        assert_eq!(counted, Counts { waiting: 2, irrevocable: 1 });
        count.0.lock().known = Some(counted);
        apply(&count, &[delete("irrevocable/m/2"), put("expiry/1"), put("elsewhere/1")]);
        assert_eq!(count.read(), Some(Counts { waiting: 3, irrevocable: 0 }));
    }
}
