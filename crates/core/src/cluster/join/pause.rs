//! The pauses between the attempts to join or to rejoin a cluster.

use std::time::Duration;

/// The longest pause between two attempts, in seconds.
const MAX_PAUSE: u64 = 15;

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
