//! What a node of a cluster sends to other members, and its leaderships.

use std::future::Future;

use keepfast_framework::Clock;

use super::Labelled;
use super::timing::{Counter, Timing};

/// What happens between this node and the other members.
#[derive(Default)]
pub(crate) struct ClusterTimings {
    /// Requests that the leader runs for this node.
    pub(crate) forward: Call,
    /// Batches that the leader commits for this node.
    pub(crate) commit: Call,
    /// The same batches, by the row whose handler wrote them.
    pub(crate) batches: Labelled,
    /// Calls of the leader for the index that reads must see; reads that wait at the same time share one.
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
        let result = self.timed(clock, call).await;
        if result.is_err() {
            self.fail();
        }
        result
    }

    /// Times a call. After a failure the caller may try again, and counts the last one with [`fail`](Self::fail).
    pub(crate) async fn timed<T, E>(
        &self,
        clock: &dyn Clock,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let started = clock.now();
        let result = call.await;
        if result.is_ok() {
            self.took.record(clock.now().since(started));
        }
        result
    }

    /// Counts a failure.
    pub(crate) fn fail(&self) {
        self.failed.add();
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

    pub(super) fn counters(&self) -> [(&'static str, &Counter); 5] {
        [
            ("ha.rpc.client.forward.errors", &self.forward.failed),
            ("ha.rpc.client.commit.errors", &self.commit.failed),
            ("ha.rpc.client.read_index.errors", &self.read_index.failed),
            ("ha.rpc.client.snapshot.errors", &self.snapshot.failed),
            ("raft.leader_changes", &self.leader_changes),
        ]
    }
}
