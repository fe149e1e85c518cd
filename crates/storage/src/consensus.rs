//! The interface of a [`Backend`](crate::Backend) whose log is replicated by Raft, besides reads and commits: members,
//! roles, linearizable reads and snapshots.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
pub use keepfast_consensus::{Change, ChangeError, Incarnation, MAX_MESSAGE, Member, NodeId, Origin, RaftId};

use crate::{Index, StorageError};

/// The largest part of a snapshot, in bytes.
pub const MAX_SNAPSHOT_PART: usize = 256 * 1024;

/// A node of a cluster, as seen by the rest of the server.
#[async_trait]
pub trait Consensus: Send + Sync + 'static {
    /// The name and the data directory of this node.
    fn identity(&self) -> Origin;

    /// The present state of this node, for operators and metrics.
    fn status(&self) -> ClusterStatus;

    /// Notified of each change of the members of [`status`](Self::status); `None` when they never change.
    fn member_changes(&self) -> Option<tokio::sync::watch::Receiver<()>> {
        None
    }

    /// What this node knows of another one, by the applied list and those before it. Called for each connection and each
    /// call of another node.
    fn peer_kind(&self, origin: &Origin) -> PeerKind {
        let is_same = |member: &Member| member.node == origin.node && member.incarnation == origin.incarnation;
        if self.status().members.iter().any(is_same) { PeerKind::Member } else { PeerKind::Unknown }
    }

    /// Whether this node is the only member. Called for each request: implementations return a flag.
    fn is_alone(&self) -> bool {
        self.status().members.len() < 2
    }

    /// Whether this node was removed from its cluster.
    fn is_removed(&self) -> bool {
        self.status().is_removed
    }

    /// The leader, if it is known. May be this node. Called for each request that another node must run.
    fn leader(&self) -> Option<Member>;

    /// Returns an index that is not before that of any commit that was acknowledged, by any node, before the call. It is
    /// applied here.
    ///
    /// # Errors
    /// [`StorageError::NoLeader`] when no leader confirms one within this time, [`StorageError::Behind`] when it is not
    /// applied here within this time.
    async fn settled(&self, within: Duration) -> Result<Index, StorageError>;

    /// Returns when the entry at `index` is applied here.
    ///
    /// # Errors
    /// [`StorageError::Behind`] when it is not within this time.
    async fn applied(&self, index: Index, within: Duration) -> Result<(), StorageError>;

    /// At the leader: the index that a read of a follower must see. Called by the cluster port for
    /// [`Transport::read_index`].
    ///
    /// # Errors
    /// [`StorageError::NotLeader`] when this node does not lead; [`StorageError::NoLeader`] when it cannot confirm that
    /// it does.
    async fn read_index(&self) -> Result<Index, StorageError>;

    /// At the leader: commits a batch of another member, as [`Backend::commit`](crate::Backend::commit) does. It is never
    /// passed on: two nodes that take each other for the leader would pass it on without end. Called by the cluster port
    /// for [`Transport::propose`].
    ///
    /// # Errors
    /// Those of [`Backend::commit`](crate::Backend::commit); [`StorageError::NotLeader`] when this node does not lead.
    async fn propose(&self, _batch: Bytes) -> Result<Index, StorageError> {
        Err(StorageError::NotLeader)
    }

    /// Begins to exchange messages with the other members. A node that is alone leads; the other ones elect a leader. Later
    /// calls replace the transport and the addresses.
    ///
    /// # Errors
    /// [`StorageError::Removed`] for a removed node; [`StorageError::Stopped`] after a failed write.
    async fn start(&self, transport: Arc<dyn Transport>, addresses: Addresses) -> Result<(), StorageError>;

    /// Transfers leadership if another voter is ready, and leaves the network. Reads and the data stay.
    async fn stop(&self);

    /// Prepares an empty data directory for a node that joins: durable before it returns. A snapshot of the leader
    /// follows after [`start`](Self::start).
    ///
    /// # Errors
    /// [`StorageError::Layout`] for a directory with data.
    async fn join(&self, cluster: Joined) -> Result<(), StorageError>;

    /// Changes the members. Returns the index of the change once it is applied here.
    ///
    /// # Errors
    /// [`StorageError::NotLeader`]; [`StorageError::Change`] when the members do not allow it;
    /// [`StorageError::ChangeOpen`] while another change is open.
    async fn change(&self, change: Change) -> Result<Index, StorageError>;

    /// At the leader: returns an index at which a data directory is no member, once a majority of the members has that on
    /// disk: its node may then end for good.
    ///
    /// # Errors
    /// [`StorageError::NotLeader`] when this node does not lead; [`StorageError::NoLeader`] when the directory is that of a
    /// member, or its removal is not that far.
    async fn departed(&self, _incarnation: Incarnation) -> Result<Index, StorageError> {
        Err(StorageError::NotLeader)
    }

    /// Ends this node, which was removed from its cluster, as the leader has proved. It keeps its data, and takes no part
    /// after a restart either.
    ///
    /// # Errors
    /// [`StorageError::NotLeader`] for a node without other members.
    async fn leave(&self, _removed_at: Index) -> Result<(), StorageError> {
        Err(StorageError::NotLeader)
    }

    /// Transfers leadership to this voter, or to the one with the longest log. Returns when this node no longer leads.
    ///
    /// # Errors
    /// [`StorageError::NotLeader`]; [`StorageError::NoTarget`] when there is no other voter in contact;
    /// [`StorageError::Unknown`] when it still leads after a few seconds.
    async fn transfer(&self, to: Option<NodeId>) -> Result<(), StorageError>;

    /// Passes on a message of another member, in the order of its connection. Never blocks; messages may be dropped. Returns
    /// false for bytes that are no message: the connection then ends.
    fn deliver(&self, from: Origin, message: Bytes) -> bool;

    /// Receives a snapshot of the leader: `head` is what [`Transport::send_snapshot`] got.
    ///
    /// # Errors
    /// When it is damaged, not wanted, or cannot be stored. The present state then stays.
    async fn receive_snapshot(
        &self,
        from: Origin,
        head: Bytes,
        parts: &mut dyn SnapshotParts,
    ) -> Result<(), StorageError>;

    /// A consistent copy of all records at one index, for operators.
    ///
    /// # Errors
    /// Those of the state.
    fn snapshot(&self) -> Result<(SnapshotHead, Box<dyn SnapshotParts>), StorageError>;

    /// Replaces all records, on every node, by those of a snapshot that the caller has verified, and `mark` as
    /// [`RestoreMark`](crate::RestoreMark). Returns the index.
    ///
    /// # Errors
    /// [`StorageError::NotLeader`]; those of the snapshot. The present records then stay.
    async fn restore(
        &self,
        head: SnapshotHead,
        parts: &mut dyn SnapshotParts,
        mark: Bytes,
    ) -> Result<Index, StorageError>;
}

