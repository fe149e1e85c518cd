//! Automatic snapshots on the leader, into the directory of the configuration.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_framework::{Error, Result, Status, Timestamp};
use keepfast_storage::{Barrier, SnapshotParts, SnapshotRecords, StorageError, WrapKeys};
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;

use super::directory::{SnapshotDirectory, StoredSnapshot};
use super::format::{SNAPSHOTS, SnapshotDetails, SnapshotFileError};
use super::history::SnapshotHistory;
use super::open::OpenSnapshot;
use super::read::VerifiedSnapshot;
use super::write::write;
use crate::parts::ServerParts;
use crate::settings::SnapshotSettings;
use crate::unsealed::Unsealed;

/// The longest wait without a look at the clock and the directory.
const LOOK: Duration = Duration::from_secs(60);

/// A server that takes automatic snapshots.
pub(crate) trait SnapshotServer: Send + Sync {
    /// Its parts.
    fn parts(&self) -> &ServerParts;

    /// Its services, while it is unsealed.
    fn services(&self) -> Option<Arc<Unsealed>>;

    /// What became of its automatic snapshots.
    fn history(&self) -> &SnapshotHistory;
}

/// The automatic snapshots of the leader; they stop when this is dropped.
pub(crate) struct SnapshotTask {
    task: tokio::task::JoinHandle<()>,
    server: Weak<dyn SnapshotServer>,
}

impl Drop for SnapshotTask {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(server) = self.server.upgrade() {
            server.history().stop();
        }
    }
}

impl SnapshotTask {
    /// Starts the automatic snapshots of this server; `None` where none are configured.
    pub(crate) fn start(server: Weak<dyn SnapshotServer>) -> Option<Self> {
        let settings = server.upgrade()?.parts().settings.snapshots.clone()?;
        let task = tokio::spawn(run(server.clone(), settings));
        Some(SnapshotTask { task, server })
    }
}

async fn run(weak: Weak<dyn SnapshotServer>, settings: SnapshotSettings) {
    while let Some(server) = weak.upgrade() {
        let clock = server.parts().clock.clone();
        let due = advance(&*server, &settings).await;
        drop(server);
        clock.sleep_until(due.min(clock.now().after(LOOK))).await;
    }
}

/// Takes a snapshot if one is due. Returns when the next one is.
pub(crate) async fn advance(server: &dyn SnapshotServer, settings: &SnapshotSettings) -> Timestamp {
    let directory = SnapshotDirectory::new(&settings.directory);
    let (clock, history) = (&server.parts().clock, server.history());
    let stored = listed(&directory, clock.now()).await;
    let list = stored.as_ref().ok().cloned().unwrap_or_else(|| history.attempts().stored);
    let due = history.schedule(list, settings.interval, clock.now());
    if due > clock.now() {
        return due;
    }
    let started = clock.now();
    history.begin(started);
    let saved = match stored {
        Ok(_) => save(server, &directory, started).await,
        Err(error) => Err(unusable(&error)),
    };
    let metrics = &server.parts().metrics.snapshots;
    let failed = match saved {
        Ok(stored) => {
            metrics.saved.record(clock.now().since(started));
            let path = stored.path.display();
            tracing::info!(%path, size = stored.size, "an automatic snapshot was saved");
            None
        }
        Err(error) => {
            metrics.save_failed.add();
            let cause = error.cause().map(ToString::to_string).unwrap_or_default();
            tracing::error!(%error, %cause, "the automatic snapshot failed and is repeated");
            Some(if cause.is_empty() { error.public().to_string() } else { cause })
        }
    };
    let is_saved = failed.is_none();
    history.end(failed, clock.now());
    if is_saved && let Err(error) = delete_oldest(&directory, settings.retain, clock.now()).await {
        metrics.rotate_failed.add();
        tracing::error!(%error, "an old automatic snapshot cannot be deleted");
    }
    let stored = listed(&directory, clock.now()).await.unwrap_or_else(|_| history.attempts().stored);
    history.schedule(stored, settings.interval, clock.now())
}

