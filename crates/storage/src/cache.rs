//! A cache of ciphertext in front of the backend.
//!
//! The backend passes every batch to the cache in commit order, so the cache holds the newest value or none. A race
//! remains: a reader fetches a value before a commit and stores it in the cache afterwards. The reader therefore takes
//! a [`Ticket`] first, and a commit in between invalidates the ticket.

use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache as QuickCache};

use crate::{Index, Key, Watch, Write};

/// Approximate overhead of a cache entry in addition to its key and value, in bytes.
const ENTRY: u64 = 96;
/// Number of change counters, each for a part of the paths. A commit invalidates the tickets of its part; more parts
/// invalidate fewer tickets of unchanged records.
const STRIPES: usize = 64;

/// A bounded map from storage path to ciphertext.
pub(crate) struct Cache {
    values: QuickCache<Key, Bytes, Weigh>,
    changes: [Mutex<u64>; STRIPES],
}

/// Permission to cache a value that is read from the backend after this moment.
pub(crate) struct Ticket {
    stripe: usize,
    change: u64,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Key, Bytes> for Weigh {
    fn weight(&self, key: &Key, value: &Bytes) -> u64 {
        ENTRY + (key.as_str().len() + value.len()) as u64
    }
}

impl Cache {
    /// Creates a cache of at most `bytes` bytes, overhead included.
    pub(crate) fn new(bytes: usize) -> Self {
        // Capacity for a tenth of the expected entries; it grows on demand, so that an idle server stays small.
        let items = (bytes / 8192).max(16);
        Self {
            values: QuickCache::with_weighter(items, bytes as u64, Weigh),
            changes: std::array::from_fn(|_| Mutex::new(0)),
        }
    }

    /// Returns the newest ciphertext, if cached.
    pub(crate) fn get(&self, path: &str) -> Option<Bytes> {
        self.values.get(path)
    }

    /// Returns a ticket. Must be called before the read from the backend.
    pub(crate) fn ticket(&self, path: &str) -> Ticket {
        let stripe = stripe(path);
        Ticket { stripe, change: *self.changes[stripe].lock() }
    }

    /// Caches the value that the backend returned, unless a commit followed the ticket.
    pub(crate) fn fill(&self, ticket: &Ticket, key: Key, value: Bytes) {
        let change = self.changes[ticket.stripe].lock();
        if *change == ticket.change && self.fits(&key, &value) {
            self.values.insert(key, value);
        }
    }

    /// Removes all entries.
    pub(crate) fn clear(&self) {
        for change in &self.changes {
            *change.lock() += 1;
        }
        self.values.clear();
    }

    fn fits(&self, key: &Key, value: &Bytes) -> bool {
        Weigh.weight(key, value) <= self.values.shard_capacity() / 4
    }
}

impl Watch for Cache {
    fn applied(&self, _: Index, writes: &[Write]) {
        if planted!(NoInvalidation) {
            return;
        }
        for write in writes {
            let mut change = self.changes[stripe(write.key().as_str())].lock();
            *change += 1;
            match write {
                // The value may be a slice of a whole entry or message, whose memory the weight does not count.
                Write::Put { key, value } if self.fits(key, value) => {
                    self.values.insert(key.clone(), Bytes::copy_from_slice(value));
                }
                // The cache would refuse a value too large for it and keep returning the old one.
                Write::Put { key, .. } | Write::Delete { key } => {
                    self.values.remove(key.as_str());
                }
            }
        }
    }

    fn replaced(&self, _: Index) {
        self.clear();
    }
}

fn stripe(path: &str) -> usize {
    crc32fast::hash(path.as_bytes()) as usize % STRIPES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::Cache;
    use crate::{Index, Key, Watch, Write};

    fn put(path: &str, value: impl Into<Bytes>) -> Vec<Write> {
        vec![Write::Put { key: Key::new(path).unwrap(), value: value.into() }]
    }

    #[test]
    fn a_commit_between_reading_and_keeping_wins() {
        let cache = Cache::new(1 << 20);
        let ticket = cache.ticket("a");
        cache.applied(Index(1), &put("a", "new"));
        cache.fill(&ticket, Key::new("a").unwrap(), "old".into());
        assert_eq!(cache.get("a").unwrap(), "new");

        let ticket = cache.ticket("a");
        cache.applied(Index(2), &[Write::Delete { key: Key::new("a").unwrap() }]);
        cache.fill(&ticket, Key::new("a").unwrap(), "old".into());
        assert_eq!(cache.get("a"), None);

        let ticket = cache.ticket("a");
        cache.fill(&ticket, Key::new("a").unwrap(), "kept".into());
        assert_eq!(cache.get("a").unwrap(), "kept");
    }

    #[test]
    fn a_replacement_of_all_records_leaves_no_value_and_no_ticket() {
        let cache = Cache::new(1 << 20);
        cache.applied(Index(1), &put("a", "old"));
        let ticket = cache.ticket("b");
        cache.replaced(Index(2));
        cache.fill(&ticket, Key::new("b").unwrap(), "old".into());
        assert_eq!((cache.get("a"), cache.get("b")), (None, None));
    }

    #[test]
    fn a_value_too_large_to_keep_displaces_the_old_one() {
        let cache = Cache::new(1 << 16);
        cache.applied(Index(1), &put("a", "small"));
        assert_eq!(cache.get("a").unwrap(), "small");
        cache.applied(Index(2), &put("a", vec![0; 1 << 16]));
        assert_eq!(cache.get("a"), None);
    }

    #[test]
    fn a_cached_value_does_not_hold_the_message_that_it_came_in() {
        let cache = Cache::new(1 << 20);
        let message = Bytes::from(vec![7; 1 << 20]);
        cache.applied(Index(1), &put("a", message.slice(10..20)));
        assert_eq!(cache.get("a").unwrap(), [7; 10][..]);
        assert!(message.is_unique());
    }

    #[test]
    fn the_weight_is_bounded() {
        let cache = Cache::new(1 << 16);
        for number in 0..1000 {
            cache.applied(Index(number), &put(&format!("key/{number}"), vec![0; 500]));
        }
        assert!(cache.values.weight() <= 1 << 16);
        assert!(cache.values.len() > 50);
    }
}
