//! The trait that every storage backend implements.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{Batch, Consensus, Key, Page, Role, StorageError, Watch};

/// Position of an entry in the log. Batches are entries, and so are changes of a cluster's members. 0 is before the
/// first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

/// A durable, ordered map from key to bytes.
///
/// There is no `put`: a single write is a batch of one, so every backend supports transactions. The `suite` module
/// (feature `suite`) holds the tests that every implementation passes.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Returns the value under `key`. Sees every commit that was acknowledged before.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError>;

    /// Lists the names one level below `prefix`, in byte order. A name that has children ends in `/`; a name that is
    /// both a record and a parent is listed twice, once in each form.
    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError>;

    /// Applies every write in order, or none of them when one of the reads no longer holds.
    ///
    /// Returns the index of the batch in the log once the batch is durable. Indexes grow, and may leave numbers out. A
    /// batch without writes only checks its reads and returns an index that is not before that of an acknowledged
    /// batch. Dropping the future does not undo the commit.
    ///
    /// A follower passes the batch on to the leader, and returns when it is applied here, too.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when a read no longer holds, [`StorageError::NoLeader`] when no leader is known or
    /// reached. Nothing was written after these and after [`StorageError::NotLeader`], [`StorageError::NotCommitted`],
    /// [`StorageError::Contended`], [`StorageError::Full`] and [`StorageError::TooLarge`]. After any other error the batch
    /// may take effect later, or be present after a restart.
    async fn commit(&self, batch: Batch) -> Result<Index, StorageError>;

    /// Number of values that were encrypted under a term of the barrier's keys, by the batches of the log. Each stored
    /// value names its term, so that every node counts alike; a node that takes over continues the count.
    ///
    /// The default is for backends that wrap another one in tests.
    fn encryptions(&self, _key_term: u32) -> Result<u64, StorageError> {
        Ok(0)
    }

    /// Registers a watcher. It receives every later batch until it is dropped; see [`Watch`].
    fn watch(&self, watcher: Weak<dyn Watch>);

    /// The role of this node in its cluster, and its changes; `None` for a backend without a cluster. A closed channel
    /// means that the role no longer changes: no other node ever leads.
    fn roles(&self) -> Option<watch::Receiver<Role>> {
        None
    }

    /// The members, reads and snapshots of a node whose log is replicated; `None` for other backends.
    fn consensus(&self) -> Option<Arc<dyn Consensus>> {
        None
    }
}
