//! A simulator of whole clusters in one thread: nodes with disks that sync late, clocks that drift and pause, a network
//! that loses, delays and cuts, an operator who changes members, clients that write and read everywhere. A seed
//! determines all of it. After every step the rules of Raft are checked (`checks.rs`), and at the end the faults cease
//! and the cluster has to serve again.

mod checks;
mod clients;
mod disk;
mod effects;
mod faults;
mod links;
mod network;
mod node;
mod operator;
mod rng;
mod schedule;
#[cfg(test)]
mod tests;
mod weather;
mod world;

use crate::planted::Bug;
pub use links::{Link, Links};
pub use rng::{Rng, Trace};
pub use schedule::Schedule;
use world::World;

/// Which faults are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// All, at rates that the seed draws.
    Any,
    /// A follower that does not hear the leader campaigns at others that have just started.
    Leases,
    /// One voter with a slow disk that often dies, and learners.
    LoneVoter,
    /// Slow connections that are replaced while something is under way on them.
    Connections,
}

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Determines everything.
    pub seed: u64,
    /// The simulated time in seconds, at least 20. The last 12 are without faults.
    pub seconds: u64,
    /// The faults.
    pub scene: Scene,
    /// A bug to find.
    pub planted: Option<Bug>,
}

/// What a simulation did and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The rule that was broken, and when.
    pub broken: Option<String>,
    /// Crashes, cuts, resets, pauses, stalls, lost disks, and messages that were lost, doubled or too old.
    pub faults: u64,
    /// Committed entries.
    pub commits: u64,
    /// ReadIndex calls that got an index.
    pub reads: u64,
    /// Elections that were won.
    pub elections: u64,
    /// Entries that were read from a disk for a member that was behind.
    pub read_entries: u64,
    /// Snapshots that were installed.
    pub snapshots: u64,
    /// Changes of members that were committed.
    pub changes: u64,
    /// Nodes that were removed and learned it from a leader.
    pub departures: u64,
    /// Events that were processed.
    pub events: u64,
    /// A hash of all events and effects.
    pub trace: u64,
}

/// Runs one simulation. A panic, of the crate `raft` too, is a broken rule.
#[must_use]
pub fn run(plan: Plan) -> Report {
    let result = std::panic::catch_unwind(|| World::new(plan).run());
    result.unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
        Report { broken: Some(format!("panic: {}", text.unwrap_or("?"))), ..Report::default() }
    })
}
