//! The clocks of the driver: one that counts while the machine sleeps, for timeouts and leases, and the wall clock, which
//! shows that a machine was frozen without it.

use keepfast_consensus::Mono;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::simulated;

/// The clocks may part by this many microseconds between two readings before a lease is given up: less than a fifth of the
/// shortest election timeout that a list may have, by which a lease ends before another node can lead.
const MOST_APART: i64 = 15_000;

/// Whether the clocks have parted by this much.
fn is_apart(by: i64) -> bool {
    by.saturating_abs() > MOST_APART && !planted!(FreezeUnnoticed)
}

/// The wall clock minus the other one, in microseconds.
pub(super) fn offset() -> i64 {
    if let Some(clocks) = simulated::clocks() {
        return clocks.offset;
    }
    micros(clock_gettime(ClockId::Realtime)).saturating_sub(micros(clock_gettime(ClockId::Boottime)))
}

/// Whether the clocks have parted since they had this offset.
pub(super) fn have_parted_since(before: i64) -> bool {
    is_apart(offset().saturating_sub(before))
}

/// The time since the start of the machine.
pub(crate) fn now() -> Mono {
    if let Some(clocks) = simulated::clocks() {
        return Mono(clocks.now);
    }
    Mono(micros(clock_gettime(ClockId::Boottime)).unsigned_abs())
}

fn micros(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1000)
}

/// Compares the clocks.
pub(super) struct Clocks {
    /// The wall clock minus the other one, at the last reading.
    offset: i64,
}

impl Clocks {
    pub(super) fn new() -> Self {
        Self { offset: offset() }
    }

    /// Whether the clocks have parted since the last call.
    pub(super) fn have_parted(&mut self) -> bool {
        let before = std::mem::replace(&mut self.offset, offset());
        is_apart(self.offset.saturating_sub(before))
    }

    /// The wall clock minus the other one, at the last reading.
    pub(super) fn offset(&self) -> i64 {
        self.offset
    }
}

#[cfg(test)]
mod tests {
    use keepfast_consensus::ELECTION_MS;

    use super::*;

    /// A lease ends after four fifths of the shortest election timeout.
    #[test]
    fn a_freeze_that_no_clock_shows_is_shorter_than_the_rest_of_a_timeout() {
        assert!(MOST_APART * 5 < i64::from(*ELECTION_MS.start()) * 1000);
        assert!(is_apart(MOST_APART + 1) && is_apart(-MOST_APART - 1) && !is_apart(MOST_APART));
    }
}
