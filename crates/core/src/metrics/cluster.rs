//! The metrics of what a node of a cluster sends to other members, and of its leaderships.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_framework::Clock;
use keepfast_storage::{Index, Member, SnapshotParts, StorageError, Transport};

use super::{Counter, Item, Metrics, Timing, Value};

/// What happens between this node and the other members.
#[derive(Default)]
pub(crate) struct ClusterTimings {
    /// Requests that the leader runs for this node.
    pub(crate) forward: Call,
    /// Batches that the leader commits for this node.
    pub(crate) commit: Call,
    /// Questions to the leader for the index that reads must see; reads that wait at the same time share one.
    pub(crate) read_index: Call,
    /// Snapshots sent to members that lack entries.
    pub(crate) snapshot: Call,
    /// The time that this node has led, at its end.
    pub(crate) leadership_lost: Timing,
    /// Takeovers that failed.
    pub(crate) setup_failed: Timing,
    /// Step-downs on request.
    pub(crate) step_down: Timing,
    /// Changes from one known leader to another.
    pub(crate) leader_changes: Counter,
}

/// Calls of other members.
#[derive(Default)]
pub(crate) struct Call {
    took: Timing,
    failed: Counter,
}

impl Call {
    /// Times a call, or counts its failure.
    pub(crate) async fn of<T, E>(&self, clock: &dyn Clock, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let started = clock.now();
        let result = call.await;
        match &result {
            Ok(_) => self.took.record(clock.now().since(started)),
            Err(_) => self.failed.add(),
        }
        result
    }
}

impl ClusterTimings {
    pub(super) fn all(&self) -> [(&'static str, &Timing); 7] {
        [
            ("ha.rpc.client.forward", &self.forward.took),
            ("ha.rpc.client.commit", &self.commit.took),
            ("ha.rpc.client.read_index", &self.read_index.took),
            ("ha.rpc.client.snapshot", &self.snapshot.took),
            ("core.leadership_lost", &self.leadership_lost),
            ("core.leadership_setup_failed", &self.setup_failed),
            ("core.step_down", &self.step_down),
        ]
    }

    fn counters(&self) -> [(&'static str, &Counter); 5] {
        [
            ("ha.rpc.client.forward.errors", &self.forward.failed),
            ("ha.rpc.client.commit.errors", &self.commit.failed),
            ("ha.rpc.client.read_index.errors", &self.read_index.failed),
            ("ha.rpc.client.snapshot.errors", &self.snapshot.failed),
            ("raft.leader_changes", &self.leader_changes),
        ]
    }

    /// All of them, with their values.
    pub(super) fn items(&self) -> impl Iterator<Item = Item> {
        let timings = self.all().into_iter().map(|(name, timing)| Item::new(name, Value::Summary(timing.read())));
        timings.chain(self.counters().into_iter().map(|(name, count)| Item::new(name, Value::Counter(count.read()))))
    }
}

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
