//! Ciphertext kept in memory in front of the backend.
//!
//! The backend tells the cache of every batch in commit order, so the cache always holds the newest value or none.
//! What remains is a reader that fetched a value before a commit and wants to keep it after: it takes a [`Ticket`]
//! first, and a commit in between makes the ticket void.

use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache as QuickCache};

use crate::{Index, Key, Watch, Write};

/// What an entry costs beside its key and value, roughly, in bytes.
const ENTRY: u64 = 96;
/// Independent counters of changes; more of them make fewer tickets void for nothing.
const STRIPES: usize = 64;

/// A bounded map from storage path to ciphertext.
pub(crate) struct Cache {
    values: QuickCache<Key, Bytes, Weigh>,
    changes: [Mutex<u64>; STRIPES],
}

/// Permission to keep what is read from the backend after this moment.
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
    /// A cache of at most `bytes` bytes, overhead included.
    pub(crate) fn new(bytes: usize) -> Self {
        // Room for a tenth of what may come; more is made as it does, so that an idle server stays small.
        let items = (bytes / 8192).max(16);
        Self {
            values: QuickCache::with_weighter(items, bytes as u64, Weigh),
            changes: std::array::from_fn(|_| Mutex::new(0)),
        }
    }

    /// The newest ciphertext, if it is here.
    pub(crate) fn get(&self, path: &str) -> Option<Bytes> {
        self.values.get(path)
    }

    /// To be taken before the backend is asked.
    pub(crate) fn ticket(&self, path: &str) -> Ticket {
        let stripe = stripe(path);
        Ticket { stripe, change: *self.changes[stripe].lock() }
    }

    /// Keeps what the backend answered, unless something was committed since the ticket was taken.
    pub(crate) fn fill(&self, ticket: &Ticket, key: Key, value: Bytes) {
        let change = self.changes[ticket.stripe].lock();
        if *change == ticket.change && self.fits(&key, &value) {
            self.values.insert(key, value);
        }
    }

    /// Forgets everything.
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
        for write in writes {
            let mut change = self.changes[stripe(write.key().as_str())].lock();
            *change += 1;
            match write {
                Write::Put { key, value } if self.fits(key, value) => self.values.insert(key.clone(), value.clone()),
                // The cache would refuse a value too large for it and go on answering with the old one.
                Write::Put { key, .. } | Write::Delete { key } => {
                    self.values.remove(key.as_str());
                }
            }
        }
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
    fn a_value_too_large_to_keep_displaces_the_old_one() {
        let cache = Cache::new(1 << 16);
        cache.applied(Index(1), &put("a", "small"));
        assert_eq!(cache.get("a").unwrap(), "small");
        cache.applied(Index(2), &put("a", vec![0; 1 << 16]));
        assert_eq!(cache.get("a"), None);
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
