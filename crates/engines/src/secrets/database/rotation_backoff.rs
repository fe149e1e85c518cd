//! The pauses between attempts to decide a rotation of an administrator's password, so that failed logins do not lock
//! the account (`FAILED_LOGIN_ATTEMPTS` of MySQL, PAM and LDAP behind PostgreSQL).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::Timestamp;
use parking_lot::Mutex;

/// The pause after the first failure; it doubles with each, up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// The pause after this number of failures.
pub(super) fn pause(failures: u32) -> Duration {
    PAUSE.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(MAX_PAUSE)
}

/// The state of undecided rotations in this process, by connection.
#[derive(Clone, Default)]
pub(super) struct RotationBackoff(Arc<Mutex<HashMap<String, Attempts>>>);

#[derive(Default)]
struct Attempts {
    failures: u32,
    not_before: Option<Timestamp>,
    /// Whether the second password was the last one that worked.
    second_works: bool,
}

impl RotationBackoff {
    /// Whether the pause after the last failure is over.
    pub(super) fn is_due(&self, name: &str, now: Timestamp) -> bool {
        self.0.lock().get(name).and_then(|attempts| attempts.not_before).is_none_or(|at| at <= now)
    }

    /// Counts a failure and starts the next pause.
    pub(super) fn failed(&self, name: &str, now: Timestamp) {
        let mut all = self.0.lock();
        let attempts = all.entry(name.to_owned()).or_default();
        attempts.failures = attempts.failures.saturating_add(1);
        attempts.not_before = Some(now.after(pause(attempts.failures)));
    }

    /// Clears the state of a connection whose rotation is decided or whose settings have changed.
    pub(super) fn clear(&self, name: &str) {
        self.0.lock().remove(name);
    }

    /// Records which password of an undecided connection works.
    pub(super) fn record_working(&self, name: &str, is_second: bool) {
        self.0.lock().entry(name.to_owned()).or_default().second_works = is_second;
    }

    /// Whether the second password must be tried first.
    pub(super) fn second_works(&self, name: &str) -> bool {
        self.0.lock().get(name).is_some_and(|attempts| attempts.second_works)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let seconds: Vec<u64> = [1, 2, 3, 9, 10, u32::MAX].map(|n| pause(n).as_secs()).to_vec();
        assert_eq!(seconds, [10, 20, 40, 2560, 3600, 3600]);
    }

    #[test]
    fn attempts_of_a_day_are_few_and_a_change_resets_the_pause() {
        let backoff = RotationBackoff::default();
        let at = |second: u64| Timestamp::EPOCH.after(Duration::from_secs(second));
        let mut attempts = 0;
        for second in 0..86_400 {
            if backoff.is_due("db", at(second)) {
                backoff.failed("db", at(second));
                attempts += 1;
            }
        }
        assert!((20..40).contains(&attempts), "{attempts}");
        assert!(backoff.is_due("other", at(0)));
        backoff.clear("db");
        assert!(backoff.is_due("db", at(0)));
    }
}
