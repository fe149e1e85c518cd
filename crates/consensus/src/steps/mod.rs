//! One node of a Raft group: the `RawNode` of the crate `raft` and the rules around it. Nothing else uses the crate.
//!
//! The rules are obligations that the crate leaves to its caller; `docs/adr/0008-raft-by-raft-rs.md` lists them with
//! their reasons, and the simulator (`sim`) finds each of them when it is left out:
//!
//! | | rule | place |
//! |---|---|---|
//! | O1 | no vote within an election timeout after contact with a leader, or after the start | `lease.rs`, `accept.rs` |
//! | O2 | no lease for the rest of a term in which a transfer began | `lease.rs` |
//! | O3 | messages leave when what they promise is synced; a leader's too while its vote is not | `output.rs` |
//! | O4 | a snapshot is installed with no input in between | `output.rs` |
//! | O5 | the only voter does not campaign while it has frames to sync | `tick.rs` |
//! | O6 | a leader that is no voter any more steps down at once | `members.rs` |
//! | O7 | each addition has its own id | `members.rs` |
//! | O8 | at the start, committed is max(hint, applied), at most the last index; the first index is at least 2 | `boot.rs` |
//! | O9 | only known types of messages, with fields that fit | `accept.rs` |
//! | O10 | one frame per step, and frames merge | `output.rs`, `frame.rs` |

mod accept;
mod boot;
mod lease;
mod members;
mod output;
mod propose;
mod reads;
#[cfg(test)]
mod tests;
mod tick;

use std::collections::VecDeque;

use bytes::Bytes;
use raft::{RawNode, SnapshotStatus, StateRole};

use crate::convert;
use crate::entry::{Entry, LogId, Mono, RaftId, Vote};
use crate::frame::Frame;
use crate::log_view::LogView;
use crate::member::{Change, ChangeError, Incarnation, Member, NodeId};
use crate::message::{Body, Message};

pub use boot::{Boot, BootError, Settings};

use lease::{Lease, Promise};
use output::Output;
use propose::Proposals;
use reads::Reads;
use tick::Timer;

/// A source of random numbers. The driver seeds it from the system, the simulator from its seed.
pub trait Chance {
    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64;
}

/// The sender of a message, as its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The name of the node.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: Incarnation,
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passes. At least one per tick of [`Settings::tick`].
    Tick,
    /// A message of another member, in the order of its connection; the rest of an older connection is dropped before.
    Message {
        /// The other end of the connection.
        origin: Origin,
        /// The message.
        message: Message,
    },
    /// Encoded payloads to append; the response is `Proposed` or `Refused`.
    Propose(Vec<Bytes>),
    /// A caller, here or at a follower that asks this node, needs an index at which all commits acknowledged so far are
    /// visible. The id differs for each call. The response is `ReadReady` or `ReadLost`.
    ReadIndex(u64),
    /// All frames up to this number are synced.
    Persisted(u64),
    /// The state machine contains all entries up to this index.
    Applied(u64),
    /// A change of members; the response is `Proposed` or `Refused`.
    Change(Change),
    /// Leadership goes to this voter, or to the one with the longest log.
    Transfer(Option<NodeId>),
    /// A leader that cannot do its work (its disk, its clock) becomes a follower.
    StepDown,
    /// The clock cannot be trusted: no lease from what was begun before.
    VoidLease,
    /// The connection to a member is lost, and messages with it.
    Unreachable(RaftId),
    /// A snapshot for a member has arrived there, or not. Each `SendSnapshot` needs one (obligation O4).
    SnapshotDone {
        /// The member.
        to: RaftId,
        /// Whether it has the snapshot.
        ok: bool,
    },
    /// A snapshot of the leader is complete, verified and synced beside the current state; the message is its head. If
    /// the effects contain `Install`, it takes the place of the current state, otherwise it is discarded.
    Snapshot {
        /// The other end of the connection.
        origin: Origin,
        /// A message with [`Body::Snapshot`].
        message: Message,
    },
    /// What `Install` asks for is done and synced.
    Installed,
}

/// What a driver has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Write this with one sync, after each earlier frame. Frames that wait may be merged.
    Persist(Frame),
    /// Send a message. It may be lost. The list of members may lack the receiver, if it was added while this node lacked
    /// a part of the log: then the message is a response, and goes where the receiver's last one came from.
    Send(Message),
    /// Entries up to this index are committed, and synced here: apply them.
    Commit(u64),
    /// A read that sees this index is linearizable.
    ReadReady {
        /// The id of the call.
        id: u64,
        /// The index.
        index: u64,
    },
    /// This node cannot answer the call.
    ReadLost(u64),
    /// Entries from this index on were replaced. What was proposed there with another term is not committed, and never
    /// will be.
    Lost {
        /// The first of them.
        from: u64,
    },
    /// The role of this node is another one.
    Role(Role),
    /// Stream a snapshot of the applied state to a member, and report `SnapshotDone`.
    SendSnapshot {
        /// The member.
        to: RaftId,
        /// The index that the snapshot has at least.
        at_least: u64,
    },
    /// Sync each earlier frame, then replace state and log by the received snapshot and write the vote, in one piece;
    /// then `Installed`. Until then this node processes no other input, and messages are lost.
    Install {
        /// Counts as the number of a frame.
        number: u64,
        /// The term and vote from here on.
        vote: Vote,
        /// The last entry that the snapshot contains; the log begins after it.
        last: LogId,
        /// The members there.
        members: Vec<Member>,
    },
    /// What was proposed has these positions, the first and those that follow. It is not committed yet.
    Proposed {
        /// The position of the first.
        first: LogId,
    },
    /// What was proposed is not, and will not be, in the log.
    Refused(Refusal),
}

