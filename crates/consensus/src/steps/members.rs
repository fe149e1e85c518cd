//! The list of members: changes of it, and what follows when one is applied (obligations O6, O7).
//!
//! A list takes effect when it is applied, as the crate has it, not when it is appended as in Ongaro §4.1. Majorities of
//! two lists that follow each other overlap; a leader proposes a change only when the one before is applied, and the
//! frames on disks say so (`Frame::committed`), so that no election is held under a list that is two changes old.

use super::{Refusal, Role, Steps};
use crate::convert;
use crate::entry::{LogId, RaftId};
use crate::member::{self, Change, Member};

impl Steps {
    /// Proposes a change. Only one is open at a time; the crate would turn a second one into a blank entry silently.
    /// Only a leader that has applied an entry of its term may: the change of an earlier leader could still be open.
    pub(super) fn change(&mut self, change: &Change) -> Result<LogId, Refusal> {
        if !matches!(self.role, Role::Leading { .. }) || !self.is_leader() {
            return Err(Refusal::NotLeader);
        }
        let raft = &self.node.raft;
        if raft.lead_transferee.is_some() {
            return Err(Refusal::Transferring);
        }
        if raft.has_pending_conf() || self.newest_list > self.applied {
            return Err(Refusal::ChangeOpen);
        }
        let index = raft.raft_log.last_index() + 1;
        let list = member::changed(&self.members, change, self.id_of_addition(change, index))?;
        if !list.iter().any(|member| member.id == self.id && member.voter) {
            // Of two voters the other one is the only voter as soon as it applies this, and campaigns at once.
            self.lease.bar();
        }
        let changes = convert::conf_changes(&self.settings.counted(&self.members), &self.settings.counted(&list));
        self.propose_list(list, changes.into_iter().next())
    }

    /// The index of the entry is an id that no other addition has (obligation O7).
    fn id_of_addition(&self, change: &Change, index: u64) -> u64 {
        match change {
            Change::AddLearner(member) if planted!(self.settings, IdReused) => {
                let digits = member.node.trim_start_matches(|c: char| !c.is_ascii_digit());
                1_000_000 + digits.parse::<u64>().unwrap_or(index)
            }
            _ => index,
        }
    }

    /// The state machine is at `index`: lists up to there take effect, and the crate counts by them.
    pub(super) fn apply(&mut self, index: u64) {
        let handed = self.output.committed();
        if index <= self.applied || index > handed {
            return;
        }
        while self.unapplied.front().is_some_and(|(at, _)| *at <= index) {
            let Some((_, list)) = self.unapplied.pop_front() else { break };
            self.apply_list(list);
        }
        self.applied = index;
        let term = self.node.store().term_at(index).unwrap_or_default();
        self.node.mut_store().set_applied(LogId { term, index });
        self.node.advance_apply_to(index);
    }

    fn apply_list(&mut self, list: Vec<Member>) {
        let changes = convert::conf_changes(&self.settings.counted(&self.members), &self.settings.counted(&list));
        self.node.mut_store().set_members(self.settings.counted(&list));
        let before = std::mem::replace(&mut self.members, list);
        for change in &changes {
            if let Err(error) = self.node.apply_conf_change(change) {
                self.fault = Some(format!("a list of members cannot be applied: {error}"));
            }
        }
        self.note_own_time(&before);
        self.note_removed(before);
        // A removed or demoted leader would continue, count itself in no quorum and serve ReadIndex alone.
        if !self.is_voter() && !planted!(self.settings, RemovedLeaderLeads) {
            self.step_down();
        }
    }

    fn note_own_time(&mut self, before: &[Member]) {
        let own = |list: &[Member]| list.iter().find(|member| member.id == self.id).map(|member| member.election_ms);
        if let (Some(before), Some(now)) = (own(before), own(&self.members))
            && now < before
        {
            self.promise.lower(now);
        }
    }

    fn note_removed(&mut self, before: Vec<Member>) {
        let stays = |id: RaftId| id == self.id || self.members.iter().any(|member| member.id == id);
        let removed: Vec<Member> = before.into_iter().filter(|member| !stays(member.id)).collect();
        if !removed.is_empty() {
            self.departures.note(removed.into_iter(), self.node.raft.raft_log.last_index(), self.now);
        }
    }

    /// The newest list in the log that is not applied; empty without one.
    pub(super) fn newest_in_log(&self) -> Vec<Member> {
        if self.newest_list <= self.applied {
            return Vec::new();
        }
        self.node.store().list_until(u64::MAX).unwrap_or_default()
    }

    fn is_voter(&self) -> bool {
        self.node.raft.prs().conf().voters().contains(self.id.0)
    }

    /// Whether this node is the only voter of the applied list.
    pub(super) fn is_only_voter(&self) -> bool {
        let voters = self.node.raft.prs().conf().voters().ids();
        let mut voters = voters.iter();
        voters.next() == Some(self.id.0) && voters.next().is_none()
    }

    /// Whether this node needs nobody: it is the only voter, and its log has no list that is not applied. A list that
    /// is in the log may be committed, and others may lead under it.
    pub(super) fn is_alone(&self) -> bool {
        self.is_only_voter() && self.newest_list <= self.applied
    }

    /// The members of the applied list and of the committed lists after it.
    pub(super) fn known_members(&self) -> impl Iterator<Item = &Member> {
        std::iter::once(&self.members).chain(self.unapplied.iter().map(|(_, list)| list)).flatten()
    }

    /// The shortest promise among the voters of all lists that may be current, in microseconds.
    pub(super) fn shortest_promise(&self) -> u64 {
        // A list that only this node has not synced yet may be current elsewhere.
        let voters = self.known_members().chain(self.proposals.list()).filter(|member| member.voter);
        voters.map(|member| u64::from(member.election_ms) * 1000).min().unwrap_or(0)
    }

    /// The member with this name.
    pub(super) fn named(&self, node: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// The voter, this node apart, that is in contact and has the longest log.
    pub(super) fn best_successor(&self) -> Option<RaftId> {
        let voters = |id: RaftId| self.members.iter().any(|member| member.id == id && member.voter);
        let candidates = self.progress().filter(|peer| voters(peer.id) && peer.is_active);
        candidates.max_by_key(|peer| (peer.matched, std::cmp::Reverse(peer.id))).map(|peer| peer.id)
    }
}
