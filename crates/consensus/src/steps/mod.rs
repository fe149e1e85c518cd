//! One node of a Raft group: the `RawNode` of the crate `raft` and the rules around it. Only this module, `log_view`, `stored`
//! and `convert` use the crate.
//!
//! The rules are obligations that the crate leaves to its caller; `docs/adr/0008-raft-by-raft-rs.md` lists them with
//! their reasons, and the simulator (`sim`) or a test of `tests.rs` fails for each one that is left out:
//!
//! | | rule | place |
//! |---|---|---|
//! | O1 | no vote within an election timeout after contact with a leader, or after the start | `lease.rs`, `accept.rs` |
//! | O2 | no lease for the rest of a term in which a transfer began, or the leader proposed its own removal or demotion | `lease.rs`, `members.rs` |
//! | O3 | messages leave when what they promise is synced; a leader's too while its vote is not | `output.rs` |
//! | O4 | a snapshot is installed with no input in between | `output.rs` |
//! | O5 | the only voter does not campaign while it has frames to sync | `tick.rs` |
//! | O6 | a leader that is no voter any more steps down at once | `members.rs` |
//! | O7 | each addition has its own id | `members.rs` |
//! | O8 | at the start, committed is max(hint, applied), at most the last index; the first index is at least 2 | `boot.rs` |
//! | O9 | only known types of messages, with fields that fit | `accept.rs` |
//! | O10 | one frame per step, and frames merge | `output.rs`, `frame.rs` |
//! | O11 | a removed member ends when its leader sends that, once the removal is durable without it | `departures.rs` |
//! | O12 | a member of a recovered cluster stops when its first leader lacks entries that it has applied | `recovered.rs` |
//! | O13 | a member that has lost entries which it had acknowledged has no vote until it has them again | `lost_entries.rs` |

mod accept;
mod behind;
mod boot;
mod departures;
mod interface;
mod lease;
mod lost_entries;
mod members;
mod output;
mod propose;
mod reads;
mod recovered;
mod send_commit;
#[cfg(test)]
mod tests;
mod tick;

use std::{borrow::Cow, collections::VecDeque};

use raft::{RawNode, SnapshotStatus, StateRole};

use crate::convert;
use crate::entry::{Entry, LogId, Mono, RaftId};
use crate::log_view::LogView;
use crate::member::Member;
use crate::message::{Body, Message};

pub use boot::{Boot, BootError, Settings};
pub use interface::{Chance, Effect, Input, Origin, PeerProgress, Refusal, Role, Status};

use departures::Departures;
use lease::{Lease, Promise};
use lost_entries::LostEntries;
use output::Output;
use propose::Proposals;
use reads::Reads;
use tick::Timer;

/// A node.
pub struct Steps {
    settings: Settings,
    id: RaftId,
    node: RawNode<LogView>,
    now: Mono,
    timer: Timer,
    /// The applied list.
    members: Vec<Member>,
    /// Committed lists that are not applied yet, with their indexes.
    unapplied: VecDeque<(u64, Vec<Member>)>,
    /// An index from which on the log contains no list.
    newest_list: u64,
    applied: u64,
    promise: Promise,
    lease: Lease,
    reads: Reads,
    proposals: Proposals,
    output: Output,
    departures: Departures,
    lost_entries: LostEntries,
    /// See [`Boot::recovered`].
    recovered: u64,
    /// Why this node must stop.
    fault: Option<String>,
    /// The committed index that the last messages to all members had.
    sent_commit: u64,
    role: Role,
}

impl Steps {
    /// Processes one input that arrived at `now`, and appends what is to be done. Time never goes back: an earlier
    /// `now` counts as the last one.
    ///
    /// The clock is read after the input has left its queue, never before: an acknowledgement that waited would else
    /// begin a lease earlier than the promise of its sender, and a promise would end too early.
    pub fn step(&mut self, now: Mono, input: Input, chance: &mut dyn Chance, out: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        if self.departures.is_gone() {
            refuse(&input, out);
            return;
        }
        if self.output.is_installing() {
            self.step_while_installing(&input, out);
        } else {
            self.process(input, chance, out);
        }
        if self.output.is_installing() {
            return;
        }
        self.redraw(chance, false);
        self.settle(out);
    }

