//! Joins the leaders of the configuration (`retry_join`), again and again until one responds.

use std::sync::{Arc, Weak};
use std::time::Duration;

use keepfast_crypto::random;
use keepfast_framework::Error;

use super::client::JoinTarget;
use super::joiner;
use super::pending::Intent;
use crate::lifecycle::Lifecycle;

/// The longest pause between two attempts.
const MAX_PAUSE: u64 = 15;

/// Tries until a leader has responded, or the node is initialized.
pub(crate) fn start(server: &Arc<Lifecycle>, targets: Vec<JoinTarget>, non_voter: bool) {
    if targets.is_empty() || !server.administration.joining.begin_retry() {
        return;
    }
    let server = Arc::downgrade(server);
    tokio::spawn(async move { run(server, Intent { targets, non_voter }).await });
}

// The lifecycle is not kept: a server that is dropped ends its attempts.
async fn run(server: Weak<Lifecycle>, intent: Intent) {
    for attempt in 0.. {
        let Some(server) = server.upgrade() else { return };
        match joiner::request(&server, intent.clone()).await {
            Ok(()) => {
                server.administration.joining.end_retry();
                return;
            }
            Err(error) => log(&error, attempt),
        }
        let clock = server.parts.clock.clone();
        drop(server);
        let next = clock.now().after(pause(attempt, u32::from_le_bytes(random::bytes())));
        clock.sleep_until(next).await;
    }
}

fn log(error: &Error, attempt: u32) {
    let cause = error.cause().map(ToString::to_string).unwrap_or_default();
    tracing::warn!(%error, cause, attempt, "no leader of retry_join was reached; trying again");
}

/// The pause after an attempt: it doubles from a second to [`MAX_PAUSE`], and between half and all of that is waited, at
/// least a second.
pub(super) fn pause(attempt: u32, chance: u32) -> Duration {
    let longest = 2_u64.saturating_pow(attempt).min(MAX_PAUSE) * 1000;
    let part = longest / 2 + longest / 2 * u64::from(chance) / u64::from(u32::MAX);
    Duration::from_millis(part.max(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_from_a_second_to_fifteen_with_jitter() {
        let at = |attempt, chance| pause(attempt, chance).as_millis();
        assert_eq!([at(0, 0), at(0, u32::MAX)], [1000, 1000]);
        assert_eq!([at(2, 0), at(2, u32::MAX)], [2000, 4000]);
        assert_eq!([at(40, 0), at(40, u32::MAX / 2), at(u32::MAX, u32::MAX)], [7500, 11_249, 15_000]);
    }
}
