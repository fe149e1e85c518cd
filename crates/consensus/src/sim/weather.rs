//! How bad a simulation is. Each seed draws its own, so that some clusters see crashes alone, others a bad network.

use super::Scene;
use super::rng::Rng;
use crate::steps::Chance;

/// Rates of faults. Times are microseconds of the simulation.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    /// Voters at the start.
    pub(super) voters: usize,
    /// Learners at the start.
    pub(super) learners: usize,
    /// Nodes in all.
    pub(super) nodes: usize,
    /// Messages of 10,000 that are lost, sent twice, or late.
    pub(super) drop: u64,
    pub(super) double: u64,
    pub(super) late: u64,
    /// The longest delay of a late message.
    pub(super) latest: u64,
    /// Syncs of 10,000 that take long, and how long at most.
    pub(super) stall: u64,
    pub(super) longest_stall: u64,
    /// Applications of 10,000 that take long.
    pub(super) slow_apply: u64,
    /// The mean time between two faults of nodes and links.
    pub(super) fault_every: u64,
    /// Weights of these faults.
    pub(super) crashes: u64,
    pub(super) cuts: u64,
    pub(super) resets: u64,
    pub(super) pauses: u64,
    /// The mean time between two operations on the cluster.
    pub(super) operate_every: u64,
    /// Whether members change.
    pub(super) changes_members: bool,
    /// Whether disks are lost.
    pub(super) loses_disks: bool,
    /// Whether faults aim at leases: one follower is cut from the leader, and others start again within its lease.
    pub(super) aims_at_leases: bool,
    /// The longest time between two writes. In a busy cluster a node that was cut off has too short a log to be elected.
    pub(super) write_every: u64,
    /// Starts of 10,000 after which the node has another election timeout.
    pub(super) changes_times: u64,
    /// Campaigns of 10,000 in which the candidate gets votes that nobody has given, before its own is synced.
    pub(super) forges: u64,
    /// The clocks of nodes run this many millionths fast or slow, at most.
    pub(super) drift: u64,
}

impl Weather {
    pub(super) fn draw(rng: &mut Rng, scene: Scene) -> Self {
        let any = Self::draw_any(rng);
        let quiet = 8_000_000;
        let steady =
            Self { changes_members: false, loses_disks: false, changes_times: 0, operate_every: 3_000_000, ..any };
        match scene {
            Scene::Any => any,
            Scene::Leases => Self {
                voters: 3,
                learners: 0,
                nodes: 4,
                fault_every: 200_000,
                aims_at_leases: true,
                write_every: quiet,
                ..steady
            },
            Scene::LoneVoter => {
                Self { voters: 1, learners: 2, nodes: 4, stall: 3000, longest_stall: 500_000, crashes: 9, ..steady }
            }
            Scene::Connections => {
                Self { voters: 3, learners: 1, nodes: 4, late: 1500, latest: 400_000, write_every: quiet, ..steady }
            }
        }
    }

    fn draw_any(rng: &mut Rng) -> Self {
        let voters = [1, 1, 2, 3, 3, 3, 3, 4, 5, 5][rng.below(10) as usize];
        let learners = if voters <= 2 { 1 + rng.below(2) as usize } else { rng.below(2) as usize };
        let is_bad = rng.hits(7000);
        let level = |rng: &mut Rng, most: u64| if is_bad && rng.hits(7000) { rng.below(most) } else { 0 };
        let aims_at_leases = voters > 2 && rng.hits(1200);
        Self {
            voters,
            learners,
            nodes: (voters + learners + rng.below(3) as usize).max(4),
            drop: level(rng, 600),
            double: level(rng, 600),
            late: 20 + level(rng, 400),
            latest: rng.range(20_000, 900_000),
            stall: level(rng, 300),
            longest_stall: rng.range(50_000, 3_000_000),
            slow_apply: level(rng, 1000),
            fault_every: rng.range(150_000, 2_000_000),
            crashes: rng.below(10),
            cuts: rng.below(10),
            resets: rng.below(6),
            pauses: rng.below(8),
            operate_every: rng.range(200_000, 3_000_000),
            changes_members: rng.hits(7500),
            loses_disks: rng.hits(4000),
            aims_at_leases,
            write_every: if aims_at_leases || rng.hits(1000) { 8_000_000 } else { 140_000 },
            changes_times: if rng.hits(3000) { 3000 } else { 0 },
            forges: if rng.hits(5000) { 2000 } else { 0 },
            drift: rng.below(80_000),
        }
    }

    /// The faults are over.
    pub(super) fn calm(&mut self) {
        (self.drop, self.double, self.late, self.stall, self.slow_apply) = (0, 0, 0, 0, 0);
        (self.changes_members, self.loses_disks) = (false, false);
        self.write_every = 140_000;
    }
}
