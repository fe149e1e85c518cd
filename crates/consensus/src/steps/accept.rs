//! Which messages of a peer reach the crate (obligations O1 and O9). The crate trusts its callers: a field that does
//! not fit lets it panic, and a vote that breaks a promise breaks the lease of a leader.

use raft::StateRole;

use super::{Origin, Steps};
use crate::convert;
use crate::entry::{Entry, LogId, RaftId};
use crate::member::Member;
use crate::message::{Body, Message};
use crate::payload::Payload;

/// The most terms of a message beyond that of this node. No two members can be so far apart; a term near the bound of
/// numbers would end all elections.
const MAX_TERMS_AHEAD: u64 = 1 << 20;

impl Steps {
    /// Whether a message may be processed. A message that may not is lost.
    pub(super) fn accepts(&self, origin: &Origin, message: &Message) -> bool {
        message.to == self.id
            && message.from != self.id
            && message.from.0 != 0
            && message.term != 0
            && message.term <= self.node.raft.term.saturating_add(MAX_TERMS_AHEAD)
            && self.is_known_as(origin, message.from)
            && self.fits(message)
            && !self.breaks_promise(message)
    }

    /// Whether the certificate of the sender belongs to the id. An id that this node does not know yet is accepted: a
    /// follower that lacks a part of the log may lack the entry that adds the leader (Ongaro §4.1).
    fn is_known_as(&self, origin: &Origin, id: RaftId) -> bool {
        if planted!(self.settings, IncarnationIgnored) {
            return true;
        }
        let mut members = self.known_members();
        let is_origin = |member: &Member| member.node == origin.node && member.incarnation == origin.incarnation;
        members.all(|member| (member.id == id) == is_origin(member))
    }

    /// A promise is kept in every term, since a candidate may be in any; only a transfer by the leader overrides it,
    /// and ends the lease.
    fn breaks_promise(&self, message: &Message) -> bool {
        let is_request = matches!(message.body, Body::Vote { forced: false, .. } | Body::PreVote { .. });
        is_request && self.promise.holds(self.now) && !planted!(self.settings, NoPromise)
    }

    fn fits(&self, message: &Message) -> bool {
        let raft = &self.node.raft;
        let is_current = message.term == raft.term;
        match &message.body {
            // The crate takes a position of term 0 for any position beyond its log, and panics.
            Body::Append { previous, entries, .. } => {
                previous.term > 0
                    && are_entries(message.term, *previous, entries)
                    && self.changes_one_by_one(*previous, entries)
            }
            // A leader sends only what the follower has acknowledged; a follower without it has lost its log.
            Body::Heartbeat { commit, .. } => *commit <= raft.raft_log.last_index(),
            Body::AppendResponse { index, rejection, .. } => {
                let is_stale = !is_current || raft.state != StateRole::Leader;
                // A rejection repeats an index that the leader sent, and the hint is at most that.
                let hint = rejection.map_or(0, |rejection| rejection.hint);
                is_stale || (*index <= raft.raft_log.last_index() && hint <= *index)
            }
            Body::Snapshot { last, members } => {
                let is_position = last.index > 1 && last.term > 0 && last.term <= message.term;
                is_position && members.iter().any(|member| member.id == self.id)
            }
            // Only the leader transfers leadership, and only its own.
            Body::TimeoutNow => is_current && raft.leader_id == message.from.0 && !self.is_only_voter(),
            Body::Vote { last, forced, .. } => last.term < message.term && (!forced || self.may_force(message.from)),
            Body::PreVote { last, .. } => last.term < message.term,
            // A request leaves when all is synced. The crate takes that for granted of a winner, and panics.
            Body::VoteResponse { .. } => {
                !is_current || self.output.oldest_unsynced().is_none() || planted!(self.settings, VotesBeforeSync)
            }
            Body::PreVoteResponse { .. } | Body::HeartbeatResponse { .. } => true,
            Body::Gone { commit, incarnation } => self.is_from_leader(message, *commit, *incarnation),
        }
    }

    /// Leadership is transferred to voters only; this node may lack the list with one.
    fn may_force(&self, id: RaftId) -> bool {
        let in_log = self.newest_in_log();
        let mut is_known = false;
        for member in self.known_members().chain(&in_log).filter(|member| member.id == id) {
            if member.voter {
                return true;
            }
            is_known = true;
        }
        !is_known
    }

    /// Whether each list differs from the one before by one change, as far as this node can know.
    fn changes_one_by_one(&self, previous: LogId, entries: &[Entry]) -> bool {
        let applied = self.applied;
        let mut lists = entries.iter().filter(|entry| entry.id.index > applied && Payload::is_members(&entry.payload));
        let Some(first) = lists.next() else { return true };
        let store = self.node.store();
        if previous.index >= applied && store.term_at(previous.index) != Some(previous.term) {
            // They do not follow this log, and are refused with a hint.
            return true;
        }
        let mut before = store.list_until(previous.index).unwrap_or_else(|| self.members.clone());
        for entry in std::iter::once(first).chain(lists) {
            let Ok(Payload::Members(list)) = Payload::decode(&entry.payload) else { return false };
            if convert::conf_changes(&before, &list).len() > 1 {
                return false;
            }
            before = list;
        }
        true
    }

    /// Contact with a leader of this term or a later one renews the promise.
    pub(super) fn note_contact(&mut self, message: &Message) {
        let is_of_leader = matches!(message.body, Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. });
        if is_of_leader && message.term >= self.node.raft.term {
            self.promise.renew(self.now, self.promised());
            self.promise.note_leader(message.term, message.from);
        }
    }
}

/// Whether entries follow `previous` without gaps, with terms that never decrease up to that of the leader, are of
/// known kinds, and lists of members can be read.
fn are_entries(term: u64, previous: LogId, entries: &[Entry]) -> bool {
    let mut before = previous;
    for entry in entries {
        let follows = entry.id.index == before.index + 1 && entry.id.term >= before.term && entry.id.term > 0;
        if !follows || Payload::decode(&entry.payload).is_err() {
            return false;
        }
        before = entry.id;
    }
    before.term <= term
}
