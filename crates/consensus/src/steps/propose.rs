//! Entries that a leader appends and that wait for their commit; transfer of leadership.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{ConfChangeV2, Message as RaftMessage, MessageType};

use super::{Refusal, Steps};
use crate::convert;
use crate::entry::{LogId, Mono, RaftId};
use crate::member::{Member, NodeId};
use crate::payload::{MAX_ENTRY, Payload};

/// What a leader has appended in its term.
#[derive(Default)]
pub(super) struct Proposals {
    /// The index of the blank entry.
    since: u64,
    /// Groups of entries that are not committed: their last index, and when they were appended.
    open: VecDeque<(u64, Mono)>,
    /// The newest list of members that this leader has proposed.
    list: Vec<Member>,
}

impl Proposals {
    pub(super) fn list(&self) -> &[Member] {
        &self.list
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn blank(&mut self, index: u64, now: Mono) {
        self.since = index;
        self.add(index, now);
    }

    pub(super) fn since(&self) -> u64 {
        self.since
    }

    fn add(&mut self, last: u64, now: Mono) {
        self.open.push_back((last, now));
    }

    /// Removes what is committed. Returns when the last of it was appended: since then a quorum has heard from this
    /// leader, because an acknowledgement of an entry of this term is later than the entry.
    fn commit(&mut self, committed: u64) -> Option<Mono> {
        let mut started = None;
        while self.open.front().is_some_and(|(last, ..)| *last <= committed) {
            let Some((_, appended)) = self.open.pop_front() else { break };
            started = Some(appended);
        }
        started
    }
}

impl Steps {
    /// Appends encoded payloads.
    pub(super) fn propose(&mut self, payloads: Vec<Bytes>) -> Result<LogId, Refusal> {
        if payloads.is_empty() || payloads.iter().any(|payload| payload.is_empty() || payload.len() > MAX_ENTRY) {
            return Err(Refusal::TooLarge);
        }
        let is_other = |payload| matches!(Payload::decode(payload), Err(_) | Ok(Payload::Members(_)));
        if payloads.iter().any(is_other) {
            return Err(Refusal::Kind);
        }
        let bytes = payloads.iter().map(|payload| payload.len() as u64).sum::<u64>();
        let waiting = self.node.store().unapplied_bytes();
        if waiting > 0 && waiting + bytes > self.settings.max_unapplied_bytes {
            return Err(Refusal::Busy);
        }
        let mut message = RaftMessage { from: self.id.0, ..RaftMessage::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(payloads.into_iter().map(convert::payload_to_raft).collect::<Vec<_>>().into());
        self.append(message)
    }

    /// Appends an entry without content: its frames have what is committed now.
    pub(super) fn append_blank(&mut self) {
        let mut message = RaftMessage { from: self.id.0, ..RaftMessage::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(vec![convert::payload_to_raft(Bytes::new())].into());
        // It is tried again at the next tick.
        let _ = self.append(message);
    }

    /// Appends a list of members. Without a change of quorums it is an entry like others for the crate, so that the
    /// order of lists is kept by marking it as open.
    pub(super) fn propose_list(&mut self, list: Vec<Member>, change: Option<ConfChangeV2>) -> Result<LogId, Refusal> {
        let first = self.node.raft.raft_log.last_index() + 1;
        let payload = Payload::Members(list.clone()).encode();
        let proposed = match change {
            // The crate writes the change in its own encoding and parses it, both in this process.
            Some(change) => self.node.propose_conf_change(payload.to_vec(), change),
            None => self.node.propose(payload.to_vec(), Vec::new()),
        };
        proposed.map_err(|_| Refusal::NotLeader)?;
        self.proposals.add(first, self.now);
        self.proposals.list = list;
        self.node.raft.pending_conf_index = first;
        self.newest_list = first;
        Ok(LogId { term: self.node.raft.term, index: first })
    }

    fn append(&mut self, message: RaftMessage) -> Result<LogId, Refusal> {
        if !self.acts_as_leader() {
            return Err(Refusal::NotLeader);
        }
        if self.node.raft.lead_transferee.is_some() {
            return Err(Refusal::Transferring);
        }
        let first = self.node.raft.raft_log.last_index() + 1;
        self.node.raft.step(message).map_err(|_| Refusal::NotLeader)?;
        self.note_sent_commit();
        self.proposals.add(self.node.raft.raft_log.last_index(), self.now);
        Ok(LogId { term: self.node.raft.term, index: first })
    }

    /// What is committed confirms the lease.
    pub(super) fn note_commits(&mut self) {
        if self.is_leader() {
            let committed = self.node.raft.raft_log.committed;
            if let Some(started) = self.proposals.commit(committed) {
                self.lease.confirm(started);
            }
        }
    }

    /// Begins a transfer (Ongaro §3.10).
    pub(super) fn transfer(&mut self, to: Option<&NodeId>) -> Result<(), Refusal> {
        if !self.is_leader() {
            return Err(Refusal::NotLeader);
        }
        let target = match to {
            Some(node) => self.named(node).filter(|member| member.voter).map(|member| member.id),
            None => self.best_successor(),
        };
        let RaftId(target) = target.filter(|id| *id != self.id).ok_or(Refusal::NoTarget)?;
        if !planted!(self.settings, LeaseKeptInTransfer) {
            self.lease.bar();
        }
        self.node.transfer_leader(target);
        Ok(())
    }
}
