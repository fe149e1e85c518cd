//! `sys/storage/raft/snapshot` and `snapshot-force`: save all records to a file, and replace them by those of a file: of the
//! body, or of an automatic snapshot.

use std::io::{self, BufWriter, Cursor};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keepfast_framework::fields::{Flag, Text};
use keepfast_framework::file_body::FileBodyWriter;
use keepfast_framework::reply::{Raw, RawFile, Reply, Shaped};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, FileBody, Outcome, RawBody, Result, Routes, Status};
use keepfast_storage::Consensus;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;

use super::dry_run::{DryRunResponse, dry_run, opens};
use crate::cluster::members::explained;
use crate::cluster::restored;
use crate::cluster::snapshots::compare::seal_record;
use crate::cluster::snapshots::directory::SnapshotDirectory;
use crate::cluster::snapshots::open::OpenSnapshot;
use crate::cluster::snapshots::source::SnapshotSource;
use crate::cluster::snapshots::{FileParts, SNAPSHOTS, SnapshotFileError, VerifiedSnapshot, write as write_file};
use crate::settings::SnapshotFiles;
use crate::sys::system::{System, call, consensus, unsealed};
use crate::unsealed::Unsealed;

const SNAPSHOT: Help = Help {
    synopsis: "Returns a snapshot of all records, or replaces them by those of a snapshot.",
    description: "A snapshot has the records as they are stored, encrypted. It is restored only if the keyring has authenticated it; its size is limited by max_snapshot_size.",
};
const FORCE: Help = Help {
    synopsis: "Replaces all records by those of a snapshot, even of another cluster.",
    description: "The server then needs the unseal key shares of the snapshot.",
};
const DRY_RUN: Help = Help {
    synopsis: "Verifies a snapshot, and returns what a restore of it would change.",
    description: "The body is that of a restore. Nothing is changed.",
};
const STORED: Help = Help {
    synopsis: "Replaces all records by those of an automatic snapshot in the directory of the leader.",
    description: "Its size has no limit.",
};

/// The largest file of a response in memory, in bytes.
const MAX_FILE: u64 = 256 << 20;
const GZIP: &str = "application/gzip";
/// How long a request waits for another snapshot.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("storage/raft/snapshot", SNAPSHOT).read(save).update(restore).raw_body().once().not_in_namespaces();
    r.path("storage/raft/snapshot-force", FORCE).update(restore_by_force).raw_body().once().not_in_namespaces();
    // A path of its own: another server would take a parameter for nothing, and restore.
    r.path("storage/raft/snapshot-dry-run", DRY_RUN).update(compare).raw_body().once().not_in_namespaces();
    r.path("storage/raft/snapshot-auto/restore/{name}", STORED)
        .names_only()
        .update(restore_stored)
        .once()
        .not_in_namespaces();
    r.path("storage/raft/snapshot-auto/restore-force/{name}", STORED)
        .names_only()
        .update(force_stored)
        .once()
        .not_in_namespaces();
}

/// Allows one snapshot on request at a time: it may be in memory.
async fn lock_snapshots(sys: &System) -> Result<OwnedMutexGuard<()>> {
    let server = sys.lifecycle()?;
    let clock = &server.parts.clock;
    tokio::select! {
        guard = server.administration.snapshot.clone().lock_owned() => Ok(guard),
        () = clock.sleep_until(clock.now().after(PATIENCE)) => {
            Err(Error::new(Status::UNAVAILABLE, "another snapshot is being saved or restored"))
        }
    }
}

/// The file of a snapshot: on the disk, or in memory.
enum SavedSnapshot {
    File(RawFile),
    Bytes(Raw),
}

impl Reply for SavedSnapshot {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        match self {
            SavedSnapshot::File(file) => file.into_outcome(),
            SavedSnapshot::Bytes(raw) => raw.into_outcome(),
        }
    }
}

