//! Waiting for a server: the one file of the client and the command line in which time passes. They have no
//! clock of the house, because what they wait for is another machine.

use std::time::Duration;

/// Lets some time pass between two questions to a server.
pub async fn pause(time: Duration) {
    #[allow(clippy::disallowed_methods, reason = "see the head of this file")]
    tokio::time::sleep(time).await;
}

/// What `work` gives, or `None` when it takes longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = pause(limit) => None,
    }
}
