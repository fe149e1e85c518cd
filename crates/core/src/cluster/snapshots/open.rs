//! Opens a snapshot of the current records, to be written to a file.

use keepfast_crypto::locked::Key256;
use keepfast_framework::{Result, Timestamp};
use keepfast_storage::{Consensus, SnapshotParts};

use super::format::{SNAPSHOTS, SnapshotDetails};
use crate::unsealed::Unsealed;

/// A snapshot to be written.
pub(crate) struct OpenSnapshot {
    /// What it is of.
    pub(crate) details: SnapshotDetails,
    /// Its parts.
    pub(crate) parts: Box<dyn SnapshotParts>,
    /// The key that authenticates the file.
    pub(crate) key: Key256,
}

impl OpenSnapshot {
    /// Opens one of all records that this node has applied.
    pub(crate) async fn new(consensus: &dyn Consensus, unsealed: &Unsealed, now: Timestamp) -> Result<Self> {
        let cluster_id = unsealed.current_seal.seal_config().await?.cluster_id;
        // A term that is added in the meantime is in the snapshot as well.
        let key_term = unsealed.barrier.key_status()?.term;
        let key = unsealed.barrier.derive(key_term, SNAPSHOTS)?;
        let (head, parts) = consensus.snapshot()?;
        let version = unsealed.settings.version.clone();
        let details = SnapshotDetails::new(head, cluster_id, now.rfc3339(), version, key_term);
        Ok(OpenSnapshot { details, parts, key })
    }
}