/// Why something is not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// This node does not lead, or not yet.
    #[error("this node is not the leader")]
    NotLeader,
    /// Leadership is being transferred.
    #[error("leadership is being transferred")]
    Transferring,
    /// Too many bytes wait for their commit.
    #[error("too much waits for its commit")]
    Busy,
    /// An entry is empty or too large.
    #[error("an entry is empty or too large")]
    TooLarge,
    /// Another change of members is not applied yet.
    #[error("another change of members is open")]
    ChangeOpen,
    /// There is no voter to transfer to.
    #[error("there is no other voter")]
    NoTarget,
    /// The list of members does not allow the change.
    #[error("the members cannot be changed so")]
    Change(#[from] ChangeError),
}

/// The role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It follows, or campaigns.
    Following {
        /// The leader, if there is one.
        leader: Option<RaftId>,
        /// The term.
        term: u64,
    },
    /// It has won an election. The blank entry of its term is not applied yet.
    Elected {
        /// The term.
        term: u64,
    },
    /// It leads, and has applied every entry of earlier terms.
    Leading {
        /// The term.
        term: u64,
        /// The index of its blank entry.
        since: u64,
    },
}

/// What an operator may see.
#[derive(Clone, Debug)]
pub struct Status {
    /// The role.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// The last entry.
    pub last: LogId,
    /// The committed index.
    pub committed: u64,
    /// The applied index.
    pub applied: u64,
}

/// How far a member has the log, as the leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The member.
    pub id: RaftId,
    /// The last index that is known to agree.
    pub matched: u64,
    /// The next index to send.
    pub next: u64,
    /// Whether it has responded within the last election timeout.
    pub is_active: bool,
}

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
    role: Role,
}

impl Steps {
    /// Processes one input that arrived at `now`, and appends what is to be done. Time never goes back: an earlier
    /// `now` counts as the last one.
    pub fn step(&mut self, now: Mono, input: Input, chance: &mut dyn Chance, out: &mut Vec<Effect>) {
        self.now = self.now.max(now);
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
            Input::Message { origin, message } => self.message(&origin, message),
            Input::Propose(payloads) => {
                let result = self.propose(payloads);
                out.push(respond(result));
            }
            Input::ReadIndex(id) => self.read_index(id, out),
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
            Input::VoidLease => self.lease.void(self.now),
            Input::Unreachable(id) => self.node.report_unreachable(id.0),
            Input::SnapshotDone { to, ok } => {
                self.node.report_snapshot(to.0, if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure });
            }
            Input::Snapshot { origin, message } => self.snapshot(&origin, message),
            Input::Installed => {}
        }
    }

    fn message(&mut self, origin: &Origin, message: Message) {
        if matches!(message.body, Body::Snapshot { .. }) || !self.accepts(origin, &message) {
            return;
        }
        self.note_contact(&message);
        // The crate refuses messages of nodes that it does not know; they are lost, as others are.
        let _ = self.node.step(convert::message_to_raft(message));
    }

    fn snapshot(&mut self, origin: &Origin, message: Message) {
        if !self.accepts(origin, &message) {
            return;
        }
        self.note_contact(&message);
        let Body::Snapshot { members, .. } = &message.body else { return };
        let counted = self.settings.counted(members);
        self.output.receive(members.clone());
        let message = match message.body {
            Body::Snapshot { last, .. } => Message { body: Body::Snapshot { last, members: counted }, ..message },
            _ => return,
        };
        let _ = self.node.step(convert::message_to_raft(message));
    }

    /// Collects what the crate has to say until it has nothing more.
    fn settle(&mut self, out: &mut Vec<Effect>) {
        loop {
            self.note_leadership(out);
            self.collect(out);
            if self.output.is_installing() {
                return;
            }
            self.note_commits();
            if !self.ask_reads() {
                break;
            }
        }
        self.output.emit(&self.settings, out);
        self.note_role(out);
    }

    /// Keeps what belongs to a leadership as long as it lasts.
    fn note_leadership(&mut self, out: &mut Vec<Effect>) {
        let raft = &self.node.raft;
        let is_leader = raft.state == StateRole::Leader;
        if self.lease.term() == is_leader.then_some(raft.term) {
            return;
        }
        self.proposals.clear();
        self.reads.lose_all(out);
        self.lease = Lease::of(is_leader.then_some(raft.term), self.now);
        if is_leader {
            // The blank entry; the election itself is the first round.
            self.proposals.blank(raft.raft_log.last_index(), self.now);
        }
    }

    fn note_role(&mut self, out: &mut Vec<Effect>) {
        let raft = &self.node.raft;
        let term = raft.term;
        let role = if raft.state == StateRole::Leader {
            let since = self.proposals.since();
            if self.applied >= since { Role::Leading { term, since } } else { Role::Elected { term } }
        } else {
            Role::Following { leader: Some(RaftId(raft.leader_id)).filter(|id| id.0 != 0), term }
        };
        if role != self.role {
            self.role = role;
            out.push(Effect::Role(role));
        }
    }

    fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn step_down(&mut self) {
        if self.is_leader() {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
        }
    }

    /// Drops entries up to this index from memory. The driver keeps what followers still need.
    pub fn drop_log_until(&mut self, index: u64) {
        self.node.mut_store().drop_until(index);
    }

    /// An entry in memory.
    #[must_use]
    pub fn entry(&self, index: u64) -> Option<Entry> {
        self.node.store().at(index).map(convert::entry_from_raft)
    }

    /// The entry before the first one in memory.
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

fn respond(result: Result<LogId, Refusal>) -> Effect {
    match result {
        Ok(first) => Effect::Proposed { first },
        Err(refusal) => Effect::Refused(refusal),
    }
}
