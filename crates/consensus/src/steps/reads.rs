//! Linearizable reads (Ongaro §6.4): from the lease, or by a ReadIndex round that all callers share that waited when it
//! began. One round is under way; it is repeated under a new name, because the crate responds to a name that it knows with
//! the index of its first use, which is too old for callers that came later.

use std::collections::VecDeque;

use super::{Effect, Steps};
use crate::convert;
use crate::entry::Mono;
use crate::message::ReadContext;

/// The most callers that wait for a round. Each is a request at some node.
const MAX_WAITING: usize = 65_536;

struct Caller {
    id: u64,
    deadline: Mono,
}

struct Round {
    context: ReadContext,
    started: Mono,
    callers: Vec<Caller>,
}

/// Callers and rounds.
pub(super) struct Reads {
    waiting: Vec<Caller>,
    rounds: VecDeque<Round>,
    epoch: u64,
    count: u64,
    /// Whether the lease is to be renewed although nobody waits.
    renews: bool,
}

impl Reads {
    pub(super) fn new(epoch: u64) -> Self {
        Self { waiting: Vec::new(), rounds: VecDeque::new(), epoch, count: 0, renews: false }
    }

    /// Leadership is lost.
    pub(super) fn lose_all(&mut self, out: &mut Vec<Effect>) {
        let rounds = self.rounds.drain(..).flat_map(|round| round.callers);
        out.extend(rounds.chain(self.waiting.drain(..)).map(|caller| Effect::ReadLost(caller.id)));
        self.renews = false;
    }

    fn lose_late(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let lists = self.rounds.iter_mut().map(|round| &mut round.callers).chain([&mut self.waiting]);
        for callers in lists {
            callers.retain(|caller| {
                let is_late = now >= caller.deadline;
                if is_late {
                    out.push(Effect::ReadLost(caller.id));
                }
                !is_late
            });
        }
    }

    /// A quorum has acknowledged a round, and with it every earlier one. Returns when it was started.
    fn confirmed(&mut self, context: ReadContext, index: u64, out: &mut Vec<Effect>) -> Option<Mono> {
        let at = self.rounds.iter().position(|round| round.context == context)?;
        let started = self.rounds[at].started;
        let callers = self.rounds.drain(..=at).flat_map(|round| round.callers);
        out.extend(callers.map(|caller| Effect::ReadReady { id: caller.id, index }));
        Some(started)
    }
}

impl Steps {
    /// Serves a call from the lease, or lets it wait for a round.
    pub(super) fn read_index(&mut self, id: u64, out: &mut Vec<Effect>) {
        if !self.is_leader() {
            out.push(Effect::ReadLost(id));
            return;
        }
        let shortest = self.shortest_promise();
        if self.holds_lease_for(shortest) {
            out.push(Effect::ReadReady { id, index: self.node.raft.raft_log.committed });
            // Reads renew the lease before it ends; without reads it may end.
            self.reads.renews |= self.lease.is_old(self.now, shortest);
            return;
        }
        if self.reads.waiting.len() >= MAX_WAITING {
            out.push(Effect::ReadLost(id));
            return;
        }
        self.reads.waiting.push(Caller { id, deadline: self.now + self.settings.read_deadline });
    }

    /// Whether this node may serve a read alone at this time, if nothing happens before.
    #[cfg(any(test, feature = "suite"))]
    #[must_use]
    pub fn holds_lease_at(&self, now: Mono) -> bool {
        self.has_lease(now.max(self.now), self.shortest_promise())
    }

    /// The time before which this node may serve reads alone; `None` without a lease.
    #[must_use]
    pub fn lease_until(&self) -> Option<Mono> {
        let shortest = self.shortest_promise();
        self.holds_lease_for(shortest).then(|| self.lease.end(shortest)).flatten()
    }

    /// Whether this node may serve a read alone, at the time of the last input. A leader knows which commits others have
    /// seen only when it has committed an entry of its own term (Ongaro §6.4, step 1), and it has applied it, so that it
    /// knows every list of members before it.
    fn holds_lease_for(&self, shortest: u64) -> bool {
        self.has_lease(self.now, shortest)
    }

    fn has_lease(&self, now: Mono, shortest: u64) -> bool {
        self.is_leader() && self.is_settled() && self.settings.read_lease && self.lease.holds(now, shortest)
    }

    fn is_settled(&self) -> bool {
        self.applied >= self.proposals.since()
    }

    /// Begins a round if one is needed and possible. Returns whether the crate has something to say.
    pub(super) fn begin_read_round(&mut self) -> bool {
        if !self.is_leader() || !self.node.raft.commit_to_current_term() {
            return false;
        }
        let renews = self.reads.renews && self.settings.read_lease && self.lease.can_renew();
        if self.reads.waiting.is_empty() && !(renews && self.reads.rounds.is_empty()) {
            return false;
        }
        let newest = self.reads.rounds.back().map(|round| (round.started, round.context));
        if newest.is_some_and(|(started, _)| self.now.since(started) < self.settings.read_retry) {
            return false;
        }
        let callers = std::mem::take(&mut self.reads.waiting);
        self.reads.renews = false;
        if planted!(self.settings, RetriedReadContext)
            && let Some(round) = self.reads.rounds.back_mut()
        {
            (round.started, round.callers) = (self.now, round.callers.drain(..).chain(callers).collect());
            self.node.read_index(convert::context_to_raft(round.context));
            return true;
        }
        self.reads.count += 1;
        let context = ReadContext { epoch: self.reads.epoch, count: self.reads.count };
        self.reads.rounds.push_back(Round { context, started: self.now, callers });
        self.node.read_index(convert::context_to_raft(context));
        true
    }

    /// The crate has confirmed a round.
    pub(super) fn note_read(&mut self, context: &[u8], index: u64, out: &mut Vec<Effect>) {
        let Some(context) = convert::context_from_raft(context) else { return };
        if let Some(started) = self.reads.confirmed(context, index, out) {
            self.lease.confirm(started);
        }
    }

    /// Calls whose time is over are lost.
    pub(super) fn expire_reads(&mut self, out: &mut Vec<Effect>) {
        self.reads.lose_late(self.now, out);
    }
}
