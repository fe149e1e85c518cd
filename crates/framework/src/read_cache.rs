//! A cache of values that are read from storage, for [`Engine::invalidate`](crate::Engine::invalidate).

use std::borrow::Borrow;
use std::hash::Hash;

use parking_lot::Mutex;
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;

/// Values by key. A value that was read from storage before a commit invalidated its key or another one is not
/// inserted after it: it may be stale.
pub struct ReadCache<K, V> {
    values: Cache<K, V>,
    /// Held while a value is inserted or removed.
    epoch: Mutex<Epoch>,
}

/// The number of invalidations before a read of storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(u64);

impl<K: Eq + Hash + Clone, V: Clone> ReadCache<K, V> {
    /// An empty cache of at most `capacity` values, with room for `initial` ones.
    pub fn new(initial: usize, capacity: usize) -> Self {
        ReadCache { values: Cache::with_weighter(initial, capacity as u64, UnitWeighter), epoch: Mutex::default() }
    }

    /// The value of a key.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.values.get(key)
    }

    /// The current epoch, to be taken before storage is read.
    pub fn epoch(&self) -> Epoch {
        *self.epoch.lock()
    }

    /// Inserts a value that was read in this epoch, unless a key was invalidated since.
    pub fn insert(&self, read_in: Epoch, key: K, value: V) {
        let epoch = self.epoch.lock();
        if *epoch == read_in {
            self.values.insert(key, value);
        }
    }

    /// Removes the value of a key, whose record has changed.
    pub fn invalidate<Q: Eq + Hash + ?Sized>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let mut epoch = self.epoch.lock();
        epoch.0 += 1;
        self.values.remove(key);
    }

    /// Removes all values.
    pub fn clear(&self) {
        let mut epoch = self.epoch.lock();
        epoch.0 += 1;
        self.values.clear();
    }

    /// The values with their keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (K, V)> + '_ {
        self.values.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_inserted_only_in_the_epoch_of_its_read() {
        let cache: ReadCache<String, u8> = ReadCache::new(1, 100);
        let read = cache.epoch();
        cache.insert(read, "a".to_owned(), 1);
        cache.insert(read, "b".to_owned(), 2);
        assert_eq!((cache.get("a"), cache.get("b"), cache.iter().count()), (Some(1), Some(2), 2));
        cache.invalidate("a");
        assert_eq!((cache.get("a"), cache.get("b")), (None, Some(2)));
        cache.insert(read, "a".to_owned(), 1);
        cache.insert(read, "c".to_owned(), 1);
        assert_eq!((cache.get("a"), cache.get("c")), (None, None), "read before the invalidation");
        cache.insert(cache.epoch(), "a".to_owned(), 3);
        assert_eq!(cache.get("a"), Some(3));
        let read = cache.epoch();
        cache.clear();
        cache.insert(read, "a".to_owned(), 3);
        assert_eq!(cache.iter().count(), 0);
    }

    #[test]
    fn a_cache_of_one_value_keeps_it_and_a_full_one_stays_full() {
        let one: ReadCache<(), u8> = ReadCache::new(1, 1);
        for value in 0..3 {
            one.insert(one.epoch(), (), value);
            assert_eq!(one.get(&()), Some(value));
        }
        let few: ReadCache<u32, u32> = ReadCache::new(1, 8);
        (0..100).for_each(|n| few.insert(few.epoch(), n, n));
        assert!((1..=8).contains(&few.iter().count()));
    }

    /// Every order of the steps of two commits and of a read: no order leaves a stale value.
    #[test]
    fn no_order_of_a_read_and_commits_leaves_a_stale_value() {
        const STEPS: u32 = 7;
        let mut cached = 0;
        for order in (0_u32..1 << STEPS).filter(|order| order.count_ones() == 3) {
            let cache: ReadCache<(), u8> = ReadCache::new(1, 1);
            let (mut stored, mut read_in, mut read) = (0, Epoch::default(), 0);
            let (mut of_reader, mut of_writer) = (0..3, 0..4);
            for step in 0..STEPS {
                if order >> step & 1 == 1 {
                    match of_reader.next().unwrap() {
                        0 => read_in = cache.epoch(),
                        1 => read = stored,
                        _ => cache.insert(read_in, (), read),
                    }
                } else if of_writer.next().unwrap() % 2 == 0 {
                    stored += 1;
                } else {
                    cache.invalidate(&());
                }
            }
            let value = cache.get(&());
            assert!(value.is_none_or(|value| value == stored), "order {order:07b}");
            cached += usize::from(value.is_some());
        }
        assert_eq!(cached, 1, "only a read after the last invalidation is kept");
    }
}
