//! The number of tokens and leases with an expiry and of irrevocable leases, kept in memory and updated by commits.
//!
//! The index on disk is counted once in the background, one page of names at a time, and recounted periodically. Each
//! committed entry also changes the count: an added entry adds one and a deleted entry subtracts one, so an entry is
//! written only where none exists ([`super::index`]). A page may or may not include an entry that is committed while
//! the page is read; such entries are noted and merged with the page.

use std::collections::BTreeSet;

use keepfast_framework::Result;
use keepfast_framework::throttle::Throttle;
use keepfast_storage::Page;
use parking_lot::Mutex;

use super::index;
use super::store::Leases;

/// The number of names per read.
const PAGE: usize = 1000;
/// Sorts after every name of an entry.
const BEHIND: &str = "~";

/// The numbers of tokens and leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tokens and leases with an expiry.
    pub(crate) waiting: u64,
    /// Irrevocable leases.
    pub(crate) irrevocable: u64,
}

/// The current count and the count in progress.
#[derive(Default)]
pub(crate) struct LeaseCount(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` until the first count is complete.
    known: Option<Counts>,
    under_way: Option<Counting>,
}

/// A count in progress.
#[derive(Default)]
struct Counting {
    counts: Counts,
    /// All entries up to and including this key are counted.
    position: String,
    /// Entries after the position that were committed since the read of the current page began, each with whether it
    /// exists.
    noted: Vec<(String, bool)>,
}

impl Counts {
    fn change(&mut self, key: &str, exists: bool) {
        let count = if key.starts_with(index::IRREVOCABLE) { &mut self.irrevocable } else { &mut self.waiting };
        *count = if exists { *count + 1 } else { count.saturating_sub(1) };
    }
}

impl LeaseCount {
    /// The current numbers; `None` until the first count is complete.
    pub(crate) fn read(&self) -> Option<Counts> {
        self.0.lock().known
    }

    /// Applies a committed key below the token view.
    pub(super) fn applied(&self, key: &str, exists: bool) {
        if !is_counted(key) {
            return;
        }
        let mut state = self.0.lock();
        if let Some(known) = &mut state.known {
            known.change(key, exists);
        }
        if let Some(counting) = &mut state.under_way {
            if key <= counting.position.as_str() {
                counting.counts.change(key, exists);
            } else {
                counting.noted.push((key.to_owned(), exists));
            }
        }
    }

    /// Clears the noted entries: those noted from now on belong to the next page.
    fn begin_page(&self) {
        if let Some(counting) = &mut self.0.lock().under_way {
            counting.noted.clear();
        }
    }

    /// Counts the entries of a page, which has all entries after the position up to and including `end`.
    fn end_page(&self, mut page: BTreeSet<String>, end: String) {
        let mut state = self.0.lock();
        let Some(counting) = &mut state.under_way else { return };
        for (key, exists) in std::mem::take(&mut counting.noted) {
            match () {
                () if key > end => {}
                () if exists => drop(page.insert(key)),
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
    /// Counts tokens and leases with an expiry and irrevocable leases. One count runs at a time.
    ///
    /// Fails when storage fails; the previous numbers remain.
    pub(crate) async fn count(&self, pace: &mut Throttle) -> Result<()> {
        self.counts.0.lock().under_way = Some(Counting::default());
        let outcome = self.count_folders(pace).await;
        let mut state = self.counts.0.lock();
        let counting = state.under_way.take();
        if outcome.is_ok() {
            state.known = counting.map(|counting| counting.counts).or(state.known);
        }
        outcome
    }

    /// Counts the folders in the order of their names.
    async fn count_folders(&self, pace: &mut Throttle) -> Result<()> {
        self.count_mounts(index::ENDS, pace).await?;
        self.count_folder(index::EXPIRY, pace).await?;
        self.count_mounts(index::IRREVOCABLE, pace).await
    }

    /// Counts the folders of the mounts one by one, including those that appear during the count.
    async fn count_mounts(&self, top: &str, pace: &mut Throttle) -> Result<()> {
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

    async fn count_folder(&self, folder: &str, pace: &mut Throttle) -> Result<()> {
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
    fn entries_committed_during_the_count_are_counted_once() {
        let count = LeaseCount::default();
        count.0.lock().under_way = Some(Counting::default());
        apply(&count, &[put("ends/m/1"), put("lease/x/1"), put("expiry/9")]);
        count.begin_page();
        // The read may have happened before or after these commits; 3 is after the page.
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

    #[test]
    fn the_last_entry_of_a_page_may_be_deleted_while_it_is_read() {
        let count = LeaseCount::default();
        count.0.lock().under_way = Some(Counting::default());
        count.begin_page();
        apply(&count, &[delete("ends/m/2"), put("ends/m/3")]);
        count.end_page(page(&["ends/m/1", "ends/m/2"]), "ends/m/2".to_owned());
        let counted = count.0.lock().under_way.take().unwrap().counts;
        assert_eq!(counted, Counts { waiting: 1, irrevocable: 0 });
    }
}
