//! The expiry queue: the next expiries of tokens and leases in memory, so that the worker finds them without reading
//! the disk.
//!
//! The disk has all expiries in order (see [`super::index`]), in one folder for the tokens and one for the leases of
//! each mount. Memory has the first names of each folder, up to a coverage: every name on disk within it is in
//! memory, and no other name. Commits update the queue ([`crate::invalidation`]), so renewals, revocations, and restored or
//! unreadable entries need no code of their own. A page is read from disk when no name within the coverage is left. Unseal
//! loads nothing.
//!
//! Memory: at most [`ROOM`] names of each folder, 80 to 100 bytes each, so up to 100 kB for the tokens and for each
//! mount with leases; in addition the entries that are committed while a page is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keepfast_framework::{Result, Timestamp};
use keepfast_storage::{Barrier, Page, View};
use parking_lot::Mutex;

use super::index;

/// The maximum number of names of one folder in memory, and the number of names per read.
pub(super) const ROOM: usize = 1024;

/// The next expiries of all folders.
pub(crate) struct ExpiryQueue {
    barrier: Arc<Barrier>,
    view: View,
    room: usize,
    upcoming: Mutex<NextExpiries>,
    /// Only one page is read at a time.
    filling: tokio::sync::Mutex<()>,
}

struct NextExpiries {
    /// Whether the folders that existed at the unseal are listed. Commits add later ones.
    listed: bool,
    folders: BTreeMap<Box<str>, Folder>,
    /// The second until which the worker sleeps.
    alarm: i64,
}

/// The next expiries of one folder: names of entries, which sort by expiry.
#[derive(Default)]
struct Folder {
    ends: BTreeSet<Box<str>>,
    coverage: Coverage,
    /// Entries that were committed since the read of a page began, each with whether it exists.
    noted: Option<Vec<(Box<str>, bool)>>,
}

/// The names of a folder that memory has if the disk has them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Coverage {
    /// The names up to and including this one.
    To(Box<str>),
    All,
}

impl Default for Coverage {
    /// No names.
    fn default() -> Self {
        Coverage::To("".into())
    }
}

impl Folder {
    fn is_spent(&self) -> bool {
        self.ends.is_empty() && self.coverage != Coverage::All
    }

    fn note(&mut self, name: &str, exists: bool, room: usize) {
        if let Some(noted) = &mut self.noted {
            noted.push((name.into(), exists));
        }
        self.change(name, exists, room);
    }

    fn change(&mut self, name: &str, exists: bool, room: usize) {
        if !exists {
            self.ends.remove(name);
            return;
        }
        if let Coverage::To(last) = &self.coverage
            && name > &**last
        {
            return;
        }
        self.ends.insert(name.into());
        while self.ends.len() > room {
            self.ends.pop_last();
            self.coverage = self.ends.last().map_or_else(Coverage::default, |last| Coverage::To(last.clone()));
        }
    }

    /// Adds a page from disk, then the entries that were committed while the page was read.
    fn extend(&mut self, page: Vec<String>, noted: Vec<(Box<str>, bool)>, room: usize) {
        self.coverage = match page.last() {
            Some(last) if page.len() == room => Coverage::To(last.as_str().into()),
            _ => Coverage::All,
        };
        self.ends.extend(page.into_iter().filter(|name| second(name).is_some()).map(String::into_boxed_str));
        for (name, exists) in noted {
            self.change(&name, exists, room);
        }
    }
}

impl ExpiryQueue {
    /// An expiry queue of the entries under `view`, with at most `room` names of each folder. Reads nothing.
    pub(super) fn new(barrier: Arc<Barrier>, view: View, room: usize) -> Self {
        let upcoming = NextExpiries { listed: false, folders: BTreeMap::new(), alarm: i64::MAX };
        ExpiryQueue { barrier, view, room, upcoming: Mutex::new(upcoming), filling: tokio::sync::Mutex::default() }
    }

    /// Applies a committed key below the view. Returns whether the worker must wake before the planned time.
    pub(super) fn applied(&self, key: &str, exists: bool) -> bool {
        let Some((folder, name)) = placed(key) else { return false };
        let Some(second) = second(name) else { return false };
        let mut upcoming = self.upcoming.lock();
        match upcoming.folders.get_mut(folder) {
            Some(known) => known.note(name, exists, self.room),
            None if exists => drop(upcoming.folders.insert(folder.into(), Folder::default())),
            None => {}
        }
        let is_sooner = exists && second < upcoming.alarm;
        if is_sooner {
            upcoming.alarm = second;
        }
        is_sooner
    }

