//! A backend that times another one.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_framework::Clock;
use keepfast_storage::{Backend, Batch, Index, Key, Page, StorageError, Watch};

use super::{Metrics, Timing};

/// A backend that times another one.
pub struct Timed {
    inner: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Timed {
    /// Times this backend.
    pub fn new(inner: Arc<dyn Backend>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Timed { inner, clock, metrics }
    }

    async fn time<T>(&self, timing: &Timing, work: impl Future<Output = T>) -> T {
        let begun = self.clock.now();
        let outcome = work.await;
        timing.record(self.clock.now().since(begun));
        outcome
    }
}

#[async_trait]
impl Backend for Timed {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        self.time(&self.metrics.backend.get, self.inner.get(key)).await
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.time(&self.metrics.backend.list, self.inner.list(prefix, page)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        self.time(&self.metrics.backend.commit, self.inner.commit(batch)).await
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.inner.watch(watcher);
    }
}
