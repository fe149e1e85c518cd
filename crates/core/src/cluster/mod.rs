//! The node as a member of a cluster: which node handles a request, its connections to the other nodes, and joining.

pub(crate) mod autopilot;
#[cfg(test)]
pub(crate) mod fake;
pub mod join;
pub(crate) mod members;
pub mod port;
pub mod snapshots;

use std::sync::Arc;

use self::autopilot::Autopilot;
use self::join::joiner::Joining;

/// How the members of the cluster change: what of it lives as long as the process.
#[derive(Default)]
pub(crate) struct Administration {
    /// The cluster that this node is about to join.
    pub(crate) joining: Joining,
    /// What autopilot has seen.
    pub(crate) autopilot: Autopilot,
    /// Held while a snapshot is in memory, so that there is one at a time.
    pub(crate) snapshot: Arc<tokio::sync::Mutex<()>>,
}
