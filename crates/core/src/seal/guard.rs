//! Notices that the barrier of a serving node has failed closed.

use std::future::Future;
use std::sync::Arc;

use keepfast_storage::Barrier;

/// Runs a task when a barrier has failed closed, until it is dropped: the server is sealed, or opened again after a
/// replacement of all records.
pub(crate) struct SealGuard(tokio::task::JoinHandle<()>);

impl Drop for SealGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl SealGuard {
    /// Waits for the failure of this barrier.
    pub(crate) fn start(barrier: Arc<Barrier>, after_failure: impl Future<Output = ()> + Send + 'static) -> Self {
        SealGuard(tokio::spawn(async move {
            barrier.failed_closed().await;
            // In its own task: the seal drops this guard.
            tokio::spawn(after_failure);
        }))
    }
}