    /// The mounts that have or had leases.
    pub(crate) async fn mounts(&self) -> Result<Vec<String>> {
        self.know_folders().await?;
        let upcoming = self.upcoming.lock();
        Ok(upcoming
            .folders
            .keys()
            .filter_map(|f| Some(f.strip_prefix(index::ENDS)?.trim_end_matches('/').into()))
            .collect())
    }

    /// Removes a deleted mount.
    pub(crate) fn forget(&self, mount: &str) {
        self.upcoming.lock().folders.remove(folder_of(mount).as_str());
    }

    /// The first names of a folder that are due at `now` and sort after `after`, at most `limit`.
    pub(crate) async fn due(&self, folder: &str, now: Timestamp, after: &str, limit: usize) -> Result<Vec<String>> {
        self.fill(folder).await?;
        let is_due = |name: &str| second(name).is_some_and(|second| second <= now.unix());
        {
            let upcoming = self.upcoming.lock();
            let Some(known) = upcoming.folders.get(folder) else { return Ok(Vec::new()) };
            let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
            let names = known.ends.range::<str, _>(behind).take_while(|name| is_due(name)).take(limit);
            let names: Vec<String> = names.map(|name| name.to_string()).collect();
            if !names.is_empty() || known.coverage == Coverage::All || after.is_empty() {
                return Ok(names);
            }
        }
        // All names in memory have failed and remain due, so the names after them are read from disk.
        let page = Page { after: Some(after.to_owned()), limit: Some(limit) };
        let names = self.barrier.begin_read().list(&self.view, folder, &page).await?;
        Ok(names.into_iter().take_while(|name| is_due(name)).collect())
    }

    /// The time of the next expiry, of tokens and, if `with_leases` is set, of leases; `None` without any expiry. From
    /// now on an entry that expires sooner wakes the worker.
    pub(crate) async fn next(&self, with_leases: bool) -> Result<Option<Timestamp>> {
        self.know_folders().await?;
        let folders: Vec<Box<str>> = self.upcoming.lock().folders.keys().cloned().collect();
        let wanted = |folder: &str| with_leases || !folder.starts_with(index::ENDS);
        for folder in folders.iter().filter(|folder| wanted(folder)) {
            self.fill(folder).await?;
        }
        let mut upcoming = self.upcoming.lock();
        let of_one = |folder: &Folder| match folder.ends.first() {
            Some(name) => second(name),
            // The folder has no name left within its coverage, or is new: the disk must be read.
            None => folder.is_spent().then_some(0),
        };
        let next =
            upcoming.folders.iter().filter(|(name, _)| wanted(name)).filter_map(|(_, folder)| of_one(folder)).min();
        upcoming.alarm = next.unwrap_or(i64::MAX);
        Ok(next.map(Timestamp::from_unix))
    }

    async fn know_folders(&self) -> Result<()> {
        if self.upcoming.lock().listed {
            return Ok(());
        }
        let mounts = self.barrier.begin_read().list(&self.view, index::ENDS, &Page::all()).await?;
        let mut upcoming = self.upcoming.lock();
        upcoming.folders.entry(index::EXPIRY.into()).or_default();
        for mount in mounts.iter().filter_map(|name| name.strip_suffix('/')) {
            upcoming.folders.entry(folder_of(mount).into()).or_default();
        }
        upcoming.listed = true;
        Ok(())
    }

    /// Reads the next page of a folder that has no name left within its coverage.
    async fn fill(&self, folder: &str) -> Result<()> {
        let is_spent = |upcoming: &NextExpiries| upcoming.folders.get(folder).is_none_or(Folder::is_spent);
        if !is_spent(&self.upcoming.lock()) {
            return Ok(());
        }
        let _alone = self.filling.lock().await;
        let after = {
            let mut upcoming = self.upcoming.lock();
            if !is_spent(&upcoming) {
                return Ok(());
            }
            let known = upcoming.folders.entry(folder.into()).or_default();
            known.noted = Some(Vec::new());
            match &known.coverage {
                Coverage::To(last) if !last.is_empty() => Some(last.to_string()),
                _ => None,
            }
        };
        let page = Page { after, limit: Some(self.room) };
        let listed = self.barrier.begin_read().list(&self.view, folder, &page).await;
        let mut upcoming = self.upcoming.lock();
        let Some(known) = upcoming.folders.get_mut(folder) else { return Ok(()) };
        let noted = known.noted.take().unwrap_or_default();
        known.extend(listed?, noted, self.room);
        Ok(())
    }
}