/// What a node knows of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// It is a member.
    Member,
    /// No list that this node has applied contains it. This node may lack the part of the log that adds it.
    Unknown,
    /// It was a member, and was removed.
    Removed,
}

/// Sends messages to other members. The server implements it on its cluster port.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends a message, in order within a connection. It may be lost; what an older connection still brings is dropped by
    /// the receiver. Never blocks.
    ///
    /// `to` may be a node that was removed. Its `cluster_addr` is empty when it has sent messages to this node and no list
    /// here has it: the message then goes to the address that the transport knows, or is lost.
    fn send(&self, to: &Member, message: Bytes);

    /// Sends a snapshot; `head` is a message of [`keepfast_consensus`].
    ///
    /// # Errors
    /// When it did not arrive, or the receiver refused it.
    async fn send_snapshot(&self, to: &Member, head: Bytes, parts: Box<dyn SnapshotParts>) -> Result<(), StorageError>;

    /// Commits an encoded [`Batch`](crate::Batch) at the leader.
    ///
    /// # Errors
    /// Those of [`Backend::commit`](crate::Backend::commit) there; [`StorageError::NoLeader`] when nothing was sent;
    /// [`StorageError::Unknown`] when the connection was lost afterwards.
    async fn propose(&self, leader: &Member, batch: Bytes) -> Result<Index, StorageError>;

    /// Requests from the leader the index that a read must see ([`Consensus::read_index`]).
    ///
    /// # Errors
    /// Those of [`Consensus::read_index`] there; [`StorageError::NoLeader`] when it cannot be reached.
    async fn read_index(&self, leader: &Member) -> Result<Index, StorageError>;
}

/// The parts of a snapshot, in order.
#[async_trait]
pub trait SnapshotParts: Send {
    /// The next part, of at most [`MAX_SNAPSHOT_PART`] bytes; `None` after the last one.
    ///
    /// # Errors
    /// Those of the source: the state, a file or a connection.
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError>;
}

/// The description of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The term of the last entry that it contains.
    pub term: u64,
    /// The index of that entry.
    pub index: Index,
    /// The members there.
    pub members: Vec<Member>,
}

/// The addresses of this node and the properties that the other members see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The address for clients.
    pub api_addr: String,
    /// The address for the other members.
    pub cluster_addr: String,
    /// The version of the program.
    pub version: String,
}

/// What a node that joins gets from the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The id of the cluster.
    pub cluster_id: String,
    /// The members, this node among them.
    pub members: Vec<Member>,
}

/// The state of a node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The number of this node, once it is a member.
    pub id: Option<RaftId>,
    /// Whether this node leads, and has applied all entries of earlier terms.
    pub is_leading: bool,
    /// The term.
    pub term: u64,
    /// The leader, if it is known. May be this node.
    pub leader: Option<Member>,
    /// The members of the applied list. Of a node that never was in a cluster it has this node alone.
    pub members: Vec<Member>,
    /// The last index of the log.
    pub last: u64,
    /// The committed index.
    pub committed: u64,
    /// The applied index.
    pub applied: u64,
    /// The other members, as the leader sees them; empty on other nodes.
    pub peers: Vec<PeerStatus>,
    /// The time since the last message of the leader; zero on the leader, `None` without one.
    pub last_contact: Option<Duration>,
    /// Whether the node exchanges messages.
    pub is_running: bool,
    /// Whether it has joined and has no complete state yet.
    pub is_joining: bool,
    /// Whether it was removed from its cluster.
    pub is_removed: bool,
}

/// What a leader knows of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The number of the member.
    pub id: RaftId,
    /// The last index of its log that agrees with that of the leader.
    pub matched: u64,
    /// The time since its last message; `None` if there was none.
    pub last_contact: Option<Duration>,
}
