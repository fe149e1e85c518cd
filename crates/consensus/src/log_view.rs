//! The window of the log that is in memory, as the `Storage` of the crate `raft`. The driver's log on the disk is behind
//! it: an entry is here as soon as it is in a frame, and leaves when the driver drops what is applied. What has left and a
//! member needs is read from the disk (`stored.rs`).

use std::collections::VecDeque;

use raft::eraftpb::{Entry as RaftEntry, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::convert;
use crate::entry::{Entry, LogId, Vote};
use crate::member::Member;
use crate::payload::Payload;
use crate::stored::{LogRead, Stored};

/// The window, and what a snapshot of the applied state would contain.
pub(crate) struct LogView {
    /// What is on the disk only.
    stored: Stored,
    /// The entry before the first of the window.
    before: LogId,
    entries: VecDeque<RaftEntry>,
    /// The bytes of the entries.
    bytes: u64,
    /// The bytes of those that are not applied.
    unapplied: u64,
    /// For `initial_state` only.
    vote: Vote,
    committed: u64,
    applied: LogId,
    members: Vec<Member>,
}

impl LogView {
    /// A window that begins after `before`. `committed` and `vote` are those at the start of the process.
    pub(crate) fn new(before: LogId, vote: Vote, committed: u64, applied: LogId, members: Vec<Member>) -> Self {
        let (stored, entries) = (Stored::none(before), VecDeque::new());
        Self { stored, before, entries, bytes: 0, unapplied: 0, vote, committed, applied, members }
    }

    /// Sets what the disk has before the window: the entries after `floor`, and from which index on they have which term.
    pub(crate) fn set_stored(&mut self, floor: LogId, terms: &[(u64, u64)]) {
        if floor.index < self.before.index {
            let last = self.before.index;
            self.stored.set(floor, terms.iter().copied().filter(|(from, _)| (floor.index + 1..=last).contains(from)));
        }
    }

    /// The disk has no entries up to `index` any more.
    pub(crate) fn purge_stored(&mut self, index: u64) {
        self.stored.purge(index.min(self.before.index));
    }

    /// The reads of the disk that begin.
    pub(crate) fn begin_reads(&mut self) -> Vec<LogRead> {
        self.stored.begin_reads()
    }

    /// A read of the disk has ended, and has found these entries. Returns false for one that nobody needs. If it has found
    /// nothing, the disk counts as purged, so that a member gets a snapshot. After one that has failed (`None`), the next
    /// response of the member causes another one, a few times.
    pub(crate) fn end_read(&mut self, first: u64, entries: Option<&[Entry]>) -> bool {
        let Some(entries) = entries else {
            let is_lost = self.stored.fail_read(first);
            if is_lost {
                self.purge_stored(first);
            }
            return is_lost;
        };
        let is_needed = self.stored.end_read(first, self.before.index, entries);
        if is_needed && !self.stored.has_found() {
            self.purge_stored(first);
        }
        is_needed
    }

    /// Members have what was read.
    pub(crate) fn clear_found(&mut self) {
        self.stored.clear_found();
    }

    pub(crate) fn last(&self) -> LogId {
        self.entries.back().map_or(self.before, |entry| LogId { term: entry.term, index: entry.index })
    }

    /// The term at an index of the log, or just before it.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.before.index {
            return Some(self.before.term);
        }
        if index < self.before.index {
            return self.stored.term(index);
        }
        self.at(index).map(|entry| entry.term)
    }

    pub(crate) fn at(&self, index: u64) -> Option<&RaftEntry> {
        let offset = index.checked_sub(self.before.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Appends entries, which replace those from the first of them on. What becomes of the replaced ones is not decided: a
    /// leader of a later term may still have one of them and commit it (Ongaro figure 3.7).
    pub(crate) fn append(&mut self, entries: &[RaftEntry]) {
        let Some(first) = entries.first() else { return };
        let kept = first.index.saturating_sub(self.before.index + 1);
        let kept = usize::try_from(kept).unwrap_or(usize::MAX);
        // What is applied is never replaced.
        let less: u64 = self.entries.drain(kept.min(self.entries.len())..).map(|entry| convert::size_of(&entry)).sum();
        let more: u64 = entries.iter().map(convert::size_of).sum();
        self.bytes = self.bytes - less + more;
        self.unapplied = self.unapplied.saturating_sub(less) + more;
        self.entries.extend(entries.iter().cloned());
    }

    /// Sets the applied position.
    pub(crate) fn set_applied(&mut self, applied: LogId) {
        let new = self.applied.index + 1..=applied.index;
        let bytes: u64 = new.filter_map(|index| self.at(index)).map(convert::size_of).sum();
        self.unapplied = self.unapplied.saturating_sub(bytes);
        self.applied = applied;
    }

    /// The bytes of entries that are not applied.
    pub(crate) fn unapplied_bytes(&self) -> u64 {
        self.unapplied
    }

    /// The newest list of members that the log has up to `index` and that is not applied.
    pub(crate) fn list_until(&self, index: u64) -> Option<Vec<Member>> {
        let mut indexes = (self.applied.index + 1..=index.min(self.last().index)).rev();
        let entry = indexes.find_map(|index| self.at(index).filter(|entry| Payload::is_members(&entry.context)))?;
        match Payload::decode(&entry.context) {
            Ok(Payload::Members(list)) => Some(list),
            _ => None,
        }
    }

    /// Sets the members at the applied position.
    pub(crate) fn set_members(&mut self, members: Vec<Member>) {
        self.members = members;
    }

    /// Begins again after a snapshot.
    pub(crate) fn reset(&mut self, applied: LogId, members: Vec<Member>) {
        (self.before, self.applied, self.members) = (applied, applied, members);
        self.stored = Stored::none(applied);
        self.entries.clear();
        (self.bytes, self.unapplied) = (0, 0);
    }

    /// Drops applied entries while there are more than `bytes`.
    pub(crate) fn trim(&mut self, bytes: u64) {
        while self.bytes > bytes
            && self.before.index < self.applied.index
            && let Some(entry) = self.entries.pop_front()
        {
            self.bytes -= convert::size_of(&entry);
            self.before = LogId { term: entry.term, index: entry.index };
            self.stored.push(self.before);
        }
    }

    #[cfg(any(test, feature = "suite"))]
    pub(crate) fn before(&self) -> LogId {
        self.before
    }
}

impl Storage for LogView {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard = convert::hard_state(self.vote, self.committed);
        Ok(RaftState::new(hard, convert::conf_state(&self.members)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<RaftEntry>> {
        let most = max_size.into().unwrap_or(u64::MAX);
        if low <= self.stored.floor().index {
            return Err(StorageError::Compacted.into());
        }
        if low <= self.before.index {
            // Only what is not applied is needed at once, and that is in memory.
            let end = high.min(self.before.index + 1);
            let found = if context.can_async() { self.stored.entries(low, end, most) } else { None };
            return found.map(|entries| within(most, entries)).ok_or(StorageError::LogTemporarilyUnavailable.into());
        }
        let offset = |index: u64| usize::try_from(index - self.before.index - 1).unwrap_or(usize::MAX);
        let (from, to) = (offset(low), offset(high));
        if to > self.entries.len() {
            return Err(StorageError::Unavailable.into());
        }
        Ok(within(most, self.entries.range(from..to)))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let missing =
            if index < self.stored.floor().index { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_at(index).ok_or_else(|| missing.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.stored.floor().index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().index)
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        if self.applied.index < request_index || self.applied.index == 0 {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(convert::snapshot(self.applied, &self.members))
    }
}

/// The first entries with this number of bytes, at least one, whatever its size.
fn within<'e>(most: u64, entries: impl Iterator<Item = &'e RaftEntry>) -> Vec<RaftEntry> {
    let mut sum = 0_u64;
    let fits = |entry: &&RaftEntry| {
        let first = sum == 0;
        sum = sum.saturating_add(convert::size_of(entry));
        first || sum <= most
    };
    entries.take_while(fits).cloned().collect()
}
