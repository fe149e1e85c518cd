//! Changes of entities, for what is derived from an entity and kept, such as the compiled policies of its tokens.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::ENTITY;

/// The number of entries from which unused stamps are removed.
const PURGED_FROM: usize = 1024;

/// A stamp of an entity: what was derived from the entity holds as long as the stamp is current.
#[derive(Clone)]
pub(crate) struct EntityStamp(Arc<AtomicBool>);

impl EntityStamp {
    /// Whether no commit has changed the entity since the stamp was made.
    pub(crate) fn is_current(&self) -> bool {
        !self.0.load(Ordering::Acquire)
    }
}

/// The stamps in use. A change of an entity ends its own stamps only, and an entity that is new has none.
#[derive(Default)]
pub(crate) struct EntityChanges(Mutex<Stamps>);

#[derive(Default)]
struct Stamps {
    by_entity: HashMap<String, Weak<AtomicBool>>,
    /// Live stamps at the last purge.
    live: usize,
}

impl EntityChanges {
    /// A stamp of the entity, made before the entity is read.
    pub(crate) fn stamp(&self, entity: &str) -> EntityStamp {
        let mut stamps = self.0.lock();
        if let Some(known) = stamps.by_entity.get(entity).and_then(Weak::upgrade) {
            return EntityStamp(known);
        }
        if stamps.by_entity.len() >= PURGED_FROM.max(2 * stamps.live) {
            stamps.by_entity.retain(|_, stamp| stamp.strong_count() > 0);
            stamps.live = stamps.by_entity.len();
        }
        let fresh = Arc::new(AtomicBool::new(false));
        stamps.by_entity.insert(entity.to_owned(), Arc::downgrade(&fresh));
        EntityStamp(fresh)
    }

    /// Ends the stamps of the entity whose record at `key`, in the view of identity, a commit has changed or deleted.
    pub(crate) fn applied(&self, key: &str) {
        let Some(entity) = key.strip_prefix(ENTITY) else { return };
        let stamp = self.0.lock().by_entity.remove(entity);
        if let Some(stamp) = stamp.and_then(|stamp| stamp.upgrade()) {
            stamp.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_ends_the_stamps_of_its_entity_only() {
        let changes = EntityChanges::default();
        let [one, again, other] = ["one", "one", "other"].map(|entity| changes.stamp(entity));
        changes.applied("entity/new");
        changes.applied("alias/one");
        assert!(one.is_current() && again.is_current() && other.is_current());
        changes.applied("entity/one");
        assert!(!one.is_current() && !again.is_current() && other.is_current());
        let fresh = changes.stamp("one");
        assert!(fresh.is_current() && !one.is_current());
        changes.applied("entity/one");
        assert!(!fresh.is_current());
    }

    #[test]
    fn dropped_stamps_take_no_room_for_ever() {
        let changes = EntityChanges::default();
        let kept: Vec<_> = (0..100).map(|n| (n, changes.stamp(&n.to_string()))).collect();
        for n in 100..10 * PURGED_FROM {
            drop(changes.stamp(&n.to_string()));
        }
        assert!(changes.0.lock().by_entity.len() <= PURGED_FROM);
        for (n, stamp) in kept {
            assert!(stamp.is_current());
            changes.applied(&format!("entity/{n}"));
            assert!(!stamp.is_current(), "{n}");
        }
    }
}