async fn save(sys: &System, cx: &mut Cx, _: Nothing) -> Result<SavedSnapshot> {
    let consensus = consensus(sys)?;
    let guard = lock_snapshots(sys).await?;
    let open = OpenSnapshot::new(&*consensus, &*unsealed(cx)?, cx.now()).await?;
    if let Some(files) = sys.lifecycle()?.parts.settings.snapshot_files.clone() {
        let runtime = Handle::current();
        let written = spawn_blocking(move || write_on_disk(open, &files, guard, &runtime)).await;
        let file = written.map_err(Error::internal)?.map_err(|error| match error {
            SnapshotFileError::TooLarge(_) => Error::invalid(format!("{error} (max_snapshot_size)")),
            SnapshotFileError::Write(error) if error.kind() == io::ErrorKind::StorageFull => {
                Error::new(Status::UNAVAILABLE, "the device of the storage has too little room for a snapshot")
            }
            other => refusal(other),
        })?;
        return Ok(SavedSnapshot::File(RawFile { content_type: GZIP, file }));
    }
    let OpenSnapshot { details, mut parts, key } = open;
    let written = write_file(&details, &mut *parts, &key, Cursor::new(Vec::new()), MAX_FILE).await;
    let file = written.map_err(|error| match error {
        SnapshotFileError::TooLarge(_) => Error::invalid(format!("{error}; automatic snapshots have no such limit")),
        other => refusal(other),
    })?;
    Ok(SavedSnapshot::Bytes(Raw {
        status: Status::OK,
        content_type: GZIP,
        body: file.into_inner(),
        headers: Vec::new(),
    }))
}

fn write_on_disk(
    open: OpenSnapshot,
    files: &SnapshotFiles,
    _guard: OwnedMutexGuard<()>,
    runtime: &Handle,
) -> std::result::Result<FileBody, SnapshotFileError> {
    let OpenSnapshot { details, mut parts, key } = open;
    let out = FileBodyWriter::new(&files.directory, files.longest).map_err(SnapshotFileError::Write)?;
    let written = runtime.block_on(write_file(&details, &mut *parts, &key, BufWriter::new(out), files.longest));
    let written = written.map_err(|error| match error {
        SnapshotFileError::Write(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            SnapshotFileError::TooLarge(files.longest)
        }
        other => other,
    })?;
    let out = written.into_inner().map_err(|error| SnapshotFileError::Write(error.into_error()))?;
    out.finish().map_err(SnapshotFileError::Write)
}

async fn restore(sys: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    let verified = verified(sys, body(sys, cx)?).await?;
    begin_restore(sys, cx, verified, false).await
}

async fn restore_by_force(sys: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    let verified = verified(sys, body(sys, cx)?).await?;
    begin_restore(sys, cx, verified, true).await
}

async fn compare(sys: &System, cx: &mut Cx, _: Nothing) -> Result<Shaped<DryRunResponse>> {
    let verified = verified(sys, body(sys, cx)?).await?;
    dry_run(&*unsealed(cx)?, consensus(sys)?, verified).await
}

#[derive(Deserialize, JsonSchema)]
struct StoredRequest {
    /// Name of the file.
    name: Text,
    /// Whether the snapshot is only verified and compared, and nothing is changed. Default: false.
    #[serde(default)]
    dry_run: Flag,
}

async fn restore_stored(sys: &System, cx: &mut Cx, req: StoredRequest) -> Result<Shaped<DryRunResponse>> {
    begin_stored(sys, cx, &req, false).await
}

async fn force_stored(sys: &System, cx: &mut Cx, req: StoredRequest) -> Result<Shaped<DryRunResponse>> {
    begin_stored(sys, cx, &req, true).await
}

async fn begin_stored(
    sys: &System,
    cx: &mut Cx,
    req: &StoredRequest,
    is_forced: bool,
) -> Result<Shaped<DryRunResponse>> {
    let verified = verified(sys, stored(sys, &req.name)?).await?;
    if req.dry_run.0 {
        return dry_run(&*unsealed(cx)?, consensus(sys)?, verified).await;
    }
    begin_restore(sys, cx, verified, is_forced).await?;
    Ok(Outcome::Empty(None).into())
}

fn body(sys: &System, cx: &Cx) -> Result<SnapshotSource> {
    consensus(sys)?;
    match call(cx)?.facts.body.clone() {
        RawBody::Bytes(bytes) if bytes.is_empty() => Err(Error::invalid("failed to decompress snapshot: EOF")),
        body => Ok(SnapshotSource::body(body)),
    }
}

