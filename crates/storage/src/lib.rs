//! Storage: code above this crate never uses a backend directly, code below it never sees plaintext.
//!
//! A [`Backend`] is a durable ordered map whose only write operation is an atomic, checked [`Batch`]. A [`Barrier`]
//! encrypts its records and returns [`View`]s; a [`Tx`] reads and writes through views and commits once.

#[macro_use]
mod simulated;

mod backend;
mod barrier;
mod batch;
mod blocking;
mod cache;
mod consensus;
mod error;
#[cfg(any(test, feature = "suite"))]
pub mod fuzzing;
mod key;
mod listing;
mod local;
mod memory;
mod page;
mod raft;
mod role;
#[cfg(any(test, feature = "suite"))]
pub mod sim;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
mod transact;
mod tx;
mod view;
mod watch;

pub use backend::{Backend, Index};
pub use barrier::{
    Barrier, BarrierError, BarrierOptions, KeyStatus, MAX_ENCRYPTIONS, OperationCounts, RestoreMark, Rewrap, Rewrapped,
    RootKey, SealChange, SealRecord, WrapKeySource, WrapKeys, Wraps, derive_key,
};
pub use batch::{Batch, Digest, Read, Write};
pub use consensus::{
    Addresses, Change, ChangeError, ClusterStatus, Consensus, Incarnation, Joined, MAX_MESSAGE, MAX_SNAPSHOT_PART,
    Member, NodeId, Origin, PeerKind, PeerStatus, RaftId, SnapshotHead, SnapshotParts, Transport,
};
pub use error::StorageError;
pub use key::Key;
pub use local::examine::{Examined, examine};
pub use local::{LocalBackend, LocalOptions};
pub use memory::MemoryBackend;
pub use page::Page;
pub use raft::SnapshotRecords;
pub use role::{Leader, Role};
pub use transact::{Tries, TxError};
pub use tx::{OwnedReadTx, ReadTx, Tx};
pub use view::{View, Wrapping};
pub use watch::Watch;
