//! What a seal has done, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keepfast_framework::seal::SealErrorClass;

use crate::metrics::{Counter, Summary, Timing};

/// The names of the classes of failures.
const CLASSES: [&str; 6] = ["unreachable", "throttled", "denied", "wrong_key", "misconfigured", "crashed"];
/// The names of [`Operation`]s.
const OPERATIONS: [&str; 3] = ["wrap", "unwrap", "current_key"];

/// A call of a seal.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Wrap,
    Unwrap,
    CurrentKey,
}

/// Counts of one seal.
#[derive(Default)]
pub(crate) struct SealCounts {
    errors: [[AtomicU64; CLASSES.len()]; OPERATIONS.len()],
    timings: [Timing; OPERATIONS.len()],
    /// New keys of the slot.
    pub(crate) renewals: Counter,
    /// Unseals of the server.
    pub(crate) unseals: Counter,
    lag: AtomicU64,
}

impl SealCounts {
    /// Counts a failure.
    pub(crate) fn failed(&self, operation: Operation, class: SealErrorClass) {
        let at = CLASSES.iter().position(|name| *name == class.name());
        let errors = self.errors.get(operation as usize);
        if let Some(count) = errors.zip(at).and_then(|(errors, at)| errors.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records the time of a call that has ended.
    pub(super) fn ran(&self, operation: Operation, took: Duration) {
        if let Some(timing) = self.timings.get(operation as usize) {
            timing.record(took);
        }
    }

    /// Records by how many root keys the key of the slot is older than the current one.
    pub(crate) fn set_lag(&self, generations: u64) {
        self.lag.store(generations, Ordering::Relaxed);
    }

    /// See [`set_lag`](Self::set_lag).
    pub(crate) fn lag(&self) -> u64 {
        self.lag.load(Ordering::Relaxed)
    }

    /// The failures by operation and class.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        OPERATIONS.into_iter().zip(&self.errors).flat_map(|(operation, errors)| {
            let of =
                move |(class, count): (&'static str, &AtomicU64)| (operation, class, count.load(Ordering::Relaxed));
            CLASSES.into_iter().zip(errors).map(of)
        })
    }

    /// The times by operation.
    pub(crate) fn times(&self) -> impl Iterator<Item = (&'static str, Summary)> {
        OPERATIONS.into_iter().zip(&self.timings).map(|(operation, timing)| (operation, timing.read()))
    }

    /// Ends an interval of the times.
    pub(crate) fn turn(&self) {
        self.timings.iter().for_each(Timing::turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_operation_and_class() {
        let counts = SealCounts::default();
        for class in [
            SealErrorClass::Unreachable,
            SealErrorClass::Throttled(None),
            SealErrorClass::Denied,
            SealErrorClass::WrongKey,
            SealErrorClass::Misconfigured,
            SealErrorClass::Crashed,
            SealErrorClass::Crashed,
        ] {
            counts.failed(Operation::Unwrap, class);
        }
        counts.failed(Operation::Wrap, SealErrorClass::Denied);
        counts.failed(Operation::CurrentKey, SealErrorClass::Denied);
        let of = |operation| counts.errors().filter(move |(of, ..)| *of == operation).map(|(.., count)| count);
        assert_eq!(of("unwrap").collect::<Vec<_>>(), [1, 1, 1, 1, 1, 2]);
        assert_eq!(of("wrap").chain(of("current_key")).collect::<Vec<_>>(), [0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn calls_are_timed_by_operation() {
        let counts = SealCounts::default();
        counts.ran(Operation::Wrap, Duration::from_millis(3));
        let times: Vec<_> = counts.times().map(|(operation, time)| (operation, time.count)).collect();
        assert_eq!(times, [("wrap", 1), ("unwrap", 0), ("current_key", 0)]);
    }
}
