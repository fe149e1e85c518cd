//! Whether the leader has written what it writes before it serves.

use std::time::Duration;

use keepfast_framework::Clock;
use tokio::sync::watch;

/// The time in which a new leader must have taken over.
const WITHIN: Duration = Duration::from_secs(2);

/// Whether this node leads and has taken over. Until then it serves as a standby does: its memory follows the commits of
/// the former leader, and requests that write wait.
#[derive(Default)]
pub(crate) struct TakenOver(watch::Sender<bool>);

impl TakenOver {
    pub(crate) fn set(&self, has_taken_over: bool) {
        self.0.send_replace(has_taken_over);
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the takeover for a short time. Returns whether it has happened.
    pub(crate) async fn wait(&self, clock: &dyn Clock) -> bool {
        let mut changes = self.0.subscribe();
        tokio::select! {
            biased;
            changed = changes.wait_for(|is_set| *is_set) => changed.is_ok(),
            () = clock.sleep_until(clock.now().after(WITHIN)) => false,
        }
    }
}
