//! The part of the log that only the disk has: its terms, and what the driver reads of it for members that are behind.

use std::cell::RefCell;
use std::collections::VecDeque;

use raft::eraftpb::Entry as RaftEntry;

use crate::convert;
use crate::entry::{Entry, LogId};

/// The most reads under way. A member whose read has no place causes another one with its next response.
const MAX_READS: usize = 4;

/// The failed reads in succession after which the disk counts as purged: the member gets a snapshot then, which may not need
/// what cannot be read.
const MAX_FAILURES: u32 = 10;

/// A read of the log that the driver has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogRead {
    /// The first entry.
    pub(crate) first: u64,
    /// The index after the last one that is on the disk only.
    pub(crate) end: u64,
    /// The bytes that the entries may have; one entry may have more.
    pub(crate) bytes: u64,
}

/// The entries after `floor` and before the window. All of them are applied, so that none is ever replaced.
pub(crate) struct Stored {
    floor: LogId,
    /// The index from which on entries have a term, after the floor.
    terms: VecDeque<(u64, u64)>,
    /// The crate reads its storage by a shared reference.
    reads: RefCell<Reads>,
    /// What was read, while members get it.
    found: VecDeque<RaftEntry>,
}

#[derive(Default)]
struct Reads {
    wanted: Vec<LogRead>,
    /// The first entries of the reads that the driver does.
    under_way: Vec<u64>,
    /// The failed ones since the last one that has found something.
    failures: u32,
}

impl Stored {
    /// Nothing is on the disk only.
    pub(crate) fn none(before: LogId) -> Self {
        Self { floor: before, terms: VecDeque::new(), reads: RefCell::default(), found: VecDeque::new() }
    }

    pub(crate) fn floor(&self) -> LogId {
        self.floor
    }

    /// Sets what the disk has after `floor`: `terms` as [`Self::push`] would collect them.
    pub(crate) fn set(&mut self, floor: LogId, terms: impl Iterator<Item = (u64, u64)>) {
        (self.floor, self.terms) = (floor, terms.collect());
    }

    /// An entry has left the window.
    pub(crate) fn push(&mut self, id: LogId) {
        let last = self.terms.back().map_or(self.floor.term, |(_, term)| *term);
        if last != id.term {
            self.terms.push_back((id.index, id.term));
        }
    }

