//! Pauses between attempts to reach a member.

use std::time::Duration;

use keepfast_crypto::random;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// The pause after this number of failures in a row: doubled each time, and between half and all of that, so that the
/// nodes of a cluster do not dial at the same time.
pub(super) fn pause(failures: u32) -> Duration {
    let longest = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST);
    let half = longest / 2;
    let spread = usize::try_from(half.as_millis()).unwrap_or(1).max(1);
    half + Duration::from_millis(random::below(spread) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_differ() {
        for (failures, most) in [(0, 50), (1, 50), (2, 100), (3, 200), (6, 1000), (u32::MAX, 1000)] {
            let most = Duration::from_millis(most);
            let pauses: Vec<Duration> = (0..50).map(|_| pause(failures)).collect();
            assert!(pauses.iter().all(|pause| (most / 2..most).contains(pause)), "{failures}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }
}
