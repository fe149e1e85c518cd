//! A transport that times another one.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_framework::Clock;
use keepfast_storage::{Index, Member, SnapshotParts, StorageError, Transport};

use super::Metrics;

/// The clock, and the metrics that record what it times.
#[derive(Clone)]
pub(crate) struct Observed {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
}

/// A transport whose calls are timed.
pub(crate) struct TimedTransport {
    inner: Arc<dyn Transport>,
    by: Observed,
}

impl TimedTransport {
    /// A transport that times `inner`.
    pub(crate) fn new(inner: Arc<dyn Transport>, by: Observed) -> Self {
        TimedTransport { inner, by }
    }
}

#[async_trait]
impl Transport for TimedTransport {
    fn send(&self, to: &Member, message: Bytes) {
        self.inner.send(to, message);
    }

    async fn send_snapshot(&self, to: &Member, head: Bytes, parts: Box<dyn SnapshotParts>) -> Result<(), StorageError> {
        self.by.metrics.cluster.snapshot.of(&*self.by.clock, self.inner.send_snapshot(to, head, parts)).await
    }

    async fn propose(&self, leader: &Member, batch: Bytes) -> Result<Index, StorageError> {
        self.by.metrics.cluster.commit.of(&*self.by.clock, self.inner.propose(leader, batch)).await
    }

    async fn read_index(&self, leader: &Member) -> Result<Index, StorageError> {
        self.by.metrics.cluster.read_index.of(&*self.by.clock, self.inner.read_index(leader)).await
    }
}
