//! Retries: which calls, and after which backoff.

use std::time::Duration;

/// Whether a retry after this status may succeed: 412 (a node has not replicated a write yet) and every 5xx
/// except 501, like Vault's client.
pub(crate) fn is_worthwhile(status: u16) -> bool {
    status == 412 || (status >= 500 && status != 501)
}

/// The backoff before attempt `attempt + 1`: `wait`, twice `wait`, and so on. `chance` adds up to half as much,
/// so that the clients of one outage do not retry at the same time.
pub(crate) fn pause(wait: Duration, attempt: u32, chance: u8) -> Duration {
    let spread = wait / 2 * u32::from(chance) / 255;
    (wait + spread) * attempt.max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn statuses() {
        let again: Vec<u16> = [200, 204, 400, 403, 404, 412, 429, 473, 500, 501, 502, 503]
            .into_iter()
            .filter(|s| is_worthwhile(*s))
            .collect();
        assert_eq!(again, [412, 500, 502, 503]);
    }

    #[test]
    fn pauses_grow_and_spread() {
        let second = Duration::from_secs(1);
        assert_eq!(pause(second, 1, 0), second);
        assert_eq!(pause(second, 1, 255), Duration::from_millis(1500));
        assert_eq!(pause(second, 3, 0), 3 * second);
    }
}
