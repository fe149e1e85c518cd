//! A cache of the policies of entities, because each login reads them for its response.

use std::sync::Arc;

use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;

use crate::stamps::{Stamp, Stamps};

/// The number of entities in the cache.
const CAPACITY: u64 = 10_000;
/// The number of entities for which the cache allocates room at first.
const FIRST_ROOM: usize = 64;

/// The policies of entities by the id of the entity, each with the stamp under which they were read.
pub(super) struct PolicyCache {
    entries: Cache<String, Entry>,
    stamps: Arc<Stamps>,
}

#[derive(Clone)]
struct Entry {
    stamp: Stamp,
    policies: Arc<[String]>,
}

impl PolicyCache {
    /// An empty cache. `stamps` are the stamps of entities.
    pub(super) fn new(stamps: Arc<Stamps>) -> Self {
        PolicyCache { entries: Cache::with_weighter(FIRST_ROOM, CAPACITY, UnitWeighter), stamps }
    }

    /// The policies of an entity, if they are in the cache and no commit has changed the entity since they were read.
    pub(super) fn get(&self, entity: &str) -> Option<Arc<[String]>> {
        self.entries.get(entity).filter(|entry| entry.stamp.is_current()).map(|entry| entry.policies)
    }

    /// A stamp of the entity, to be taken before the entity is read.
    pub(super) fn stamp(&self, entity: &str) -> Stamp {
        self.stamps.stamp(entity)
    }

    /// Caches policies that were read after `stamp` was taken.
    pub(super) fn insert(&self, entity: &str, stamp: Stamp, policies: Arc<[String]>) {
        self.entries.insert(entity.to_owned(), Entry { stamp, policies });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_an_entity_invalidates_its_entry_only() {
        let stamps = Arc::new(Stamps::default());
        let cache = PolicyCache::new(stamps.clone());
        for entity in ["one", "other"] {
            cache.insert(entity, cache.stamp(entity), Arc::from([entity.to_owned()]));
        }
        assert_eq!(cache.get("one").as_deref(), Some(&["one".to_owned()][..]));
        let late = cache.stamp("one");
        stamps.invalidate("one");
        assert!(cache.get("one").is_none() && cache.get("other").is_some());
        cache.insert("one", late, Arc::default());
        assert!(cache.get("one").is_none(), "policies that were read before the change");
        cache.insert("one", cache.stamp("one"), Arc::default());
        assert!(cache.get("one").is_some());
    }
}
