//! The clocks of the driver: one that counts while the machine sleeps, for timeouts and leases, and the wall clock, which
//! shows that a machine was frozen without it.

use keepfast_consensus::Mono;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The clocks may part by this many microseconds between two readings before a lease is given up.
const MOST_APART: i64 = 500_000;

/// The wall clock minus the other one, in microseconds.
pub(super) fn offset() -> i64 {
    micros(clock_gettime(ClockId::Realtime)).saturating_sub(micros(clock_gettime(ClockId::Boottime)))
}

/// Whether the clocks have parted since they had this offset.
pub(super) fn have_parted_since(before: i64) -> bool {
    offset().saturating_sub(before).saturating_abs() > MOST_APART
}

/// The time since the start of the machine.
pub(crate) fn now() -> Mono {
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
        self.offset.saturating_sub(before).saturating_abs() > MOST_APART
    }

    /// The wall clock minus the other one, at the last reading.
    pub(super) fn offset(&self) -> i64 {
        self.offset
    }
}
