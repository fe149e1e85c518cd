//! Calls that wait for entries, reads and transfers.

use std::collections::BTreeMap;

use keepfast_consensus::{Entry, LogId, Mono};

use super::event::Reply;
use crate::{Index, StorageError};

/// The time after which the outcome of a proposal is unknown, in microseconds.
const PROPOSAL_TIMEOUT: u64 = 10_000_000;
/// The time between two searches for such proposals, in microseconds.
const EXPIRY_INTERVAL: u64 = 1_000_000;

/// When the caller of a proposal gets its result.
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
    /// When proposals are searched for those that time out.
    next_expiry: Mono,
    /// Changes that are committed.
    changes: Vec<(u64, Reply<Index>)>,
    reads: BTreeMap<u64, Option<Reply<Index>>>,
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

    /// Decides on what was proposed at the positions of committed entries. Returns the calls that get the result of the
    /// application.
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
        for (at, reply) in self.changes.extract_if(.., |(at, _)| *at <= index) {
            let _ = reply.send(Ok(Index(at)));
        }
    }

    pub(super) fn lose_until(&mut self, index: u64) {
        let later = self.proposed.split_off(&(index + 1));
        let error = if planted!(OutcomeGuessed) { StorageError::NotCommitted } else { StorageError::Unknown };
        for proposed in std::mem::replace(&mut self.proposed, later).into_values() {
            let _ = proposed.reply.send(Err(error.clone()));
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

    /// Ends the calls that time out.
    pub(super) fn expire(&mut self, now: Mono) {
        if now >= self.next_expiry {
            self.next_expiry = now + EXPIRY_INTERVAL;
            // Not in the order of the indexes: a later proposal may have a lower one, after another leader.
            for (_, proposed) in
                self.proposed.extract_if(.., |_, proposed| now.since(proposed.since) > PROPOSAL_TIMEOUT)
            {
                let _ = proposed.reply.send(Err(StorageError::Unknown));
            }
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
        for reply in std::mem::take(&mut self.reads).into_values().flatten() {
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
    fn what_is_committed_at_its_position_decides_on_a_proposal() {
        let mut waiting = Waiting::default();
        let mut first = propose(&mut waiting, 2, 5);
        // Other entries were appended there meanwhile. That decides nothing.
        assert!(first.try_recv().is_err());
        assert_eq!(commit(&mut waiting, 2, 5), 1, "its own entry: the result of its application follows");
        let mut other = propose(&mut waiting, 2, 6);
        assert_eq!(commit(&mut waiting, 3, 6), 0);
        assert!(matches!(other.try_recv().unwrap(), Err(StorageError::NotCommitted)));
        // Two terms of this leader: the first entry may still be that of a later one.
        let mut replaced = propose(&mut waiting, 4, 7);
        let _second = propose(&mut waiting, 6, 7);
        assert!(matches!(replaced.try_recv().unwrap(), Err(StorageError::Unknown)));
        // A snapshot does not decide.
        let (mut covered, mut later) = (propose(&mut waiting, 6, 8), propose(&mut waiting, 6, 10));
        waiting.lose_until(9);
        assert!(matches!(covered.try_recv().unwrap(), Err(StorageError::Unknown)));
        assert!(later.try_recv().is_err());
    }

    #[test]
    fn the_outcome_of_a_proposal_is_unknown_after_a_time() {
        let mut waiting = Waiting::default();
        let (mut late, mut old) = (propose(&mut waiting, 4, 3), propose(&mut waiting, 2, 5));
        waiting.proposed.get_mut(&3).unwrap().since = Mono(EXPIRY_INTERVAL);
        waiting.expire(Mono(PROPOSAL_TIMEOUT));
        assert!(old.try_recv().is_err());
        waiting.expire(Mono(PROPOSAL_TIMEOUT + EXPIRY_INTERVAL));
        assert!(matches!(old.try_recv().unwrap(), Err(StorageError::Unknown)), "behind one that is not old");
        assert!(late.try_recv().is_err());
        waiting.expire(Mono(PROPOSAL_TIMEOUT + 2 * EXPIRY_INTERVAL));
        assert!(matches!(late.try_recv().unwrap(), Err(StorageError::Unknown)));
    }

    #[test]
    fn a_change_returns_its_own_index() {
        let mut waiting = Waiting::default();
        let (reply, mut result) = channel();
        waiting.add(LogId { term: 2, index: 5 }, Mono(0), Until::Effective, reply);
        assert_eq!(commit(&mut waiting, 2, 5), 0);
        waiting.applied(4);
        assert!(result.try_recv().is_err());
        waiting.applied(9);
        assert_eq!(result.try_recv().unwrap().unwrap(), Index(5));
    }
}
