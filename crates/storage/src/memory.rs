//! A backend in memory, for development mode, for tests, and as the model that other backends are compared with.

use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
    sync::Weak,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use crate::{
    Backend, Batch, Digest, Index, Key, Page, Read, StorageError, Watch, Write, barrier,
    listing::{self, Cursor},
    watch::Watchers,
};

/// Stores all records in memory and loses them when dropped.
#[derive(Default)]
pub struct MemoryBackend {
    state: RwLock<State>,
    watchers: Watchers,
}

#[derive(Default)]
struct State {
    records: BTreeMap<Key, Bytes>,
    last: u64,
    /// Encryptions per key term.
    encryptions: BTreeMap<u32, u64>,
}

impl MemoryBackend {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces all records by those of `other`, as a restore of a snapshot does.
    pub fn replace_with(&self, other: &Self) {
        let records = other.state.read().records.clone();
        let mut state = self.state.write();
        state.records = records;
        state.last += 1;
        self.watchers.notify_replaced(Index(state.last));
    }

    /// All records as stored, by key.
    pub fn records(&self) -> Vec<(Key, Bytes)> {
        self.state.read().records.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        Ok(self.state.read().records.get(key).cloned())
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.state.read().list(prefix, page)
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        let mut state = self.state.write();
        if !state.holds(&batch.reads)? {
            return Err(StorageError::Conflict);
        }
        if batch.writes.is_empty() {
            return Ok(Index(state.last));
        }
        for write in &batch.writes {
            if let Write::Put { value, .. } = write
                && let Some(term) = barrier::key_term(value)
            {
                *state.encryptions.entry(term).or_default() += 1;
            }
            match write {
                Write::Put { key, value } => state.records.insert(key.clone(), value.clone()),
                Write::Delete { key } => state.records.remove(key),
            };
        }
        state.last += 1;
        let index = Index(state.last);
        // Still under the lock, so that watchers receive batches in order; readers may wait for a moment.
        self.watchers.notify(index, &batch.writes);
        Ok(index)
    }

    fn encryptions(&self, key_term: u32) -> Result<u64, StorageError> {
        Ok(self.state.read().encryptions.get(&key_term).copied().unwrap_or_default())
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.watchers.add(watcher);
    }
}

impl State {
    fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        let mut cursor = MapCursor { records: &self.records, range: None };
        listing::names(&mut cursor, prefix.as_str(), page)
    }

    fn holds(&self, reads: &[Read]) -> Result<bool, StorageError> {
        for read in reads {
            let holds = match read {
                Read::Value { key, seen } => self.records.get(key).map(|value| Digest::of(value)) == *seen,
                Read::Content { key, seen } => self.records.get(key).is_some_and(|v| Digest::of_content(v) == *seen),
                Read::Listing { prefix, page, seen } => Digest::of_names(&self.list(prefix, page)?) == *seen,
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

struct MapCursor<'a> {
    records: &'a BTreeMap<Key, Bytes>,
    range: Option<btree_map::Range<'a, Key, Bytes>>,
}

impl Cursor for MapCursor<'_> {
    fn seek(&mut self, from: Bound<&str>) -> Result<(), StorageError> {
        self.range = Some(self.records.range::<str, _>((from, Bound::Unbounded)));
        Ok(())
    }

    fn next(&mut self, path: &mut String) -> Result<bool, StorageError> {
        let Some((key, _)) = self.range.as_mut().and_then(Iterator::next) else {
            return Ok(false);
        };
        path.clear();
        path.push_str(key.as_str());
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::MemoryBackend;

    crate::backend_suite!(memory, || async { (Arc::new(MemoryBackend::new()), ()) });
}
