//! What goes into a node and comes out of it.

use bytes::Bytes;

use crate::entry::{Entry, LogId, RaftId, Vote};
use crate::frame::Frame;
use crate::member::{Change, ChangeError, Incarnation, Member, NodeId};
use crate::message::Message;

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
    /// Time passes. At least one per tick of [`super::Settings::tick`].
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
    /// A caller, here or at a follower that calls this node, needs an index at which all commits acknowledged so far are
    /// visible. The id differs for each call. The response is `ReadReady` or `ReadLost`.
    ReadIndex(u64),
    /// A member waits for what is committed: send it, unless entries have had it.
    SendCommit,
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
    /// The clock cannot be trusted: no lease from what was started before, and a promise for its whole time from now.
    VoidLease,
    /// The connection to a member is lost, and messages with it.
    Unreachable(RaftId),
    /// A snapshot for a member has arrived there, or not. Each `SendSnapshot` needs one (obligation O4), also when there
    /// is nowhere to send it: until then the member gets no entries.
    SnapshotDone {
        /// The member.
        to: RaftId,
        /// Whether it has the snapshot.
        ok: bool,
    },
    /// What [`Effect::ReadLog`] has found.
    LogRead {
        /// The first entry that was to be read.
        first: u64,
        /// The entries from there on. Empty: the log on the disk does not have them, or has damaged ones. `None`: it could not
        /// be read, and may be readable again.
        entries: Option<Vec<Entry>>,
    },
    /// A snapshot of the leader is complete, verified and synced beside the current state; the message is its head. If
    /// the effects contain `Install`, it takes the place of the current state, otherwise it is discarded.
    Snapshot {
        /// The other end of the connection.
        origin: Origin,
        /// A message with [`crate::Body::Snapshot`].
        message: Message,
    },
    /// What `Install` requires is done and synced.
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
    /// This node has no index for the call.
    ReadLost(u64),
    /// The role of this node is another one.
    Role(Role),
    /// Read entries of the log on the disk for a member that is behind, at least one of them, and give the result as
    /// `LogRead`. There are few of these at a time.
    ReadLog {
        /// The first entry.
        first: u64,
        /// The index after the last one.
        end: u64,
        /// The bytes above which no more of them are read.
        bytes: u64,
    },
    /// Stream a snapshot of the applied state to a member, and report `SnapshotDone`.
    SendSnapshot {
        /// The member.
        to: RaftId,
        /// The term in which this node leads: that of the head.
        term: u64,
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
    /// A member has lost entries that it had acknowledged. The leader demotes it, and sends them again.
    LostEntries {
        /// The member.
        of: RaftId,
        /// The end of its log.
        last: u64,
        /// What it had acknowledged.
        acknowledged: u64,
    },
    /// What was proposed has these positions, the first and those that follow. It is not committed yet.
    Proposed {
        /// The position of the first.
        first: LogId,
    },
    /// What was proposed is not, and will not be, in the log.
    Refused(Refusal),
    /// This node was removed, as its leader has sent. Store that; this node takes no part any more.
    Removed {
        /// An index at which the committed list lacks it.
        commit: u64,
    },
    /// The node must stop: its list of members differs from that by which it counts votes.
    Broken(String),
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
    /// Too many bytes wait for their commit, or to be applied.
    #[error("too much waits for its commit or to be applied")]
    Busy,
    /// An entry is empty or too large.
    #[error("an entry is empty or too large")]
    TooLarge,
    /// An entry is a list of members, which only a change can propose, or cannot be read.
    #[error("an entry is of a kind that cannot be proposed")]
    Kind,
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
    /// It has won an election, and its vote is synced. The blank entry of its term is not applied yet.
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
