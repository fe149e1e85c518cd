//! Prepared keys in memory, so that an operation with a key reads no storage. A key that a commit changes is dropped
//! ([`keepfast_framework::Engine::invalidate`]).

use std::sync::Arc;

use keepfast_framework::{Cx, Result};
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use super::ring::{KEYS, Ring};

/// How many keys are kept when `cache-config` sets no bound. Their material lies in locked memory, of which a process
/// has 8 MiB by default: enough for this many symmetric keys of a few versions each.
const DEFAULT_SIZE: usize = 8192;

/// The prepared keys of a mount.
pub(super) struct Rings {
    cache: Cache<Box<str>, Arc<Ring>>,
    /// Counts what was dropped. A ring read from storage before a drop must not be kept after it.
    epoch: Mutex<u64>,
}

impl Rings {
    /// Nothing yet; `size` bounds how many are kept, 0 for the default.
    pub(super) fn new(size: usize) -> Self {
        Rings { cache: Cache::new(if size == 0 { DEFAULT_SIZE } else { size }), epoch: Mutex::new(0) }
    }

    /// The key of this name, from memory or storage.
    pub(super) async fn get(&self, cx: &mut Cx, name: &str) -> Result<Option<Arc<Ring>>> {
        if let Some(ring) = self.cache.get(name) {
            return Ok(Some(ring));
        }
        let epoch = *self.epoch.lock();
        let Some(record) = KEYS.get(cx, name).await? else { return Ok(None) };
        let ring = Arc::new(Ring::new(record));
        let now = self.epoch.lock();
        if *now == epoch {
            self.cache.insert(name.into(), ring.clone());
        }
        Ok(Some(ring))
    }

    /// Drops a key from memory.
    pub(super) fn forget(&self, name: &str) {
        let mut epoch = self.epoch.lock();
        *epoch += 1;
        self.cache.remove(name);
    }
}
