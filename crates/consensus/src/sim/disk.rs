//! What of a node outlives a crash: what was synced. A frame is there as a whole or not at all.

use std::collections::VecDeque;

use crate::entry::{Entry, LogId, Vote};
use crate::member::Member;

/// The durable image of a node.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) vote: Vote,
    pub(super) committed: u64,
    /// The entry before the log.
    pub(super) before: LogId,
    pub(super) entries: VecDeque<Entry>,
    /// The state: its index and the members there.
    pub(super) applied: u64,
    pub(super) members: Vec<Member>,
    /// The longest election timeout that the node has announced, in milliseconds.
    pub(super) announced: u32,
    /// Whether the leader has said that it was removed.
    pub(super) is_removed: bool,
}

impl Disk {
    pub(super) fn write(&mut self, vote: Option<Vote>, committed: u64, entries: &[Entry]) {
        self.vote = vote.unwrap_or(self.vote);
        self.committed = self.committed.max(committed);
        if let Some(first) = entries.first() {
            self.entries.truncate((first.id.index - self.before.index - 1) as usize);
            self.entries.extend(entries.iter().cloned());
        }
    }

    /// The position of the entry at an index, which is here or the last one before.
    pub(super) fn id_at(&self, index: u64) -> LogId {
        let offset = index.checked_sub(self.before.index + 1);
        let entry = offset.and_then(|offset| self.entries.get(offset as usize));
        entry.map_or(self.before, |entry| entry.id)
    }

    /// Whether an entry is here, in the log or in the state.
    pub(super) fn has(&self, id: LogId) -> bool {
        if id.index <= self.before.index {
            return true;
        }
        let entry = self.entries.get((id.index - self.before.index - 1) as usize);
        entry.is_some_and(|entry| entry.id == id)
    }

    /// From which index on the entries have which term.
    pub(super) fn terms(&self) -> Vec<(u64, u64)> {
        let mut last = self.before.term;
        let starts = self.entries.iter().filter(|entry| std::mem::replace(&mut last, entry.id.term) != entry.id.term);
        starts.map(|entry| (entry.id.index, entry.id.term)).collect()
    }

    /// Entries until `bytes` are exceeded, at least one; none when the first is not here.
    pub(super) fn read(&self, first: u64, end: u64, bytes: u64) -> Vec<Entry> {
        let Some(offset) = first.checked_sub(self.before.index + 1) else { return Vec::new() };
        let mut sum = 0;
        let until_full = |entry: &&Entry| {
            let is_less = sum <= bytes;
            sum += entry.payload.len() as u64;
            is_less && entry.id.index < end
        };
        self.entries.iter().skip(offset as usize).take_while(until_full).cloned().collect()
    }

    /// A snapshot takes the place of everything but the vote.
    pub(super) fn install(&mut self, vote: Vote, last: LogId, members: Vec<Member>) {
        (self.vote, self.before, self.committed) = (vote, last, last.index);
        (self.applied, self.members) = (last.index, members);
        self.entries.clear();
    }

    /// Drops entries that the state contains.
    pub(super) fn purge(&mut self, until: u64) {
        while self.before.index < until.min(self.applied) {
            let Some(entry) = self.entries.pop_front() else { break };
            self.before = entry.id;
        }
    }
}
