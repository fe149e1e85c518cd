//! Client-side rate limit (`VAULT_RATE_LIMIT`).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A sustained rate and a burst.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// Calls per second; above 0.
    pub rate: f64,
    /// Calls that may follow without a pause after an idle time; at least 1.
    pub burst: u32,
}

impl RateLimit {
    /// Parses `rate` or `rate:burst`, as in `VAULT_RATE_LIMIT`; the default burst is the rate in whole calls.
    pub fn parse(text: &str) -> Option<Self> {
        let (rate, burst) = match text.split_once(':') {
            Some((rate, burst)) => (rate.parse().ok()?, Some(burst.parse().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let usable = |rate: f64| rate.is_finite() && rate > 0.0;
        // A rate beyond the range is a burst of `u32::MAX`.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above, and it saturates")]
        let burst = burst.unwrap_or(rate as u32).max(1);
        usable(rate).then_some(Self { rate, burst })
    }
}

/// A token bucket, shared by all clones of a client.
pub(crate) struct Bucket {
    limit: RateLimit,
    left: Mutex<Remaining>,
}

struct Remaining {
    calls: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket; `now` counts from any fixed time.
    pub(crate) fn full(limit: RateLimit, now: Duration) -> Self {
        Self { limit, left: Mutex::new(Remaining { calls: f64::from(limit.burst), at: now }) }
    }

    /// Takes one call and returns the time to wait before it.
    pub(crate) fn take(&self, now: Duration) -> Duration {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_sub(left.at).as_secs_f64();
        left.calls = (left.calls + since * self.limit.rate).min(f64::from(self.limit.burst)) - 1.0;
        left.at = left.at.max(now);
        Duration::try_from_secs_f64(-left.calls / self.limit.rate).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn parses_limits_like_vaults_clients() {
        assert_eq!(RateLimit::parse("10"), Some(RateLimit { rate: 10.0, burst: 10 }));
        assert_eq!(RateLimit::parse("0.5"), Some(RateLimit { rate: 0.5, burst: 1 }));
        assert_eq!(RateLimit::parse("2.5:7"), Some(RateLimit { rate: 2.5, burst: 7 }));
        for text in ["", "fast", "1:", "1:x", ":1", "0", "-1", "NaN", "inf", "1:-2", "1:2:3"] {
            assert_eq!(RateLimit::parse(text), None, "{text}");
        }
    }

    #[test]
    fn calls_beyond_the_burst_wait_for_the_rate() {
        let bucket = Bucket::full(RateLimit { rate: 2.0, burst: 2 }, Duration::ZERO);
        let waits: Vec<u128> = (0..4).map(|_| bucket.take(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [0, 0, 500, 1000]);
        // After an idle time there is one burst again, and no more.
        let later = Duration::from_secs(60);
        let waits: Vec<u128> = (0..3).map(|_| bucket.take(later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 500]);
    }
}
