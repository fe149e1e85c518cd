//! `sys/storage/raft/snapshot` and `snapshot-force`: save all records to a file, and replace them by those of a file.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keepfast_framework::fields::{Flag, Text};
use keepfast_framework::reply::{Raw, Shaped};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, Outcome, Result, Routes, Status};
use keepfast_storage::{Consensus, StorageError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;

use crate::cluster::members::explained;
use crate::cluster::restored;
use crate::cluster::snapshots::compare::compare;
use crate::cluster::snapshots::directory::SnapshotDirectory;
use crate::cluster::snapshots::open::OpenSnapshot;
use crate::cluster::snapshots::source::SnapshotSource;
use crate::cluster::snapshots::{
    FileParts, SNAPSHOTS, SnapshotDetails, SnapshotFileError, VerifiedSnapshot, write as write_file,
};
use crate::sys::system::{System, call, consensus, unsealed};
use crate::unsealed::Unsealed;

const SNAPSHOT: Help = Help {
    synopsis: "Returns a snapshot of all records, or replaces them by those of a snapshot.",
    description: "A snapshot has the records as they are stored, encrypted. It is restored only if the keyring has authenticated it; its size is limited by max_request_size.",
};
const FORCE: Help = Help {
    synopsis: "Replaces all records by those of a snapshot, even of another cluster.",
    description: "The server then needs the unseal key shares of the snapshot.",
};

/// The largest file of a response in bytes: it is in memory.
const MAX_FILE: u64 = 256 << 20;

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("storage/raft/snapshot", SNAPSHOT).read(save).update(restore).raw_body().once();
    r.path("storage/raft/snapshot-force", FORCE).update(restore_by_force).raw_body().once();
}

/// How long a request waits for another snapshot.
const PATIENCE: Duration = Duration::from_secs(10);

/// Allows one snapshot at a time: it may be in memory.
async fn turn(sys: &System) -> Result<OwnedMutexGuard<()>> {
    let server = sys.lifecycle()?;
    let clock = &server.parts.clock;
    tokio::select! {
        turn = server.administration.snapshot.clone().lock_owned() => Ok(turn),
        () = clock.sleep_until(clock.now().after(PATIENCE)) => {
            Err(Error::new(Status::UNAVAILABLE, "another snapshot is being saved or restored"))
        }
    }
}

async fn save(sys: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    let consensus = consensus(sys)?;
    let _turn = turn(sys).await?;
    let open = OpenSnapshot::new(&*consensus, &*unsealed(cx)?, cx.now()).await?;
    let OpenSnapshot { details, mut parts, key } = open;
    let written = write_file(&details, &mut *parts, &key, Cursor::new(Vec::new()), MAX_FILE).await;
    let file = written.map_err(|error| match error {
        SnapshotFileError::TooLarge(_) => Error::invalid(format!("{error}; automatic snapshots have no such limit")),
        other => refusal(other),
    })?;
    Ok(Raw { status: Status::OK, content_type: "application/gzip", body: file.into_inner() })
}

#[derive(Deserialize, JsonSchema)]
struct RestoreRequest {
    /// Whether the snapshot is only verified and compared, and nothing is changed. Default: false.
    #[serde(default)]
    dry_run: Flag,
    /// The name of an automatic snapshot in the directory of the leader, instead of a body.
    stored: Option<Text>,
}

