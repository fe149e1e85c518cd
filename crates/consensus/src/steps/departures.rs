//! Members that were removed: a member that misses its removal campaigns without end, and nobody sends it the log any
//! more. The leader sends [`Body::Gone`], which ends it.
//!
//! An id never returns (obligation O7), so an id that the applied list lacks, and that is not above the applied index (or is
//! one of a recovery), is gone for good. A leader sends it only once a majority of the disks that are left has the commit of the removal: before
//! that, a restart could need the vote of the member that has ended (obligation O11).

use super::{Effect, Origin, Role, Steps};
use crate::entry::{Mono, RaftId};
use crate::member::{Incarnation, MAX_MEMBERS, Member};
use crate::message::{Body, Message};

/// How long a leader sends it to a member that sends no message, in microseconds.
const REPEAT_TIME: u64 = 60_000_000;

/// How long it waits before: a request for the removal may have come through the member, which seals.
const GRACE: u64 = 1_000_000;

struct Departed {
    member: Member,
    removed: Mono,
    sent: Option<Mono>,
}

/// The members that have left, and whether this node has.
#[derive(Default)]
pub(super) struct Departures {
    left: Vec<Departed>,
    /// The data directory of this node.
    own: Option<Incarnation>,
    /// An entry at this index has, in its frame, the commit of the newest applied list.
    floor: u64,
    is_gone: bool,
}

impl Departures {
    /// Those of a node with the id `own` that begins with this list.
    pub(super) fn of(own: RaftId, members: &[Member]) -> Self {
        let own = members.iter().find(|member| member.id == own).map(|member| member.incarnation);
        Self { own, ..Self::default() }
    }

    /// Whether this node was removed.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// This node leads, and its first entry has this index.
    pub(super) fn lead_from(&mut self, since: u64) {
        self.floor = since;
    }

    /// The newest list is applied, and the last entry has the index `last`. `removed` are those that it lacks.
    pub(super) fn note(&mut self, removed: impl Iterator<Item = Member>, last: u64, now: Mono) {
        self.left.extend(removed.map(|member| Departed { member, removed: now, sent: None }));
        let surplus = self.left.len().saturating_sub(MAX_MEMBERS);
        self.left.drain(..surplus);
        self.floor = last + 1;
    }

    pub(super) fn find(&self, id: RaftId) -> Option<&Member> {
        self.left.iter().map(|departed| &departed.member).find(|member| member.id == id)
    }
}

impl Steps {
    /// Sends it again to the members that have left, at each tick.
    pub(super) fn remind_departed(&mut self, out: &mut Vec<Effect>) {
        let now = self.now;
        self.departures.left.retain(|departed| now.since(departed.removed) < REPEAT_TIME);
        if self.departures.left.is_empty() || !self.knows_departed() {
            return;
        }
        let raft = &self.node.raft;
        if raft.raft_log.committed < self.departures.floor && !planted!(self.settings, GoneTooEarly) {
            if raft.raft_log.last_index() < self.departures.floor && raft.lead_transferee.is_none() {
                self.append_blank();
            }
            return;
        }
        let span = self.settings.election();
        let is_due = |departed: &Departed| {
            now.since(departed.removed) >= GRACE && departed.sent.is_none_or(|sent| now.since(sent) >= span)
        };
        let mut due = Vec::new();
        for departed in self.departures.left.iter_mut().filter(|departed| is_due(departed)) {
            departed.sent = Some(now);
            due.push((departed.member.id, departed.member.incarnation));
        }
        out.extend(due.into_iter().map(|(to, incarnation)| self.gone(to, incarnation)));
    }

    /// Responds to a candidate that is gone. Returns whether it is: nobody else processes its request then.
    pub(super) fn responds_gone(&self, origin: &Origin, message: &Message, out: &mut Vec<Effect>) -> bool {
        let is_request = matches!(message.body, Body::Vote { .. } | Body::PreVote { .. });
        let is_listed = || self.known_members().chain(self.proposals.list()).any(|member| member.id == message.from);
        if !is_request || !self.knows_departed() || !self.is_spent(message.from) || is_listed() {
            return false;
        }
        if self.node.raft.raft_log.committed >= self.departures.floor {
            out.push(self.gone(message.from, origin.incarnation));
        }
        true
    }

    /// Whether an id was given to a member before what is applied. Those of a recovery were given at its beginning.
    fn is_spent(&self, id: RaftId) -> bool {
        id.is_recovered() || id.0 <= self.applied
    }

    /// At the leader: the applied index, if a data directory is in no list, and a majority of the disks that are left has
    /// the commit of the newest one: its node may then end (obligation O11).
    #[must_use]
    pub fn departed(&self, incarnation: Incarnation) -> Option<u64> {
        let in_log = self.newest_in_log();
        let mut listed = self.known_members().chain(self.proposals.list()).chain(&in_log);
        let is_durable = self.node.raft.raft_log.committed >= self.departures.floor;
        let has_left = self.knows_departed() && is_durable && !listed.any(|member| member.incarnation == incarnation);
        has_left.then_some(self.applied)
    }

    /// Only a leader that has applied all entries of earlier terms knows which members have left.
    fn knows_departed(&self) -> bool {
        self.acts_as_leader() && matches!(self.role, Role::Leading { .. })
    }

    fn gone(&self, to: RaftId, incarnation: Incarnation) -> Effect {
        let body = Body::Gone { commit: self.applied, incarnation };
        Effect::Send(Message { from: self.id, to, term: self.node.raft.term, body })
    }

    /// Whether the sender leads, as far as this node knows, and means this node. Of a later term the sender is taken for
    /// the leader, as that of a heartbeat is.
    pub(super) fn is_from_leader(&self, message: &Message, commit: u64, incarnation: Incarnation) -> bool {
        let raft = &self.node.raft;
        let leads = match self.promise.leader() {
            _ if message.term > raft.term => true,
            _ if message.term < raft.term || self.is_leader() => false,
            Some((term, leader)) if term == raft.term => leader == message.from,
            _ => true,
        };
        // A node that has applied its removal takes it from any leader; another one only at an index that it has not applied.
        let is_listed = self.members.iter().any(|member| member.id == self.id);
        leads && (!is_listed || commit > self.applied) && self.departures.own == Some(incarnation)
    }

    /// The leader has sent that this node was removed: it takes no part any more.
    pub(super) fn leave(&mut self, commit: u64, out: &mut Vec<Effect>) {
        self.step_down();
        self.departures.is_gone = true;
        out.push(Effect::Removed { commit });
    }
}