    fn process(&mut self, input: Input, chance: &mut dyn Chance, out: &mut Vec<Effect>) {
        match input {
            Input::Tick => self.tick(chance, out),
            Input::Message { origin, message } => self.message(&origin, message, out),
            Input::Propose(payloads) => {
                let result = self.propose(payloads);
                out.push(respond(result));
            }
            Input::ReadIndex(id) => self.read_index(id, out),
            Input::SendCommit => self.send_commit(),
            Input::Persisted(number) => self.output.persisted(number),
            Input::Applied(index) => self.apply(index),
            Input::Change(change) => {
                let result = self.change(&change);
                out.push(respond(result));
            }
            Input::Transfer(to) => {
                if let Err(refusal) = self.transfer(to.as_ref()) {
                    out.push(Effect::Refused(refusal));
                }
            }
            Input::StepDown => self.step_down(),
            Input::VoidLease => {
                self.lease.void(self.now);
                // The time of a promise was measured by the same clock.
                self.promise.renew(self.now, self.promised());
            }
            Input::Unreachable(id) => self.node.report_unreachable(id.0),
            Input::SnapshotDone { to, ok } => {
                self.node.report_snapshot(to.0, if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure });
            }
            Input::Snapshot { origin, message } => self.snapshot(&origin, message),
            Input::LogRead { first, entries } => self.log_read(first, entries.as_deref()),
            Input::Installed => {}
        }
    }

    fn message(&mut self, origin: &Origin, message: Message, out: &mut Vec<Effect>) {
        let is_snapshot = matches!(message.body, Body::Snapshot { .. });
        if is_snapshot || self.output.is_full() || !self.accepts(origin, &message) {
            return;
        }
        if let Body::Gone { commit, .. } = message.body {
            self.leave(commit, out);
            return;
        }
        if self.responds_gone(origin, &message, out) || self.is_behind_recovery(&message) {
            return;
        }
        self.note_lost_entries(&message, out);
        self.note_contact(&message);
        self.pass(message);
    }

    /// Passes a message to the crate, which refuses those of nodes that it does not know; they are lost, as others are.
    fn pass(&mut self, message: Message) {
        if let Some(message) = convert::message_to_raft(message) {
            let _ = self.node.step(message);
        }
    }

    fn snapshot(&mut self, origin: &Origin, message: Message) {
        if !self.accepts(origin, &message) || self.is_behind_recovery(&message) {
            return;
        }
        self.note_contact(&message);
        let Message { from, to, term, body: Body::Snapshot { last, members } } = message else { return };
        let counted = self.settings.counted(&members);
        self.output.receive(members);
        self.pass(Message { from, to, term, body: Body::Snapshot { last, members: counted } });
    }

    /// Collects what the crate has to say until it has nothing more.
    fn settle(&mut self, out: &mut Vec<Effect>) {
        loop {
            self.note_leadership(out);
            self.collect(out);
            if self.output.is_installing() {
                self.note_role(out);
                return;
            }
            self.note_commits();
            if !self.begin_read_round() {
                break;
            }
        }
        self.output.emit(&self.settings, out);
        self.begin_log_reads(out);
        self.note_role(out);
        out.extend(self.fault.take().map(Effect::Broken));
    }

    /// Keeps what belongs to a leadership as long as it lasts.
    fn note_leadership(&mut self, out: &mut Vec<Effect>) {
        let raft = &self.node.raft;
        let is_leader = raft.state == StateRole::Leader;
        if self.lease.term() == is_leader.then_some(raft.term) {
            return;
        }
        self.proposals.clear();
        self.lost_entries.clear();
        self.reads.lose_all(out);
        self.lease = Lease::of(is_leader.then_some(raft.term), self.now);
        self.sent_commit = 0;
        if is_leader {
            // The blank entry; the election itself is the first round.
            self.proposals.blank(raft.raft_log.last_index(), self.now);
            self.departures.lead_from(self.proposals.since());
        }
    }

    fn note_role(&mut self, out: &mut Vec<Effect>) {
        let raft = &self.node.raft;
        let term = raft.term;
        let role = if self.acts_as_leader() {
            let since = self.proposals.since();
            if self.applied >= since { Role::Leading { term, since } } else { Role::Elected { term } }
        } else {
            let leader = Some(RaftId(raft.leader_id)).filter(|id| id.0 != 0 && *id != self.id);
            Role::Following { leader, term }
        };
        if role != self.role {
            self.role = role;
            out.push(Effect::Role(role));
        }
    }

    fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// A node leads for others when its own vote is on its disk. The only voter wins before that: if it crashes now, it
    /// knows nothing of the term, and votes in it for another candidate under an older list.
    fn acts_as_leader(&self) -> bool {
        self.is_leader() && (!self.output.is_vote_unsynced() || planted!(self.settings, LeaderSendsBeforeVote))
    }

    fn step_down(&mut self) {
        if self.is_leader() {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
        }
    }

    /// Drops applied entries from memory while there are more than this many bytes of entries. For a follower that lacks what
    /// is dropped the driver reads the log ([`Effect::ReadLog`]).
    pub fn trim_log(&mut self, bytes: u64) {
        self.node.mut_store().trim(bytes);
    }

    /// An entry in memory.
    #[must_use]
    pub fn entry(&self, index: u64) -> Option<Entry> {
        self.node.store().at(index).map(convert::entry_from_raft)
    }

    /// The entry before the first one in memory.
    #[cfg(any(test, feature = "suite"))]
    #[must_use]
    pub fn before(&self) -> LogId {
        self.node.store().before()
    }

    /// The id of this node.
    #[must_use]
    pub fn id(&self) -> RaftId {
        self.id
    }

    /// The applied list of members.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A member of a list that is current or may become so, or one that was removed lately.
    #[must_use]
    pub fn member(&self, id: RaftId) -> Option<Cow<'_, Member>> {
        let listed = self.known_members().find(|member| member.id == id).or_else(|| self.departures.find(id));
        let in_log = || self.newest_in_log().into_iter().find(|member| member.id == id);
        listed.map(Cow::Borrowed).or_else(|| in_log().map(Cow::Owned))
    }

    /// The current role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Numbers for operators and tests.
    #[must_use]
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        let last = LogId { term: raft.raft_log.last_term(), index: raft.raft_log.last_index() };
        let (committed, applied) = (raft.raft_log.committed, self.applied);
        Status { role: self.role, term: raft.term, last, committed, applied }
    }

    /// What a leader knows of the others; empty on other nodes.
    pub fn progress(&self) -> impl Iterator<Item = PeerProgress> {
        let peers = self.is_leader().then(|| self.node.raft.prs().iter()).into_iter().flatten();
        peers.filter(|(id, _)| **id != self.id.0).map(|(id, progress)| PeerProgress {
            id: RaftId(*id),
            matched: progress.matched,
            next: progress.next_idx,
            is_active: progress.recent_active,
        })
    }
}

/// The response of a node that takes no part.
fn refuse(input: &Input, out: &mut Vec<Effect>) {
    match input {
        Input::ReadIndex(id) => out.push(Effect::ReadLost(*id)),
        Input::Propose(_) | Input::Change(_) | Input::Transfer(_) => out.push(Effect::Refused(Refusal::NotLeader)),
        _ => {}
    }
}

fn respond(result: Result<LogId, Refusal>) -> Effect {
    match result {
        Ok(first) => Effect::Proposed { first },
        Err(refusal) => Effect::Refused(refusal),
    }
}
