//! Who waits for entries, reads and transfers.

use std::collections::{BTreeMap, HashMap};

use keepfast_consensus::{Entry, LogId, Mono};

use super::event::Reply;
use crate::{Index, StorageError};

/// The time after which the fate of a proposal counts as unknown, in microseconds.
const PATIENCE: u64 = 10_000_000;

/// When a proposal is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Once it is applied.
    Applied,
    /// Once Raft counts by it, too: a change of the members.
    Effective,
}

struct Proposed {
    term: u64,
    since: Mono,
    until: Until,
    reply: Reply<Index>,
}

/// What waits.
#[derive(Default)]
pub(super) struct Waiting {
    /// By index.
    proposed: BTreeMap<u64, Proposed>,
    /// Changes that are committed.
    changes: Vec<(u64, Reply<Index>)>,
    reads: HashMap<u64, Option<Reply<Index>>>,
    next_read: u64,
    transfers: Vec<(Mono, Reply<()>)>,
    leaving: Vec<(Mono, Reply<()>)>,
}

impl Waiting {
    pub(super) fn add(&mut self, id: LogId, since: Mono, until: Until, reply: Reply<Index>) {
        let before = self.proposed.insert(id.index, Proposed { term: id.term, since, until, reply });
        // Another leader may still have the entry that was there.
        if let Some(before) = before {
            let _ = before.reply.send(Err(StorageError::Unknown));
        }
    }

    /// The fate of what was proposed at the positions of committed entries. Returns who gets the verdict.
    pub(super) fn committed(&mut self, entries: &[Entry]) -> Vec<(u64, Reply<Index>)> {
        let mut replies = Vec::new();
        for entry in entries {
            if self.proposed.is_empty() {
                break;
            }
            let LogId { term, index } = entry.id;
            let Some(proposed) = self.proposed.remove(&index) else { continue };
            match proposed.until {
                _ if proposed.term != term => drop(proposed.reply.send(Err(StorageError::NotCommitted))),
                Until::Applied => replies.push((index, proposed.reply)),
                Until::Effective => self.changes.push((index, proposed.reply)),
            }
        }
        replies
    }

    /// Entries up to `index` are applied.
    pub(super) fn applied(&mut self, index: u64) {
        for (_, reply) in self.changes.extract_if(.., |(at, _)| *at <= index) {
            let _ = reply.send(Ok(Index(index)));
        }
    }

    pub(super) fn lose_until(&mut self, index: u64) {
        let later = self.proposed.split_off(&(index + 1));
        for proposed in std::mem::replace(&mut self.proposed, later).into_values() {
            let _ = proposed.reply.send(Err(StorageError::Unknown));
        }
    }

    /// Notes a read, and returns its id.
    pub(super) fn read(&mut self, reply: Option<Reply<Index>>) -> u64 {
        self.next_read += 1;
        self.reads.insert(self.next_read, reply);
        self.next_read
    }

    pub(super) fn read_ready(&mut self, id: u64, result: Result<Index, StorageError>) {
        if let Some(reply) = self.reads.remove(&id).flatten() {
            let _ = reply.send(result);
        }
    }

    pub(super) fn transfer(&mut self, deadline: Mono, reply: Reply<()>) {
        self.transfers.push((deadline, reply));
    }

    /// This node does not lead.
    pub(super) fn transferred(&mut self) {
        for (_, reply) in self.transfers.drain(..) {
            let _ = reply.send(Ok(()));
        }
        for (deadline, _) in &mut self.leaving {
            *deadline = Mono(0);
        }
    }

    pub(super) fn leave(&mut self, deadline: Mono, reply: Reply<()>) {
        self.leaving.push((deadline, reply));
    }

    /// Whether the node is to leave now.
    pub(super) fn leaves_by(&self, now: Mono) -> bool {
        self.leaving.iter().any(|(deadline, _)| *deadline <= now)
    }

    pub(super) fn left(&mut self) {
        for (_, reply) in self.leaving.drain(..) {
            let _ = reply.send(Ok(()));
        }
    }

    /// Answers those whose time is over.
    pub(super) fn expire(&mut self, now: Mono) {
        while let Some(first) = self.proposed.first_entry()
            && now.since(first.get().since) > PATIENCE
        {
            let _ = first.remove().reply.send(Err(StorageError::Unknown));
        }
        for (_, reply) in self.transfers.extract_if(.., |(deadline, _)| *deadline <= now) {
            let _ = reply.send(Err(StorageError::Unknown));
        }
    }

    /// Nothing more comes. What was proposed may take effect later.
    pub(super) fn end(&mut self, error: &StorageError) {
        self.lose_until(u64::MAX - 1);
        for (_, reply) in self.changes.drain(..) {
            let _ = reply.send(Err(StorageError::Unknown));
        }
        for reply in self.reads.drain().filter_map(|(_, reply)| reply) {
            let _ = reply.send(Err(error.clone()));
        }
        for (_, reply) in self.transfers.drain(..) {
            let _ = reply.send(Err(StorageError::Unknown));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::oneshot::{Receiver, channel};

    use super::*;

    type Result = std::result::Result<Index, StorageError>;

    fn propose(waiting: &mut Waiting, term: u64, index: u64) -> Receiver<Result> {
        let (reply, result) = channel();
        waiting.add(LogId { term, index }, Mono(0), Until::Applied, reply);
        result
    }

    fn commit(waiting: &mut Waiting, term: u64, index: u64) -> usize {
        waiting.committed(&[Entry { id: LogId { term, index }, payload: Bytes::new() }]).len()
    }

    /// Ongaro figure 3.7: a leader of a later term may have an entry that others have replaced, and commit it.
    #[test]
    fn the_fate_of_an_entry_is_decided_by_what_is_committed_there() {
        let mut waiting = Waiting::default();
        let mut first = propose(&mut waiting, 2, 5);
        // Other entries were appended there meanwhile. That decides nothing.
        assert!(first.try_recv().is_err());
        assert_eq!(commit(&mut waiting, 2, 5), 1, "its own entry: the verdict follows");
        let mut other = propose(&mut waiting, 2, 6);
        assert_eq!(commit(&mut waiting, 3, 6), 0);
        assert!(matches!(other.try_recv().unwrap(), Err(StorageError::NotCommitted)));
        // Two terms of this leader: the first entry may still be that of a later one.
        let mut replaced = propose(&mut waiting, 4, 7);
        let _second = propose(&mut waiting, 6, 7);
        assert!(matches!(replaced.try_recv().unwrap(), Err(StorageError::Unknown)));
        // A snapshot does not tell.
        let (mut covered, mut later) = (propose(&mut waiting, 6, 8), propose(&mut waiting, 6, 10));
        waiting.lose_until(9);
        assert!(matches!(covered.try_recv().unwrap(), Err(StorageError::Unknown)));
        assert!(later.try_recv().is_err());
    }

    #[test]
    fn a_fate_that_stays_open_is_unknown_after_a_time() {
        let mut waiting = Waiting::default();
        let mut result = propose(&mut waiting, 2, 5);
        waiting.expire(Mono(PATIENCE));
        assert!(result.try_recv().is_err());
        waiting.expire(Mono(PATIENCE + 1));
        assert!(matches!(result.try_recv().unwrap(), Err(StorageError::Unknown)));
    }
}