/// What a restore would change.
#[derive(Serialize, JsonSchema)]
struct DryRunResponse {
    cluster_id: String,
    created: String,
    version: String,
    index: u64,
    key_term: u32,
    size: u64,
    /// Whether it is of this cluster.
    same_cluster: bool,
    /// Whether its seal configuration is the current one.
    same_seal: bool,
    /// Whether the server seals itself after the restore, and needs the shares of the snapshot.
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

async fn restore(sys: &System, cx: &mut Cx, req: RestoreRequest) -> Result<Shaped<DryRunResponse>> {
    begin_restore(sys, cx, &req, false).await
}

async fn restore_by_force(sys: &System, cx: &mut Cx, req: RestoreRequest) -> Result<Shaped<DryRunResponse>> {
    begin_restore(sys, cx, &req, true).await
}

/// Verifies the whole file. Its records replace the present ones when the response is audited: afterwards the server of
/// this request is closed.
async fn begin_restore(
    sys: &System,
    cx: &mut Cx,
    req: &RestoreRequest,
    is_forced: bool,
) -> Result<Shaped<DryRunResponse>> {
    let consensus = consensus(sys)?;
    let turn = turn(sys).await?;
    let mut source = source(sys, cx, req)?;
    let read = spawn_blocking(move || {
        let limit = source.limit();
        VerifiedSnapshot::read(&mut source, limit).map(|verified| (verified, source))
    });
    let (verified, source) = read.await.map_err(Error::internal)?.map_err(refusal)?;
    if !is_forced {
        let key = unsealed(cx)?.barrier.derive(verified.details.key_term, SNAPSHOTS);
        if !key.is_ok_and(|key| verified.is_sealed_by(&key)) {
            return Err(Error::invalid(
                "could not verify hash file, possibly the snapshot is using a different set of unseal keys; use the \
                 snapshot-force API to bypass this check",
            ));
        }
    }
    if req.dry_run.0 {
        return dry_run(&*unsealed(cx)?, consensus, verified, source, turn).await;
    }
    let mark = restored::mark(&unsealed(cx)?.barrier, is_forced).await?;
    cx.after_record(move || replace(consensus, verified, source, mark, turn));
    Ok(Outcome::Empty(None).into())
}

/// The body of the request, or the automatic snapshot that it names.
fn source(sys: &System, cx: &Cx, req: &RestoreRequest) -> Result<SnapshotSource> {
    let body = call(cx)?.bytes.clone();
    let Some(name) = &req.stored else {
        if body.is_empty() {
            return Err(Error::invalid("failed to decompress snapshot: EOF"));
        }
        return Ok(SnapshotSource::body(body));
    };
    if !body.is_empty() {
        return Err(Error::invalid("give either a body or the name of an automatic snapshot"));
    }
    let settings = sys.lifecycle()?.parts.settings.snapshots.clone();
    let opened = settings.map(|settings| SnapshotDirectory::new(&settings.directory).open(name)).transpose();
    let file = opened.map_err(Error::internal)?.flatten();
    let file = file.ok_or_else(|| Error::invalid("the leader has no automatic snapshot of this name"))?;
    SnapshotSource::file(file).map_err(Error::internal)
}

/// Compares a verified snapshot with the current records. Changes nothing.
async fn dry_run(
    unsealed: &Unsealed,
    consensus: Arc<dyn Consensus>,
    verified: VerifiedSnapshot,
    mut source: SnapshotSource,
    turn: OwnedMutexGuard<()>,
) -> Result<Shaped<DryRunResponse>> {
    let cluster_id = unsealed.current_seal.seal_config().await?.cluster_id;
    let (barrier, runtime) = (unsealed.barrier.clone(), Handle::current());
    let compared = spawn_blocking(move || {
        let _turn = turn;
        source.rewind().map_err(|error| StorageError::io("read a snapshot", error))?;
        let mut snapshot = FileParts::of(&verified, source)?;
        let (_, mut current) = consensus.snapshot()?;
        let found = runtime.block_on(compare(&mut snapshot, &mut *current, &barrier))?;
        Ok((verified, found))
    });
    let (verified, found) =
        compared.await.map_err(Error::internal)?.map_err(|error: SnapshotFileError| match error {
            SnapshotFileError::Storage(StorageError::Corrupt(why)) => Error::invalid(why.to_string()),
            other => refusal(other),
        })?;
    let SnapshotDetails { created, version, index, key_term, .. } = verified.details.clone();
    let response = DryRunResponse {
        same_cluster: verified.details.cluster_id == cluster_id,
        cluster_id: verified.details.cluster_id,
        created,
        version,
        index,
        key_term,
        size: verified.size,
        same_seal: found.has_seal,
        needs_unseal: !found.has_root,
        added: found.added,
        changed: found.changed,
        deleted: found.deleted,
        unchanged: found.unchanged,
        unreadable: found.unreadable,
    };
    Ok(Outcome::of(to_raw_value(&response)?).into())
}

async fn replace(
    consensus: Arc<dyn Consensus>,
    verified: VerifiedSnapshot,
    mut source: SnapshotSource,
    mark: Bytes,
    _turn: OwnedMutexGuard<()>,
) -> Result<()> {
    let details = &verified.details;
    tracing::warn!(index = details.index, created = details.created, "all records are replaced by those of a snapshot");
    source.rewind().map_err(Error::internal)?;
    let mut parts = FileParts::of(&verified, source).map_err(refusal)?;
    let index = consensus.restore(details.head(), &mut parts, mark).await.map_err(explained)?;
    tracing::info!(index = index.0, "the snapshot was restored");
    Ok(())
}

fn refusal(error: SnapshotFileError) -> Error {
    match error {
        SnapshotFileError::Storage(error) => explained(error),
        SnapshotFileError::Write(error) => Error::internal(error),
        other => Error::invalid(other.to_string()),
    }
}
