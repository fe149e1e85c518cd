//! A simulator of nodes in one thread: the consensus steps, the driver, the log and the state on disks that lose what was
//! not synced, the barrier with its cache and its keyring, snapshots, and the interface [`Consensus`](crate::Consensus).
//! All of it is the code of a server; the simulation replaces clocks, chance, threads, disks and the network.
//!
//! Tasks are polled in the order of their beginning, because the order in which `tokio` wakes what waits for one value is
//! random; ciphertext differs in each run, but not its length.
//!
//! A seed determines everything: the members join, then faults hit nodes, disks, clocks and links while clients write and
//! read at every node, then the faults cease. Every read must be linearizable, no acknowledged write may be lost, all
//! nodes must apply the same, and at the end they must have the same state and serve.

mod checks;
mod clients;
mod clock;
mod delivery;
mod faults;
mod network;
mod node;
mod operator;
mod oracle;
mod phase;
mod port;
mod starts;
#[cfg(test)]
mod tests;
mod weather;
mod world;

use self::world::World;
use crate::simulated;

/// A bug that a test plants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A frame is acknowledged before it is synced.
    AckBeforeSync,
    /// The vote is not part of a frame.
    VoteNotStored,
    /// A new segment of the log begins without the vote.
    VoteLostAtRoll,
    /// A replay of the log does not replace entries.
    TruncationLost,
    /// The log is purged although the state is not durable.
    PurgeBeforeFlush,
    /// A batch takes effect although its reads no longer hold.
    ReadsDropped,
    /// The applied index is published before the watchers have received the entries.
    AppliedBeforeWatchers,
    /// The cache of the barrier does not follow commits.
    NoInvalidation,
    /// The watchers do not receive that a snapshot has replaced all records.
    ReplacedUnnoticed,
    /// A snapshot does not contain the number of encryptions.
    CountNotCarriedOver,
    /// The digest of a snapshot is not checked.
    DigestUnchecked,
    /// A new leader does not drop the restore of the one before.
    AbortMissing,
    /// A read does not wait until the confirmed index is applied.
    SettledBeforeApplied,
    /// A commit whose outcome is unknown is reported as not written.
    OutcomeGuessed,
    /// A lease continues after the machine was frozen.
    FreezeUnnoticed,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Bug; 15] = [
        Bug::AckBeforeSync,
        Bug::VoteNotStored,
        Bug::VoteLostAtRoll,
        Bug::TruncationLost,
        Bug::PurgeBeforeFlush,
        Bug::ReadsDropped,
        Bug::AppliedBeforeWatchers,
        Bug::NoInvalidation,
        Bug::ReplacedUnnoticed,
        Bug::CountNotCarriedOver,
        Bug::DigestUnchecked,
        Bug::AbortMissing,
        Bug::SettledBeforeApplied,
        Bug::OutcomeGuessed,
        Bug::FreezeUnnoticed,
    ];
}

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Determines everything.
    pub seed: u64,
    /// The simulated time in seconds during which faults occur.
    pub seconds: u64,
    /// A bug to find.
    pub planted: Option<Bug>,
}

/// What a simulation did and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The rule that was broken, and when.
    pub broken: Option<String>,
    /// Faults of nodes, disks, clocks and links, and messages and parts of snapshots that were lost or damaged.
    pub faults: u64,
    /// Acknowledged writes.
    pub writes: u64,
    /// Reads that were checked.
    pub reads: u64,
    /// Starts of a process.
    pub starts: u64,
    /// Snapshots that were installed.
    pub snapshots: u64,
    /// Changes of members.
    pub changes: u64,
    /// Events that were processed.
    pub events: u64,
    /// A hash of everything that happened.
    pub trace: u64,
}

/// Ends the simulation on this thread, also after a panic.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        simulated::set(None);
    }
}

/// Runs one simulation. A panic is a broken rule.
#[must_use]
pub fn run(plan: Plan) -> Report {
    let result = std::panic::catch_unwind(|| {
        let _end = End;
        World::new(plan).run()
    });
    result.unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
        Report { broken: Some(format!("panic: {}", text.unwrap_or("?"))), ..Report::default() }
    })
}
