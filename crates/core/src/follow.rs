//! What memory has of stored records follows what any node commits.
//!
//! One [`Watch`] tells each committed key to its owners, before the commit is acknowledged. An owner applies a small record
//! at once, or marks what it has in memory as stale. So the caller of the next request sees the change, on the node that
//! committed it and on every other, and no handler mends a cache.
//!
//! An owner is registered before it reads what is stored, and reads again if something changed meanwhile.

use std::ops::Deref;
use std::sync::Arc;

use keepfast_storage::{Barrier, Index, StorageError, Watch, Write};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;

use crate::damaged::Stored;

/// The owner of what memory has of the records below a prefix.
pub(crate) trait Follower: Send + Sync {
    /// A commit has written or deleted a record. Called in the order of the commits, by the thread that applies them: it
    /// must be quick and must not wait for the backend.
    fn applied(&self, change: &Applied<'_>);
}

/// A committed change of one record.
pub(crate) struct Applied<'a> {
    /// The key below the prefix that the owner follows.
    pub(crate) key: &'a str,
    write: &'a Write,
    barrier: &'a Barrier,
}

impl Applied<'_> {
    /// Whether the record is there now.
    pub(crate) fn exists(&self) -> bool {
        matches!(self.write, Write::Put { .. })
    }

    /// The record as it is now. One that cannot be read is logged as `what`.
    pub(crate) fn record<T: DeserializeOwned>(&self, what: &'static str) -> Stored<T> {
        let Write::Put { key, value } = self.write else { return Stored::Absent };
        let read =
            |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|error| StorageError::corrupt(error.to_string()));
        match self.barrier.open_applied(key, value).and_then(|bytes| read(&bytes)) {
            Ok(record) => Stored::Record(record),
            Err(error) => {
                tracing::error!(record = what, name = self.key, %error, "a record that was committed cannot be read");
                Stored::Damaged
            }
        }
    }
}

/// Tells committed keys to their owners.
pub(crate) struct Follow {
    barrier: Arc<Barrier>,
    followers: RwLock<Vec<(&'static str, Arc<dyn Follower>)>>,
}

impl Follow {
    /// Follows what this barrier's backend applies, until it is dropped or the barrier is closed.
    pub(crate) fn new(barrier: Arc<Barrier>) -> Arc<Self> {
        let follow = Arc::new(Follow { barrier, followers: RwLock::default() });
        let watcher: Arc<dyn Watch> = follow.clone();
        follow.barrier.watch(Arc::downgrade(&watcher));
        follow
    }

    /// Registers the owner of the records below `prefix`, before it reads them.
    pub(crate) fn add(&self, prefix: &'static str, follower: Arc<dyn Follower>) {
        self.followers.write().push((prefix, follower));
    }
}

/// The barrier of an unsealed server; while it is held, memory follows its commits.
pub(crate) struct FollowedBarrier {
    barrier: Arc<Barrier>,
    _follow: Arc<Follow>,
}

impl FollowedBarrier {
    /// The barrier that `follow` follows.
    pub(crate) fn new(follow: Arc<Follow>) -> Self {
        FollowedBarrier { barrier: follow.barrier.clone(), _follow: follow }
    }
}

impl Deref for FollowedBarrier {
    type Target = Arc<Barrier>;

    fn deref(&self) -> &Arc<Barrier> {
        &self.barrier
    }
}

impl Watch for Follow {
    fn applied(&self, _: Index, writes: &[Write]) {
        if self.barrier.is_closed() {
            return;
        }
        let followers = self.followers.read();
        for write in writes {
            let path = write.key().as_str();
            for (prefix, follower) in followers.iter() {
                if let Some(key) = path.strip_prefix(prefix) {
                    follower.applied(&Applied { key, write, barrier: &self.barrier });
                }
            }
        }
    }
}
