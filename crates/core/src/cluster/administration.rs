//! The state of changes of the members.

use std::sync::Arc;

use super::autopilot::Autopilot;
use super::join::pending::Joining;
use super::join::proven::ProvenNodes;
use super::snapshots::history::SnapshotHistory;
use super::uploads::Uploads;

/// How the members of the cluster change: what of it lives as long as the process.
#[derive(Default)]
pub(crate) struct Administration {
    /// The cluster that this node is about to join.
    pub(crate) joining: Joining,
    /// The nodes that have proved the root key, and that no list here has.
    pub(crate) proven: Arc<ProvenNodes>,
    /// What autopilot has seen.
    pub(crate) autopilot: Autopilot,
    /// Held while a snapshot is saved or restored on request, so that there is one at a time: it may be in memory.
    pub(crate) snapshot: Arc<tokio::sync::Mutex<()>>,
    /// The turn of the snapshot that is received into a file and handled.
    pub(crate) uploads: Uploads,
    /// What became of the automatic snapshots.
    pub(crate) automatic_snapshots: SnapshotHistory,
}
