//! Timers and timeouts: the only file of the client and the command line that reads the system clock. They
//! wait for another machine, so a clock in tests would not help.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Waits for `time`, between two requests to a server.
pub async fn pause(time: Duration) {
    #[allow(clippy::disallowed_methods, reason = "see the documentation of this file")]
    tokio::time::sleep(time).await;
}

/// The time since the first call of this function in the process. It never goes back.
pub(crate) fn elapsed() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    #[allow(clippy::disallowed_methods, reason = "see the documentation of this file")]
    let now = Instant::now();
    now.saturating_duration_since(*START.get_or_init(|| now))
}
