//! When a call is tried again, and how long to wait before.

use std::time::Duration;

/// Whether an answer with this status may turn out otherwise in a moment: 412 (a node has not yet seen a
/// write) and every 5xx but 501, as Vault's client has it.
pub(crate) fn is_worthwhile(status: u16) -> bool {
    status == 412 || (status >= 500 && status != 501)
}

/// The pause before attempt number `attempt + 1`: `wait`, twice `wait`, and so on, with up to half as much
/// again according to `chance`, so that clients of one outage do not come back together.
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