/// The expiry folder of the leases of a mount.
pub(crate) fn folder_of(mount: &str) -> String {
    format!("{}{mount}/", index::ENDS)
}

/// The folder and the name of an entry of the expiry index.
fn placed(key: &str) -> Option<(&str, &str)> {
    let at = key.rfind('/')? + 1;
    let (folder, name) = key.split_at(at);
    (folder == index::EXPIRY || folder.starts_with(index::ENDS)).then_some((folder, name))
}

/// The second of expiry in the name of an entry.
fn second(name: &str) -> Option<i64> {
    i64::from_str_radix(name.get(..10)?, 16).ok()
}

#[cfg(test)]
impl ExpiryQueue {
    /// Checks that memory has exactly the names that the disk has within the coverage. Returns the number of names.
    pub(super) async fn check(&self) -> usize {
        let folders: Vec<Box<str>> = self.upcoming.lock().folders.keys().cloned().collect();
        let mut all = 0;
        for folder in folders {
            let on_disk = self.barrier.begin_read().list(&self.view, &folder, &Page::all()).await.unwrap();
            let upcoming = self.upcoming.lock();
            let known = &upcoming.folders[&folder];
            let within = |name: &&String| match &known.coverage {
                Coverage::All => true,
                Coverage::To(last) => name.as_str() <= &**last,
            };
            let expected: Vec<&str> = on_disk.iter().filter(within).map(String::as_str).collect();
            let kept: Vec<&str> = known.ends.iter().map(|name| &**name).collect();
            assert_eq!(kept, expected, "{folder} {:?}", known.coverage);
            assert!(kept.len() <= self.room);
            all += kept.len();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(second: i64) -> String {
        format!("{second:010x}{:024}", 0)
    }

    fn kept(folder: &Folder) -> Vec<i64> {
        folder.ends.iter().filter_map(|name| second(name)).collect()
    }

    #[test]
    fn a_page_read_during_commits_equals_the_records_on_disk() {
        let mut folder = Folder { noted: Some(Vec::new()), ..Folder::default() };
        // 3 is deleted, and 2 and 9 are added, while a page of four is read, before or after the page includes them.
        for (second, exists) in [(3, false), (2, true), (9, true), (5, true), (5, false)] {
            folder.note(&name(second), exists, 4);
        }
        assert!(folder.is_spent());
        for page in [[1, 3, 4, 6], [1, 2, 4, 6]] {
            let mut folder = Folder { noted: folder.noted.clone(), ..Folder::default() };
            let noted = folder.noted.take().unwrap();
            folder.extend(page.map(name).to_vec(), noted, 4);
            // 5 temporarily took the room of 6, so 6 is not covered.
            assert_eq!((kept(&folder), &folder.coverage), (vec![1, 2, 4], &Coverage::To(name(5).into())));
        }
    }

    #[test]
    fn expiries_without_room_are_outside_the_coverage() {
        let mut folder = Folder { coverage: Coverage::All, ..Folder::default() };
        for second in [5, 1, 9, 3] {
            folder.note(&name(second), true, 3);
        }
        assert_eq!((kept(&folder), &folder.coverage), (vec![1, 3, 5], &Coverage::To(name(5).into())));
        for (second, exists) in [(7, true), (5, false), (4, true)] {
            folder.note(&name(second), exists, 3);
        }
        assert_eq!(kept(&folder), [1, 3, 4]);
        for second in [1, 3, 4] {
            folder.note(&name(second), false, 3);
        }
        assert!(folder.is_spent(), "9 and 7 are on disk");
    }

    #[test]
    fn the_last_covered_name_is_covered() {
        let mut folder = Folder { coverage: Coverage::To(name(5).into()), ..Folder::default() };
        for second in [4, 5, 6] {
            folder.note(&name(second), true, 9);
        }
        assert_eq!(kept(&folder), [4, 5]);
    }
}