    /// The term of the floor or of an entry after it that is not after the last one here.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index < self.floor.index {
            return None;
        }
        let after = self.terms.partition_point(|(from, _)| *from <= index);
        Some(after.checked_sub(1).map_or(self.floor.term, |run| self.terms[run].1))
    }

    /// The disk has no entries up to `index` any more, which is before the window.
    pub(crate) fn purge(&mut self, index: u64) {
        let Some(term) = self.term(index) else { return };
        while self.terms.pop_front_if(|(from, _)| *from <= index).is_some() {}
        self.floor = LogId { term, index };
    }

    /// The entries that were read from `first` on, if any. Otherwise the driver reads them.
    pub(crate) fn entries(&self, first: u64, end: u64, bytes: u64) -> Option<impl Iterator<Item = &RaftEntry>> {
        if self.found.front().is_some_and(|entry| entry.index == first) {
            return Some(self.found.iter().take_while(move |entry| entry.index < end));
        }
        let mut reads = self.reads.borrow_mut();
        let is_known = reads.under_way.contains(&first) || reads.wanted.iter().any(|read| read.first == first);
        if !is_known && reads.under_way.len() + reads.wanted.len() < MAX_READS {
            reads.wanted.push(LogRead { first, end, bytes });
        }
        None
    }

    /// The reads that begin.
    pub(crate) fn begin_reads(&mut self) -> Vec<LogRead> {
        let reads = self.reads.get_mut();
        reads.under_way.extend(reads.wanted.iter().map(|read| read.first));
        std::mem::take(&mut reads.wanted)
    }

    /// A read has ended; false for one that was not under way. Entries that are not those of this log are none.
    pub(crate) fn end_read(&mut self, first: u64, last: u64, entries: &[Entry]) -> bool {
        let reads = self.reads.get_mut();
        let Some(place) = reads.under_way.iter().position(|under_way| *under_way == first) else { return false };
        reads.under_way.swap_remove(place);
        reads.failures = 0;
        let is_own = |(index, entry): (u64, &Entry)| {
            entry.id.index == index && index <= last && self.term(index) == Some(entry.id.term)
        };
        let are_own = (first..).zip(entries).all(is_own);
        self.found = entries.iter().filter(|_| are_own).map(convert::entry_to_raft).collect();
        true
    }

    /// A read has failed. Returns whether it was under way, and is one too many in succession.
    pub(crate) fn fail_read(&mut self, first: u64) -> bool {
        let reads = self.reads.get_mut();
        let Some(place) = reads.under_way.iter().position(|under_way| *under_way == first) else { return false };
        reads.under_way.swap_remove(place);
        reads.failures += 1;
        let is_lost = reads.failures >= MAX_FAILURES;
        reads.failures = if is_lost { 0 } else { reads.failures };
        is_lost
    }

    /// Whether a read has found something.
    pub(crate) fn has_found(&self) -> bool {
        !self.found.is_empty()
    }

    /// Members have what was read.
    pub(crate) fn clear_found(&mut self) {
        self.found.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, index }
    }

    fn stored() -> Stored {
        let mut stored = Stored::none(id(1, 10));
        for entry in [id(1, 11), id(2, 12), id(2, 13), id(4, 14)] {
            stored.push(entry);
        }
        stored
    }

    #[test]
    fn terms_of_stored_entries_outlive_a_purge_before_them() {
        let mut stored = stored();
        let terms = |stored: &Stored| (9..=14).map(|index| stored.term(index)).collect::<Vec<_>>();
        assert_eq!(terms(&stored), [None, Some(1), Some(1), Some(2), Some(2), Some(4)]);
        stored.purge(12);
        assert_eq!((stored.floor(), terms(&stored)), (id(2, 12), vec![None, None, None, Some(2), Some(2), Some(4)]));
        stored.purge(11);
        assert_eq!(stored.floor(), id(2, 12));
    }

    #[test]
    fn reads_are_begun_once_and_bounded() {
        let mut stored = stored();
        for first in [11, 11, 12, 13, 14, 15] {
            assert!(stored.entries(first, 16, 100).is_none());
        }
        let firsts: Vec<u64> = stored.begin_reads().iter().map(|read| read.first).collect();
        assert_eq!(firsts, [11, 12, 13, 14]);
        assert!(stored.entries(11, 16, 100).is_none() && stored.begin_reads().is_empty());
        assert!(stored.end_read(11, 14, &[]) && !stored.end_read(11, 14, &[]) && !stored.has_found());
        assert!(stored.entries(15, 16, 100).is_none());
        assert_eq!(stored.begin_reads(), [LogRead { first: 15, end: 16, bytes: 100 }]);
    }

    #[test]
    fn a_read_that_fails_is_done_again_a_few_times() {
        let mut stored = stored();
        let fails = |stored: &mut Stored| {
            assert!(stored.entries(11, 15, 100).is_none());
            assert_eq!(stored.begin_reads().len(), 1, "it begins again");
            stored.fail_read(11)
        };
        for _ in 0..9 {
            assert!(!fails(&mut stored));
        }
        assert!(!stored.fail_read(11), "none is under way");
        assert!(stored.entries(11, 15, 100).is_none() && stored.begin_reads().len() == 1);
        assert!(stored.end_read(11, 14, &[Entry { id: id(1, 11), payload: bytes::Bytes::new() }]));
        stored.clear_found();
        for at in 1..=10 {
            assert_eq!(fails(&mut stored), at == 10, "since the last success");
        }
        assert_eq!(stored.term(11), Some(1), "nothing is purged by it");
    }

    #[test]
    fn entries_of_another_log_are_not_sent() {
        let entry = |term, index| Entry { id: id(term, index), payload: bytes::Bytes::from_static(&[2]) };
        for (entries, found) in [
            (vec![entry(1, 11), entry(2, 12)], 2),
            (vec![entry(1, 11), entry(3, 12)], 0),
            (vec![entry(2, 12)], 0),
            (vec![entry(1, 11), entry(2, 13)], 0),
            (vec![entry(1, 11), entry(2, 12), entry(2, 13), entry(4, 14), entry(4, 15)], 0),
        ] {
            let mut stored = stored();
            assert!(stored.entries(11, 15, 100).is_none());
            stored.begin_reads();
            assert!(stored.end_read(11, 14, &entries));
            assert_eq!(stored.entries(11, 15, 100).map_or(0, Iterator::count), found, "{entries:?}");
        }
    }
}
