//! A cache of prepared keys, so that operations with a key read no storage. A commit that changes a key removes it
//! ([`keepfast_framework::Engine::invalidate`]).

use std::sync::Arc;

use keepfast_framework::{Cx, Result};
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use super::named_key::{KEYS, NamedKey};

/// The default size of the cache. Key material is in locked memory, of which a process has 8 MiB by default: enough for
/// this many symmetric keys of a few versions each.
const DEFAULT_SIZE: usize = 8192;

/// The prepared keys of a mount.
pub(super) struct KeyCache {
    cache: Cache<Box<str>, Arc<NamedKey>>,
    /// Counts invalidations. A ring that was read from storage before an invalidation must not enter the cache after
    /// it.
    epoch: Mutex<u64>,
}

impl KeyCache {
    /// An empty cache for `size` keys; 0 means the default.
    pub(super) fn new(size: usize) -> Self {
        KeyCache { cache: Cache::new(if size == 0 { DEFAULT_SIZE } else { size }), epoch: Mutex::new(0) }
    }

    /// The key of this name, from the cache or storage.
    pub(super) async fn get(&self, cx: &mut Cx, name: &str) -> Result<Option<Arc<NamedKey>>> {
        if let Some(named_key) = self.cache.get(name) {
            return Ok(Some(named_key));
        }
        let epoch = *self.epoch.lock();
        let Some(record) = KEYS.get(cx, name).await? else { return Ok(None) };
        let named_key = Arc::new(NamedKey::new(record));
        let now = self.epoch.lock();
        if *now == epoch {
            self.cache.insert(name.into(), named_key.clone());
        }
        Ok(Some(named_key))
    }

    /// Removes a key from the cache.
    pub(super) fn invalidate(&self, name: &str) {
        let mut epoch = self.epoch.lock();
        *epoch += 1;
        self.cache.remove(name);
    }
}
