//! The joint where a storage backend plugs in.

use std::sync::Weak;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{Batch, Key, Page, Role, StorageError, Watch};

/// Position of a batch in the log of all batches. The first is 1; 0 is the empty store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

/// A durable, ordered map from key to bytes: all that a storage backend must provide.
///
/// There is no `put`: a lone write is a batch of one, so a backend cannot be without transactions.
/// The `suite` module (feature `suite`) holds the tests that every implementation passes.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The value under `key`. Sees every commit that was acknowledged before.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError>;

    /// The names one level below `prefix`, in byte order. What has children ends in `/`; what is both a record and has
    /// children is listed as both.
    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError>;

    /// Applies every write in order, or, when a read no longer holds, none of them.
    ///
    /// Returns once the batch is durable: the index it has in the log. A batch without writes only checks its reads
    /// and returns the index of the last batch. Dropping the future does not undo the commit.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when a read no longer holds, [`StorageError::NotLeader`] on a node that follows. Any other
    /// error but [`StorageError::Full`] and [`StorageError::TooLarge`] leaves open whether the batch will be found after a
    /// restart.
    async fn commit(&self, batch: Batch) -> Result<Index, StorageError>;

    /// Registers a watcher, which is called with every batch from now on until it is dropped; see [`Watch`].
    fn watch(&self, watcher: Weak<dyn Watch>);

    /// The role of this node in its cluster, and its changes; `None` for a backend that has no cluster. A closed channel
    /// says that the role does not change any more: then no other node ever leads.
    fn roles(&self) -> Option<watch::Receiver<Role>> {
        None
    }
}
