//! When a call is tried again, and how long to wait before.

use std::time::Duration;

/// Whether an answer with this status may turn out otherwise in a moment: 412 (a node has not yet seen a
/// write) and every 5xx but 501, as Vault's client has it.
pub(crate) fn is_worthwhile(status: u16) -> bool {
    status == 412 || (status >= 500 && status != 501)
}

/// The pause before attempt number `attempt + 1`: a second, two, three, with up to half as much again
/// according to `chance`, so that clients of one outage do not come back together.
pub(crate) fn pause(attempt: u32, chance: u8) -> Duration {
    let base = Duration::from_millis(1000 + u64::from(chance) * 500 / 255);
    base * attempt.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        let again: Vec<u16> = [200, 204, 400, 403, 404, 412, 429, 473, 500, 501, 502, 503].into_iter().filter(|s| is_worthwhile(*s)).collect();
        assert_eq!(again, [412, 500, 502, 503]);
    }

    #[test]
    fn pauses_grow_and_spread() {
        assert_eq!(pause(1, 0), Duration::from_millis(1000));
        assert_eq!(pause(1, 255), Duration::from_millis(1500));
        assert_eq!(pause(3, 0), Duration::from_millis(3000));
    }
}