/// The automatic snapshot whose file has this name.
fn stored(sys: &System, name: &str) -> Result<SnapshotSource> {
    consensus(sys)?;
    let settings = sys.lifecycle()?.parts.settings.snapshots.clone();
    let opened = settings.map(|settings| SnapshotDirectory::new(&settings.directory).open(name)).transpose();
    let file = opened.map_err(Error::internal)?.flatten();
    let file = file.ok_or_else(|| Error::invalid("the leader has no automatic snapshot of this name"))?;
    SnapshotSource::file(file).map_err(Error::internal)
}

/// A snapshot whose digests match, and its file. No other one is saved or restored meanwhile.
pub(super) struct Verified {
    pub(super) snapshot: VerifiedSnapshot,
    pub(super) source: SnapshotSource,
    pub(super) guard: OwnedMutexGuard<()>,
}

/// Verifies the whole file.
async fn verified(sys: &System, mut source: SnapshotSource) -> Result<Verified> {
    consensus(sys)?;
    let guard = lock_snapshots(sys).await?;
    let read = spawn_blocking(move || {
        let limit = source.limit();
        VerifiedSnapshot::read(&mut source, limit).map(|snapshot| Verified { snapshot, source, guard })
    });
    read.await.map_err(Error::internal)?.map_err(refusal)
}

/// The records of the snapshot replace the present ones when the response is audited: afterwards the server of this
/// request is closed.
async fn begin_restore(sys: &System, cx: &mut Cx, mut verified: Verified, is_forced: bool) -> Result<()> {
    let consensus = consensus(sys)?;
    if is_forced {
        verified = check_seal(&*unsealed(cx)?, verified).await?;
    } else {
        let key = unsealed(cx)?.barrier.derive(verified.snapshot.details.key_term, SNAPSHOTS);
        if !key.is_ok_and(|key| verified.snapshot.is_sealed_by(&key)) {
            return Err(Error::invalid(
                "could not verify hash file, possibly the snapshot is using a different set of unseal keys; use the \
                 snapshot-force API to bypass this check",
            ));
        }
    }
    let mark = restored::mark(&unsealed(cx)?.barrier, is_forced).await?;
    cx.after_record(move || replace(consensus, verified, mark));
    Ok(())
}

/// Refuses a snapshot whose seal record opens by the keys of this server, and has a wrong HMAC: after the restore nothing
/// would unseal it.
async fn check_seal(unsealed: &Unsealed, verified: Verified) -> Result<Verified> {
    let runtime = Handle::current();
    let read = spawn_blocking(move || {
        let Verified { snapshot, mut source, guard } = verified;
        source.rewind()?;
        let parts = FileParts::of(&snapshot, &mut source);
        // The restore itself refuses damaged parts.
        let seal = parts.ok().and_then(|mut parts| runtime.block_on(seal_record(&mut parts)).ok().flatten());
        Ok::<_, io::Error>((Verified { snapshot, source, guard }, seal))
    });
    let (verified, seal) = read.await.map_err(Error::internal)?.map_err(Error::internal)?;
    let checked = seal.map_or(Ok(false), |seal| opens(unsealed, &seal));
    checked.map_err(|error| Error::invalid(error.public().to_owned()))?;
    Ok(verified)
}

async fn replace(consensus: Arc<dyn Consensus>, verified: Verified, mark: Bytes) -> Result<()> {
    let Verified { snapshot, mut source, guard: _guard } = verified;
    let details = &snapshot.details;
    tracing::warn!(index = details.index, created = details.created, "all records are replaced by those of a snapshot");
    source.rewind().map_err(Error::internal)?;
    let mut parts = FileParts::of(&snapshot, source).map_err(refusal)?;
    let index = consensus.restore(details.head(), &mut parts, mark).await.map_err(explained)?;
    tracing::info!(index = index.0, "the snapshot was restored");
    Ok(())
}

pub(super) fn refusal(error: SnapshotFileError) -> Error {
    match error {
        SnapshotFileError::Storage(error) => explained(error),
        SnapshotFileError::Write(error) => Error::internal(error),
        other => Error::invalid(other.to_string()),
    }
}
