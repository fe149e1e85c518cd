//! What arrives at the thread that writes: the lone writer, or the driver of a cluster.

use bytes::Bytes;
use keepfast_consensus::{Entry, Kind, Message, Payload};
use tokio::sync::oneshot;

use super::receive::Received;
use crate::{Batch, Change, Incarnation, Index, Joined, NodeId, Origin, RaftId, StorageError, Write};

/// Where a result goes. The receiver may be dropped; the operation goes on.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

/// What arrives.
pub(crate) enum Event {
    /// A commit.
    Commit(Request),
    /// A call of [`Consensus::read_index`](crate::Consensus::read_index).
    Read(Reply<Index>),
    /// The lease is to be renewed before it ends.
    Renew,
    /// A member waits for what is committed.
    SendCommit,
    /// A change of the members.
    Change(Box<Change>, Reply<Index>),
    /// A call of [`Consensus::departed`](crate::Consensus::departed).
    Departed(Incarnation, Reply<Index>),
    /// The leader has proved that this node was removed.
    Leave(Index, Reply<()>),
    /// A transfer of leadership.
    Transfer(Option<NodeId>, Reply<()>),
    /// There is a transport.
    Start(Reply<()>),
    /// The node leaves the network.
    Stop(Reply<()>),
    /// The node joins a cluster.
    Join(Box<Joined>, Reply<()>),
    /// A message of another member.
    Message(Origin, Message),
    /// A snapshot is complete beside the current state.
    Snapshot(Box<Received>),
    /// A snapshot has arrived at a member, or not.
    SnapshotDone {
        /// The member.
        to: RaftId,
        /// Whether it has arrived.
        ok: bool,
    },
    /// What the log has for a member that is behind, from the entry `first` on.
    LogRead {
        /// The first entry that was to be read.
        first: u64,
        /// The entries; empty if it has not the first one, `None` if it could not be read.
        entries: Option<Vec<Entry>>,
    },
    /// All frames up to this number are synced.
    Persisted(u64),
    /// Entries are applied, among them others than batches, or many of them.
    Applied,
    /// A snapshot has replaced the state and the log.
    Installed,
    /// A write, a sync or an application of entries failed; the applier knows the reason.
    Failed,
    /// The end.
    Close,
}

/// A waiting commit.
pub(crate) struct Request {
    pub(crate) proposal: Proposal,
    pub(crate) result: Reply<Index>,
}

/// What is to be committed.
pub(crate) enum Proposal {
    /// A batch.
    Batch(Batch),
    /// An encoded [`Payload`], and whether it puts a record.
    Payload(Bytes, bool),
}

impl Proposal {
    /// A batch without effect.
    pub(crate) const NOTHING: Self = Self::Batch(Batch { reads: Vec::new(), writes: Vec::new() });

    /// The size of the payload in bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Batch(batch) => 1 + batch.encoded_len(),
            Self::Payload(payload, _) => payload.len(),
        }
    }

    /// Whether it needs room on the device.
    pub(crate) fn puts(&self) -> bool {
        match self {
            Self::Batch(batch) => has_put(batch),
            Self::Payload(_, puts) => *puts,
        }
    }

    /// As it is in the log of a cluster.
    pub(crate) fn encoded(self) -> Self {
        match self {
            Self::Batch(batch) => Self::Payload(encode(&batch), has_put(&batch)),
            payload => payload,
        }
    }

    /// A batch as such.
    pub(crate) fn decoded(self) -> Result<Self, StorageError> {
        match self {
            Self::Payload(payload, _) if Kind::of(&payload) == Ok(Kind::Batch) => {
                Ok(Self::Batch(Batch::decode(payload.slice(1..))?))
            }
            other => Ok(other),
        }
    }

    /// A payload of another kind than a batch. Only one that drops a restore needs no room.
    pub(crate) fn other(payload: &Payload) -> Self {
        Self::Payload(payload.encode(), !matches!(payload, Payload::RestoreAbort))
    }
}

/// Whether a batch needs room on the device.
pub(crate) fn has_put(batch: &Batch) -> bool {
    batch.writes.iter().any(|write| matches!(write, Write::Put { .. }))
}

/// A batch as the payload of an entry.
pub(crate) fn encode(batch: &Batch) -> Bytes {
    let mut payload = Vec::with_capacity(1 + batch.encoded_len());
    payload.push(Kind::Batch as u8);
    batch.encode(&mut payload);
    payload.into()
}
