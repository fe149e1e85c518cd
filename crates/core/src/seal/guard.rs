//! Notices that the barrier of a serving node has failed closed.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use keepfast_storage::Barrier;

/// A server that acts when its barrier has failed closed.
#[async_trait]
pub(crate) trait AfterFailure: Send + Sync + 'static {
    /// Seals the server, or opens it again after a replacement of all records.
    async fn after_failure(&self, barrier: &Arc<Barrier>);
}

/// Calls the server when its barrier has failed closed, until it is dropped.
pub(crate) struct SealGuard(tokio::task::JoinHandle<()>);

impl Drop for SealGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl SealGuard {
    /// Waits for the failure of this barrier.
    pub(crate) fn start(server: Weak<dyn AfterFailure>, barrier: Arc<Barrier>) -> Self {
        SealGuard(tokio::spawn(async move {
            barrier.failed_closed().await;
            // In its own task: the seal drops this guard.
            tokio::spawn(async move {
                if let Some(server) = server.upgrade() {
                    server.after_failure(&barrier).await;
                }
            });
        }))
    }
}