async fn listed(directory: &SnapshotDirectory, now: Timestamp) -> io::Result<Vec<StoredSnapshot>> {
    let directory = directory.clone();
    spawn_blocking(move || directory.list(now)).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

async fn delete_oldest(directory: &SnapshotDirectory, retain: usize, now: Timestamp) -> io::Result<()> {
    let directory = directory.clone();
    let deleted = spawn_blocking(move || directory.delete_oldest(retain, now)).await;
    deleted.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn unusable(error: &io::Error) -> Error {
    Error::new(Status::INTERNAL, format!("the directory of snapshots cannot be used: {error}"))
}

/// Saves a snapshot: it has its name when it was read back and verified.
async fn save(server: &dyn SnapshotServer, directory: &SnapshotDirectory, now: Timestamp) -> Result<StoredSnapshot> {
    let turn = server.history().turn.clone().lock_owned().await;
    let unsealed = server.services().ok_or_else(Error::sealed)?;
    let consensus = server.parts().membership.consensus().ok_or_else(Error::unsupported_path)?;
    let wrap_keys = unsealed.barrier.wrap_keys();
    let open = OpenSnapshot::new(&**consensus, &unsealed, now).await?;
    let (canceled, runtime) = (Canceled::default(), Handle::current());
    let (barrier, directory) = (unsealed.barrier.clone(), directory.clone());
    let job = Job { open, barrier, wrap_keys, directory, now, _turn: turn };
    let flag = canceled.0.clone();
    let saved = spawn_blocking(move || job.run(&runtime, flag)).await;
    drop(canceled);
    saved.unwrap_or_else(|error| Err(Error::internal(error)))
}

/// Ends the job on its thread when it is dropped: nobody waits for it.
#[derive(Default)]
struct Canceled(Arc<AtomicBool>);

impl Drop for Canceled {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A snapshot that is written and verified on a thread that may block.
struct Job {
    open: OpenSnapshot,
    barrier: Arc<Barrier>,
    /// The wrap keys before the snapshot: one may have ended since.
    wrap_keys: WrapKeys,
    directory: SnapshotDirectory,
    now: Timestamp,
    /// One snapshot at a time, also when nobody waits for it any more.
    _turn: OwnedMutexGuard<()>,
}

impl Job {
    fn run(self, runtime: &Handle, canceled: Arc<AtomicBool>) -> Result<StoredSnapshot> {
        let Job { open: OpenSnapshot { details, parts, key }, barrier, wrap_keys, directory, now, _turn } = self;
        let (incomplete, file) = directory.begin(now).map_err(|error| unusable(&error))?;
        let mut parts = CancelableParts { parts, canceled: canceled.clone() };
        let written = runtime.block_on(write(&details, &mut parts, &key, BufWriter::new(file), u64::MAX));
        let synced = written.and_then(|out| {
            let file = out.into_inner().map_err(|error| SnapshotFileError::Write(error.into_error()))?;
            file.sync_all().map_err(SnapshotFileError::Write)?;
            Ok(file.metadata().map_err(SnapshotFileError::Write)?.len())
        });
        let size = synced.map_err(failed)?;
        let file = incomplete.read_back().map_err(|error| unusable(&error))?;
        verify(file, &details, (&barrier, &wrap_keys), &canceled).map_err(failed)?;
        incomplete.complete(size).map_err(|error| unusable(&error))
    }
}

fn failed(error: SnapshotFileError) -> Error {
    match error {
        SnapshotFileError::Storage(error) => Error::from(error),
        other => Error::new(Status::INTERNAL, other.to_string()),
    }
}

/// Parts that end with an error when nobody waits for the snapshot any more.
struct CancelableParts {
    parts: Box<dyn SnapshotParts>,
    canceled: Arc<AtomicBool>,
}

#[async_trait]
impl SnapshotParts for CancelableParts {
    async fn next(&mut self) -> std::result::Result<Option<Bytes>, StorageError> {
        if self.canceled.load(Ordering::Relaxed) {
            return Err(StorageError::Closed);
        }
        self.parts.next().await
    }
}

/// Reads a file back: it is that snapshot, complete, and the keys of the barrier open each record in it.
fn verify(
    file: File,
    details: &SnapshotDetails,
    (barrier, wrap_keys): (&Barrier, &WrapKeys),
    canceled: &AtomicBool,
) -> std::result::Result<(), SnapshotFileError> {
    let mut records = SnapshotRecords::default();
    let verified = VerifiedSnapshot::read_with(BufReader::new(file), u64::MAX, |part| {
        if canceled.load(Ordering::Relaxed) {
            return Err(StorageError::Closed.into());
        }
        for (key, value) in records.part(part)? {
            let checked = barrier.check_record_with(&key, &value, Some(wrap_keys));
            checked.or_else(|_| barrier.check_record(&key, &value))?;
        }
        Ok(())
    })?;
    records.finish()?;
    let key = barrier.derive(verified.details.key_term, SNAPSHOTS)?;
    if verified.details != *details || !verified.is_sealed_by(&key) {
        return Err(SnapshotFileError::Damaged("it differs from what was written"));
    }
    Ok(())
}
