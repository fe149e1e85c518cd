//! A cache of prepared keys, so that operations with a key read no storage. A commit that changes a key removes it
//! ([`keepfast_framework::Engine::invalidate`]).

use std::sync::Arc;

use keepfast_framework::{Cx, ReadCache, Result};

use super::named_key::{KEYS, NamedKey};

/// The default size of the cache. Key material is in locked memory, of which a process has 8 MiB by default: enough for
/// this many symmetric keys of a few versions each.
const DEFAULT_SIZE: usize = 8192;

/// The prepared keys of a mount.
pub(super) struct KeyCache {
    cache: ReadCache<Box<str>, Arc<NamedKey>>,
}

impl KeyCache {
    /// An empty cache for `size` keys; 0 means the default.
    pub(super) fn new(size: usize) -> Self {
        let size = if size == 0 { DEFAULT_SIZE } else { size };
        KeyCache { cache: ReadCache::new(size, size) }
    }

    /// The key of this name, from the cache or storage.
    pub(super) async fn get(&self, cx: &mut Cx, name: &str) -> Result<Option<Arc<NamedKey>>> {
        if let Some(named_key) = self.cache.get(name) {
            return Ok(Some(named_key));
        }
        let epoch = self.cache.epoch();
        let Some(record) = KEYS.get(cx, name).await? else { return Ok(None) };
        let named_key = Arc::new(NamedKey::new(record));
        self.cache.insert(epoch, name.into(), named_key.clone());
        Ok(Some(named_key))
    }

    /// Removes a key from the cache.
    pub(super) fn invalidate(&self, name: &str) {
        self.cache.invalidate(name);
    }
}
