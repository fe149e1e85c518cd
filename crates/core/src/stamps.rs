//! Stamps of records: cached data that is derived from a record is current as long as its stamp is.
//!
//! A cache takes the stamp of a record, reads the record and stores the stamp with the data. A commit that changes the
//! record invalidates the stamp, so the cache finds out without a search for its entry.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::invalidation::{CacheOwner, CommittedChange};

/// The number of entries from which unused stamps are removed.
const PURGED_FROM: usize = 1024;

/// A stamp of a record. True when a commit has changed the record.
#[derive(Clone)]
pub(crate) struct Stamp(Arc<AtomicBool>);

impl Stamp {
    /// Whether no commit has changed the record since the stamp was taken.
    pub(crate) fn is_current(&self) -> bool {
        !self.0.load(Ordering::Acquire)
    }
}

/// The stamps in use, by the names of their records. A change of a record invalidates only its own stamps.
#[derive(Default)]
pub(crate) struct Stamps(Mutex<InUse>);

#[derive(Default)]
struct InUse {
    by_name: HashMap<String, Weak<AtomicBool>>,
    /// Live stamps at the last purge.
    live: usize,
}

impl Stamps {
    /// A stamp of the record, to be taken before the record is read.
    pub(crate) fn stamp(&self, name: &str) -> Stamp {
        let mut stamps = self.0.lock();
        if let Some(known) = stamps.by_name.get(name).and_then(Weak::upgrade) {
            return Stamp(known);
        }
        if stamps.by_name.len() >= PURGED_FROM.max(2 * stamps.live) {
            stamps.by_name.retain(|_, stamp| stamp.strong_count() > 0);
            stamps.live = stamps.by_name.len();
        }
        let fresh = Arc::new(AtomicBool::new(false));
        stamps.by_name.insert(name.to_owned(), Arc::downgrade(&fresh));
        Stamp(fresh)
    }

    /// Invalidates the stamps of a record that a commit has changed or deleted.
    pub(crate) fn invalidate(&self, name: &str) {
        let stamp = self.0.lock().by_name.remove(name);
        if let Some(stamp) = stamp.and_then(|stamp| stamp.upgrade()) {
            stamp.store(true, Ordering::Release);
        }
    }
}

/// Invalidates stamps when a commit changes their records.
impl CacheOwner for Stamps {
    fn applied(&self, change: &CommittedChange<'_>) {
        self.invalidate(change.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_invalidates_the_stamps_of_its_record_only() {
        let stamps = Stamps::default();
        let [one, again, other] = ["one", "one", "other"].map(|name| stamps.stamp(name));
        stamps.invalidate("new");
        assert!(one.is_current() && again.is_current() && other.is_current());
        stamps.invalidate("one");
        assert!(!one.is_current() && !again.is_current() && other.is_current());
        let fresh = stamps.stamp("one");
        assert!(fresh.is_current() && !one.is_current());
        stamps.invalidate("one");
        assert!(!fresh.is_current());
    }

    #[test]
    fn dropped_stamps_are_purged() {
        let stamps = Stamps::default();
        let kept: Vec<_> = (0..100).map(|n| (n, stamps.stamp(&n.to_string()))).collect();
        for n in 100..10 * PURGED_FROM {
            drop(stamps.stamp(&n.to_string()));
        }
        assert!(stamps.0.lock().by_name.len() <= PURGED_FROM);
        for (n, stamp) in kept {
            assert!(stamp.is_current());
            stamps.invalidate(&n.to_string());
            assert!(!stamp.is_current(), "{n}");
        }
    }
}
