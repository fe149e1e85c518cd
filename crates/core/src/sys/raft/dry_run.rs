//! What a restore of a snapshot would change.

use std::sync::Arc;

use keepfast_framework::reply::Shaped;
use keepfast_framework::{Error, Outcome, Result};
use keepfast_storage::{Consensus, StorageError};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::to_raw_value;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::snapshot::{Verified, refusal};
use crate::cluster::snapshots::compare::{Comparison, compare};
use crate::cluster::snapshots::{FileParts, SNAPSHOTS, SnapshotFileError};
use crate::seal::{SealConfig, WayIn};
use crate::unsealed::Unsealed;

/// What a restore would change.
#[derive(Serialize, JsonSchema)]
pub(super) struct DryRunResponse {
    cluster_id: String,
    created: String,
    version: String,
    index: u64,
    key_term: u32,
    size: u64,
    /// Whether the keyring has authenticated it, so that it is restored without force.
    authenticated: bool,
    /// Whether it is of this cluster.
    same_cluster: bool,
    /// Whether its seal configuration is the current one.
    same_seal: bool,
    /// Whether the server seals itself after the restore, and needs the shares or a seal of the snapshot.
    needs_unseal: bool,
    /// The records that would be added.
    added: u64,
    /// The records that would get another value.
    changed: u64,
    /// The records that would be deleted.
    deleted: u64,
    /// The records that would stay as they are.
    unchanged: u64,
    /// The records of the snapshot that the current keyring does not open.
    unreadable: u64,
}

/// Whether the server opens this seal record by what it has in memory.
///
/// # Errors
/// When the record cannot be read, or was changed by someone without the root key.
pub(super) fn opens(unsealed: &Unsealed, seal: &[u8]) -> Result<bool> {
    let known = WayIn::Known(unsealed.current_seal.known_keys());
    Ok(SealConfig::from_bytes(seal)?.open(&known)?.is_some())
}

/// Compares a verified snapshot with the current records. Changes nothing.
pub(super) async fn dry_run(
    unsealed: &Unsealed,
    consensus: Arc<dyn Consensus>,
    verified: Verified,
) -> Result<Shaped<DryRunResponse>> {
    let cluster_id = unsealed.current_seal.seal_config().await?.cluster_id;
    let key = unsealed.barrier.derive(verified.snapshot.details.key_term, SNAPSHOTS);
    let authenticated = key.is_ok_and(|key| verified.snapshot.is_sealed_by(&key));
    let (barrier, runtime) = (unsealed.barrier.clone(), Handle::current());
    let known = WayIn::Known(unsealed.current_seal.known_keys());
    let wrap_keys = move |seal: &[u8]| SealConfig::from_bytes(seal).ok()?.wrap_keys(&known);
    let compared = spawn_blocking(move || {
        let Verified { snapshot, mut source, guard: _guard } = verified;
        source.rewind().map_err(|error| StorageError::io("read a snapshot", error))?;
        let mut parts = FileParts::of(&snapshot, source)?;
        let (_, mut current) = consensus.snapshot()?;
        let found = runtime.block_on(compare(&mut parts, &mut *current, &barrier, wrap_keys))?;
        Ok((snapshot, found))
    });
    let compared = compared.await.map_err(Error::internal)?;
    let (snapshot, (found, seal)) = compared.map_err(|error: SnapshotFileError| match error {
        SnapshotFileError::Storage(StorageError::Corrupt(why)) => Error::invalid(why.to_string()),
        other => refusal(other),
    })?;
    let Comparison { added, changed, deleted, unchanged, unreadable, has_seal } = found;
    let size = snapshot.size;
    let details = snapshot.details;
    let response = DryRunResponse {
        authenticated,
        same_cluster: details.cluster_id == cluster_id,
        cluster_id: details.cluster_id,
        created: details.created,
        version: details.version,
        index: details.index,
        key_term: details.key_term,
        size,
        same_seal: has_seal,
        needs_unseal: !seal.is_some_and(|seal| opens(unsealed, &seal).unwrap_or(false)),
        added,
        changed,
        deleted,
        unchanged,
        unreadable,
    };
    Ok(Outcome::of(to_raw_value(&response)?).into())
}
