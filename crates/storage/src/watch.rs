//! Watchers of committed batches: the ciphertext cache and the keyring of the barrier, and the caches of core.

use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use crate::{Index, Write};

/// Receives every batch that a backend applies, from any node.
pub trait Watch: Send + Sync {
    /// Called after the batch at `index` has been applied.
    ///
    /// Calls come in the order of the indexes, after `get` sees the writes and before the commit is acknowledged, on
    /// the one thread that applies batches: an implementation must be fast and must not wait for the backend.
    fn applied(&self, index: Index, writes: &[Write]);

    /// Called after a snapshot has replaced all records, at `index`: nothing that was read or received before holds.
    /// Under the same conditions as [`applied`](Self::applied). There is no default, because each cache must follow.
    fn replaced(&self, index: Index);
}

/// The watchers of one backend.
#[derive(Default)]
pub(crate) struct Watchers(RwLock<Vec<Weak<dyn Watch>>>);

impl Watchers {
    /// Adds a watcher and removes those that were dropped.
    pub(crate) fn add(&self, watcher: Weak<dyn Watch>) {
        let mut watchers = self.0.write();
        watchers.retain(|known| known.strong_count() > 0);
        watchers.push(watcher);
    }

    /// Passes a batch to every watcher that still exists.
    pub(crate) fn notify(&self, index: Index, writes: &[Write]) {
        for watcher in self.live() {
            watcher.applied(index, writes);
        }
    }

    /// Notifies every watcher that still exists that all records were replaced.
    pub(crate) fn notify_replaced(&self, index: Index) {
        for watcher in self.live() {
            watcher.replaced(index);
        }
    }

    fn live(&self) -> Vec<Arc<dyn Watch>> {
        self.0.read().iter().filter_map(Weak::upgrade).collect()
    }
}
