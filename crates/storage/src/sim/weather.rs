//! How bad a simulation is. Each seed draws its own.

use keepfast_consensus::{Chance, sim::Rng};

/// Rates of faults and sizes. Times are microseconds of the simulation.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    /// Nodes, all of which are members if they can.
    pub(super) nodes: usize,
    /// Those of them that are voters.
    pub(super) voters: usize,
    /// Messages of 10,000 that are lost, or late.
    pub(super) lost: u64,
    pub(super) late: u64,
    /// The longest delay of a late message.
    pub(super) latest: u64,
    /// Parts of snapshots of 10,000 in which a bit is changed.
    pub(super) damaged_parts: u64,
    /// Syncs of 10,000 that take long, and how long at most.
    pub(super) stall: u64,
    pub(super) longest_stall: u64,
    /// The longest time in which committed entries wait for the state.
    pub(super) slowest_apply: u64,
    /// The mean time between two faults.
    pub(super) fault_every: u64,
    /// The weights of the kinds of faults, as `faults.rs` has them.
    pub(super) weights: [u64; 9],
    /// The mean time between two operations on the cluster.
    pub(super) operate_every: u64,
    /// Whether members change.
    pub(super) changes_members: bool,
    /// The longest time between two calls of clients.
    pub(super) call_every: u64,
    /// The secrets that clients write and read.
    pub(super) registers: usize,
    /// The largest value in bytes.
    pub(super) value: u64,
    /// The bytes of entries that a leader has for followers.
    pub(super) window: u64,
    /// The size of a segment of the log, and the time after which the state is durable.
    pub(super) segment: u64,
    pub(super) flush: u64,
    /// The clocks run this many millionths fast or slow, at most.
    pub(super) drift: u64,
}

impl Weather {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let voters = [1, 3, 3, 3, 3, 3, 3, 5][rng.below(8) as usize];
        let nodes = if voters == 1 { 2 } else { voters + usize::from(rng.hits(3000)) };
        let level = |rng: &mut Rng, most: u64| if rng.hits(5000) { rng.below(most) } else { 0 };
        let weight = |rng: &mut Rng| if rng.hits(6000) { rng.range(1, 10) } else { 0 };
        Self {
            nodes,
            voters,
            lost: level(rng, 500),
            late: 20 + level(rng, 400),
            latest: rng.range(20_000, 900_000),
            damaged_parts: level(rng, 8000),
            stall: level(rng, 400),
            longest_stall: rng.range(50_000, 2_000_000),
            slowest_apply: [2_000, 20_000, 200_000][rng.below(3) as usize],
            fault_every: rng.range(60_000, 400_000),
            weights: std::array::from_fn(|_| weight(rng)),
            operate_every: rng.range(200_000, 2_000_000),
            changes_members: rng.hits(6000),
            call_every: rng.range(10_000, 60_000),
            registers: rng.range(2, 7) as usize,
            value: [40, 400, 4_000][rng.below(3) as usize],
            window: 1 << rng.range(11, 17),
            segment: 1 << rng.range(12, 17),
            flush: rng.range(50_000, 2_000_000),
            drift: rng.below(10_000),
        }
    }

    /// The faults are over.
    pub(super) fn calm(&mut self) {
        (self.lost, self.late, self.damaged_parts, self.stall) = (0, 0, 0, 0);
        self.slowest_apply = 2_000;
        self.changes_members = false;
        self.operate_every = 200_000;
        self.call_every = 30_000;
    }
}
