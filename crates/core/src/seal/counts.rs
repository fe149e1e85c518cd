//! What a seal has done, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use keepfast_framework::seal::SealErrorClass;

/// The names of the classes of failures.
const CLASSES: [&str; 6] = ["unreachable", "throttled", "denied", "wrong_key", "misconfigured", "crashed"];

/// Counts of one seal.
#[derive(Default)]
pub(crate) struct SealCounts {
    errors: [AtomicU64; CLASSES.len()],
    renewals: AtomicU64,
    unseals: AtomicU64,
}

impl SealCounts {
    pub(crate) fn failed(&self, class: SealErrorClass) {
        let at = CLASSES.iter().position(|name| *name == class.name());
        if let Some(count) = at.and_then(|at| self.errors.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn renewed(&self) {
        self.renewals.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unsealed(&self) {
        self.unseals.fetch_add(1, Ordering::Relaxed);
    }

    /// The failures by class.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CLASSES.into_iter().zip(&self.errors).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    /// New keys of the slot.
    pub(crate) fn renewals(&self) -> u64 {
        self.renewals.load(Ordering::Relaxed)
    }

    /// Unseals of the server.
    pub(crate) fn unseals(&self) -> u64 {
        self.unseals.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_failures_is_counted() {
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
            counts.failed(class);
        }
        assert_eq!(counts.errors().map(|(_, count)| count).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 2]);
    }
}
