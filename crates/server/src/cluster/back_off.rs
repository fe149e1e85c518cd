//! Pauses between attempts to reach a member.

use std::time::Duration;

use keepfast_crypto::random;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// The time after which a connection has not failed: some end at once, after the handshake.
const LASTING: Duration = Duration::from_secs(5);

/// The connections to a member that failed in a row: they were not opened, or ended at once.
#[derive(Default)]
pub(super) struct Failures(u32);

impl Failures {
    /// Whether a connection that was open for this time has not failed.
    pub(super) fn is_lasting(open: Duration) -> bool {
        open >= LASTING
    }

    /// Counts a connection that failed. Returns the pause before the next one.
    pub(super) fn count(&mut self) -> Duration {
        self.0 = self.0.saturating_add(1);
        self.pause()
    }

    /// Whether a warning is due: one failure is frequent, when a member restarts.
    pub(super) fn is_second(&self) -> bool {
        self.0 == 2
    }

    /// The pause before the next connection: doubled by each failure, and between half and all of that, so that the
    /// nodes of a cluster do not dial at the same time.
    pub(super) fn pause(&self) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.0.saturating_sub(1).min(10)).min(LONGEST);
        let half = longest / 2;
        let spread = usize::try_from(half.as_millis()).unwrap_or(1).max(1);
        half + Duration::from_millis(random::below(spread) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_differ() {
        for (failures, most) in [(0, 50), (1, 50), (2, 100), (3, 200), (6, 1000), (u32::MAX, 1000)] {
            let most = Duration::from_millis(most);
            let pauses: Vec<Duration> = (0..50).map(|_| Failures(failures).pause()).collect();
            assert!(pauses.iter().all(|pause| (most / 2..most).contains(pause)), "{failures}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }

    #[test]
    fn the_second_failure_in_a_row_is_worth_a_warning() {
        let mut failures = Failures::default();
        let warns: Vec<bool> = (0..4).map(|_| (failures.count(), failures.is_second()).1).collect();
        assert_eq!(warns, [false, true, false, false]);
    }

    #[test]
    fn only_a_connection_that_lasts_has_not_failed() {
        assert!(!Failures::is_lasting(Duration::ZERO) && !Failures::is_lasting(LASTING - Duration::from_millis(1)));
        assert!(Failures::is_lasting(LASTING));
    }
}
