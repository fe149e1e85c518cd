//! Waiting for a server: the one file of the client and the command line in which time passes. They have no
//! clock of the house, because what they wait for is another machine.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Lets some time pass between two questions to a server.
pub async fn pause(time: Duration) {
    #[allow(clippy::disallowed_methods, reason = "see the head of this file")]
    tokio::time::sleep(time).await;
}

/// The time since this program first asked, which never goes back.
pub(crate) fn elapsed() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    #[allow(clippy::disallowed_methods, reason = "see the head of this file")]
    let now = Instant::now();
    now.saturating_duration_since(*START.get_or_init(|| now))
}
