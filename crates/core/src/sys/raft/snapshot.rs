//! `sys/storage/raft/snapshot` and `snapshot-force`: save all records to a file, and replace them by those of a file.

use std::sync::Arc;

use bytes::Bytes;
use keepfast_framework::reply::Raw;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, Result, Routes, Status, offload};
use keepfast_storage::Consensus;
use tokio::sync::OwnedMutexGuard;

use crate::cluster::members::explained;
use crate::cluster::restored;
use crate::cluster::snapshots::{
    FileParts, SNAPSHOTS, SnapshotDetails, SnapshotFileError, VerifiedSnapshot, write as write_file,
};
use crate::sys::system::{System, call, consensus, unsealed};

const SNAPSHOT: Help = Help {
    synopsis: "Returns a snapshot of all records, or replaces them by those of a snapshot.",
    description: "A snapshot has the records as they are stored, encrypted. It is restored only if the keyring has authenticated it; its size is limited by max_request_size.",
};
const FORCE: Help = Help {
    synopsis: "Replaces all records by those of a snapshot, even of another cluster.",
    description: "The server then needs the unseal key shares of the snapshot.",
};

/// The largest file in bytes.
const MAX_FILE: usize = 256 << 20;
/// The bytes that a byte of a file may become when decompressed. Encrypted records hardly shrink.
const MAX_EXPANSION: u64 = 100;

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("storage/raft/snapshot", SNAPSHOT).read(save).update(restore).raw_body().once();
    r.path("storage/raft/snapshot-force", FORCE).update(restore_by_force).raw_body().once();
}

/// Allows one snapshot at a time: each is in memory.
fn turn(sys: &System) -> Result<OwnedMutexGuard<()>> {
    let turn = sys.lifecycle()?.administration.snapshot.clone().try_lock_owned();
    turn.map_err(|_| Error::new(Status::UNAVAILABLE, "another snapshot is being saved or restored"))
}

async fn save(sys: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    let consensus = consensus(sys)?;
    let _turn = turn(sys)?;
    let unsealed = unsealed(cx)?;
    let cluster_id = unsealed.current_seal.seal_config().await?.cluster_id;
    let key_term = unsealed.barrier.key_status()?.term;
    let key = unsealed.barrier.derive(key_term, SNAPSHOTS)?;
    let (head, mut parts) = consensus.snapshot()?;
    let (created, version) = (cx.now().rfc3339(), unsealed.settings.version.clone());
    let details = SnapshotDetails::new(head, cluster_id, created, version, key_term);
    let body = write_file(&details, &mut *parts, &key, MAX_FILE).await.map_err(refusal)?;
    Ok(Raw { status: Status::OK, content_type: "application/gzip", body })
}

async fn restore(sys: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    begin_restore(sys, cx, false).await
}

async fn restore_by_force(sys: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    begin_restore(sys, cx, true).await
}

/// Verifies the whole file. Its records replace the present ones when the response is audited: afterwards the server of
/// this request is closed.
async fn begin_restore(sys: &System, cx: &mut Cx, is_forced: bool) -> Result<()> {
    let consensus = consensus(sys)?;
    let turn = turn(sys)?;
    let file = call(cx)?.bytes.clone();
    if file.is_empty() {
        return Err(Error::invalid("failed to decompress snapshot: EOF"));
    }
    let limit = (file.len() as u64).saturating_mul(MAX_EXPANSION);
    let verified = offload::run(file.len(), || VerifiedSnapshot::read(&file[..], limit)).await.map_err(refusal)?;
    if !is_forced {
        let key = unsealed(cx)?.barrier.derive(verified.details.key_term, SNAPSHOTS);
        if !key.is_ok_and(|key| verified.is_sealed_by(&key)) {
            return Err(Error::invalid(
                "could not verify hash file, possibly the snapshot is using a different set of unseal keys; use the \
                 snapshot-force API to bypass this check",
            ));
        }
    }
    let details = verified.details;
    let mark = restored::mark(&unsealed(cx)?.barrier, is_forced).await?;
    cx.after_record(move || replace(consensus, details, file, mark, turn));
    Ok(())
}

async fn replace(
    consensus: Arc<dyn Consensus>,
    details: SnapshotDetails,
    file: Bytes,
    mark: Bytes,
    _turn: OwnedMutexGuard<()>,
) -> Result<()> {
    tracing::warn!(index = details.index, created = details.created, "all records are replaced by those of a snapshot");
    let mut parts = FileParts::new(std::io::Cursor::new(file)).map_err(refusal)?;
    let index = consensus.restore(details.head(), &mut parts, mark).await.map_err(explained)?;
    tracing::info!(index = index.0, "the snapshot was restored");
    Ok(())
}

fn refusal(error: SnapshotFileError) -> Error {
    match error {
        SnapshotFileError::Storage(error) => explained(error),
        other => Error::invalid(other.to_string()),
    }
}
