//! Who wants to know what has been committed.

use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use crate::{Index, Write};

/// Told of every batch that a backend applies, whoever committed it.
pub trait Watch: Send + Sync {
    /// The batch at `index` has been applied.
    ///
    /// Called in the order of the indexes, after `get` sees the writes and before the commit is acknowledged, on the
    /// one thread that applies: it must be quick and must not wait for the backend.
    fn applied(&self, index: Index, writes: &[Write]);
}

/// The watchers of one backend.
#[derive(Default)]
pub(crate) struct Watchers(RwLock<Vec<Weak<dyn Watch>>>);

impl Watchers {
    /// Adds a watcher and forgets those that are gone.
    pub(crate) fn add(&self, watcher: Weak<dyn Watch>) {
        let mut watchers = self.0.write();
        watchers.retain(|known| known.strong_count() > 0);
        watchers.push(watcher);
    }

    /// Tells every watcher that is still there.
    pub(crate) fn tell(&self, index: Index, writes: &[Write]) {
        let watchers: Vec<Arc<dyn Watch>> = self.0.read().iter().filter_map(Weak::upgrade).collect();
        for watcher in watchers {
            watcher.applied(index, writes);
        }
    }
}
