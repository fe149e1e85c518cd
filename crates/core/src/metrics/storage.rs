//! A backend that times another one: the operations of the barrier and its own.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_framework::Clock;
use keepfast_storage::{Backend, Batch, Consensus, Index, Key, Page, Role, StorageError, Watch, Write};
use tokio::sync::watch;

use super::{Metrics, Timing, standby};

/// The prefix of the barrier's own records, which do not count as traffic of the barrier.
const OWN: &str = "barrier/";

/// Timings of the storage, and of the barrier above it.
#[derive(Default)]
pub(crate) struct BackendTimings {
    /// Reads that no cache served.
    pub(crate) get: Timing,
    /// Lists of all names of a folder.
    pub(crate) list: Timing,
    /// Lists of some names of a folder.
    pub(crate) list_page: Timing,
    /// Commits, until they are durable.
    pub(crate) commit: Timing,
    /// Written records; each takes as long as its commit.
    pub(crate) put: Timing,
    /// Deleted records; each takes as long as its commit.
    pub(crate) delete: Timing,
    /// Reads of the barrier; those that the cache served count as zero.
    pub(crate) barrier_get: Timing,
}

impl BackendTimings {
    /// All timings, under the name of the barrier where it has one.
    pub(super) fn all(&self) -> [(&'static str, &Timing); 7] {
        [
            ("get", &self.get),
            ("transaction", &self.commit),
            ("barrier.get", &self.barrier_get),
            ("barrier.list", &self.list),
            ("barrier.list_page", &self.list_page),
            ("barrier.put", &self.put),
            ("barrier.delete", &self.delete),
        ]
    }
}

/// A backend that times another one.
pub(crate) struct Timed {
    inner: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// The role of this node; `None` without a cluster.
    roles: Option<watch::Receiver<Role>>,
}

impl Timed {
    /// A backend that times `inner`.
    pub(crate) fn new(inner: Arc<dyn Backend>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let roles = inner.roles();
        Timed { inner, clock, metrics, roles }
    }

    fn is_standby(&self) -> bool {
        self.roles.as_ref().is_some_and(|roles| !roles.borrow().is_leading())
    }
}

#[async_trait]
impl Backend for Timed {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        let started = self.clock.now();
        let outcome = self.inner.get(key).await;
        let took = self.clock.now().since(started);
        self.metrics.backend.get.record(took);
        if !key.as_str().starts_with(OWN) {
            self.metrics.backend.barrier_get.record(took);
        }
        outcome
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        let started = self.clock.now();
        let outcome = self.inner.list(prefix, page).await;
        let timings = &self.metrics.backend;
        let timing = if page.limit.is_some() { &timings.list_page } else { &timings.list };
        timing.record(self.clock.now().since(started));
        outcome
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        let (mut puts, mut deletes) = (0, 0);
        for write in &batch.writes {
            match write {
                Write::Put { key, .. } => puts += u64::from(!key.as_str().starts_with(OWN)),
                Write::Delete { .. } => deletes += 1,
            }
        }
        if !batch.writes.is_empty() && self.is_standby() {
            standby::count(&self.metrics.cluster.batches);
        }
        let started = self.clock.now();
        let outcome = self.inner.commit(batch).await;
        let took = self.clock.now().since(started);
        let timings = &self.metrics.backend;
        timings.commit.record(took);
        timings.put.record_each(puts, took);
        timings.delete.record_each(deletes, took);
        outcome
    }

    fn encryptions(&self, key_term: u32) -> Result<u64, StorageError> {
        self.inner.encryptions(key_term)
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.inner.watch(watcher);
    }

    fn roles(&self) -> Option<watch::Receiver<Role>> {
        self.inner.roles()
    }

    fn consensus(&self) -> Option<Arc<dyn Consensus>> {
        self.inner.consensus()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keepfast_framework::clock::TestClock;
    use keepfast_storage::MemoryBackend;

    use super::*;

    /// A backend whose commits take as long as `clock` advances during them.
    struct Slow(MemoryBackend, TestClock, parking_lot::Mutex<Vec<u64>>);

    #[async_trait]
    impl Backend for Slow {
        async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
            self.0.get(key).await
        }

        async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
            self.0.list(prefix, page).await
        }

        async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
            let millis = self.2.lock().remove(0);
            self.1.advance(Duration::from_millis(millis));
            self.0.commit(batch).await
        }

        fn watch(&self, watcher: Weak<dyn Watch>) {
            self.0.watch(watcher);
        }
    }

    fn batch(puts: &[&str], deletes: &[&str]) -> Batch {
        let key = |name: &&str| Key::new(*name).unwrap();
        let puts = puts.iter().map(|name| Write::Put { key: key(name), value: Bytes::from_static(b"v") });
        let deletes = deletes.iter().map(|name| Write::Delete { key: key(name) });
        Batch { reads: Vec::new(), writes: puts.chain(deletes).collect() }
    }

    #[tokio::test]
    async fn a_delete_is_timed_by_its_own_commit() {
        let (clock, metrics) = (TestClock::default(), Arc::<Metrics>::default());
        let slow = Slow(MemoryBackend::new(), clock.clone(), parking_lot::Mutex::new(vec![7, 500, 11, 3]));
        let timed = Timed::new(Arc::new(slow), Arc::new(clock), metrics.clone());
        timed.commit(batch(&["a", "b"], &[])).await.unwrap();
        timed.commit(batch(&["barrier/keyring"], &[])).await.unwrap();
        timed.commit(batch(&["c"], &["a"])).await.unwrap();
        timed.commit(batch(&[], &["b", "c"])).await.unwrap();
        let recorded = |timing: &Timing| {
            let read = timing.read();
            (read.count, read.sum, read.interval.min, read.interval.max)
        };
        assert_eq!(recorded(&metrics.backend.delete), (3, 17.0, 3.0, 11.0));
        assert_eq!(recorded(&metrics.backend.put), (3, 25.0, 7.0, 11.0));
        assert_eq!(recorded(&metrics.backend.commit), (4, 521.0, 3.0, 500.0));
    }
}
