//! The clocks of a node.

use crate::simulated::Clocks;

/// One that counts from a start of its own and drifts, and a wall clock.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) start: u64,
    /// Millionths by which it runs, 1,000,000 for an exact one.
    pub(super) rate: u64,
    /// The time during which the machine was frozen.
    pub(super) frozen: u64,
    /// What steps have changed of the wall clock.
    pub(super) steps: i64,
}

impl Clock {
    /// Both clocks, at a time of the simulation in microseconds.
    pub(super) fn read(&self, time: u64) -> Clocks {
        let now = self.start + (time - self.frozen) * self.rate / 1_000_000;
        Clocks { now, offset: time as i64 - now as i64 + self.steps }
    }
}
