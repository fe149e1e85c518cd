//! The node as a member of a cluster: see `ARCHITECTURE.md`.

pub(crate) mod announce;
pub(crate) mod autopilot;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod forward;
pub mod join;
pub(crate) mod keys;
pub(crate) mod lead;
pub(crate) mod members;
pub(crate) mod membership;
pub(crate) mod place;
pub mod port;
pub(crate) mod service;
pub mod snapshots;
pub(crate) mod taken_over;

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
