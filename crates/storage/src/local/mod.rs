//! The embedded durable store: a log of entries in front of a tree that holds the state.
//!
//! A commit is acknowledged when it is durable in the log; commits that wait at the same time share one sync. The tree
//! is made durable about once a second; opening replays the rest of the log into it.

mod apply;
mod disk;
mod entry;
mod layout;
mod log;
mod log_index;
#[cfg(test)]
mod log_model;
#[cfg(test)]
mod log_suite;
mod restore;
mod scan;
mod scanned;
mod segment;
mod segment_files;
mod segmented_log;
#[cfg(test)]
mod sim_disk;
mod state;
#[cfg(test)]
mod tests;
mod upgrade;
mod v1;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc, Weak,
        mpsc::{self, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use self::{
    apply::{Applier, Upto},
    disk::{Disk, RealDisk},
    layout::{DirectoryLock, Layout},
    log::{Keep, Log, ReadLog},
    segment::Frame,
    segmented_log::{SegmentedLog, Segments},
    state::State,
    writer::{Request, Writer},
};
use crate::{Backend, Batch, Index, Key, Page, Role, StorageError, Watch};

/// Options of a [`LocalBackend`].
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Name of this node, as in `storage "raft" { node_id }`. Stored at the first start and compared at later starts.
    pub node_id: Option<String>,
    /// Whether the store belongs to a cluster with this node as its only member and therefore its leader. Default: no.
    pub clustered: bool,
    /// Memory for pages of the tree, in bytes. Default: 8 MiB.
    pub cache_bytes: usize,
    /// Whether opening reads the whole tree and compares its checksums. This finds silent changes by the device and
    /// takes about a second per gigabyte. Without it a changed value is found when it is read, since it does not
    /// authenticate, but a changed path is a missing record. Default: no.
    pub verify: bool,
    /// The tree is made durable when nothing was committed for this long. Default: one second.
    pub flush_interval: Duration,
    /// The tree is made durable after this many bytes of log, which limits the replay at a start; log segments have
    /// about this size. Default: 16 MiB.
    pub flush_bytes: u64,
    /// Space that stays free in the file system. With less than this or a quarter of the file system free, whichever is
    /// smaller, commits with a put fail with [`StorageError::Full`], while deletes succeed. A full device would stop
    /// the store. Default: 32 MiB.
    pub reserve_bytes: u64,
    /// The largest batch accepted, in bytes. Default: 64 MiB.
    pub max_batch_bytes: usize,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            node_id: None,
            clustered: false,
            cache_bytes: 8 << 20,
            verify: false,
            flush_interval: Duration::from_secs(1),
            flush_bytes: 16 << 20,
            reserve_bytes: 32 << 20,
            max_batch_bytes: 64 << 20,
        }
    }
}

/// A store in a directory of the local file system, for one process at a time.
///
/// After a failed write or sync it accepts no commit until it is opened again, because the content of the disk is then
/// unknown; reads still work. Dropping it makes the tree durable and blocks until then.
pub struct LocalBackend {
    applier: Arc<Applier>,
    node_id: Option<String>,
    incarnation: String,
    clustered: bool,
    max_batch_bytes: usize,
    requests: Mutex<Option<Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    _lock: Option<DirectoryLock>,
}

/// Opens a data directory and excludes other processes from it.
fn lock(path: &Path) -> Result<(Arc<dyn Disk>, DirectoryLock), StorageError> {
    let disk = RealDisk::open(path)
        .map_err(|error| StorageError::io(format!("open data directory {}", path.display()), error))?;
    Ok((Arc::new(disk), DirectoryLock::take(path)?))
}

impl LocalBackend {
    /// Opens a data directory; creates one when it is missing or empty. Blocks during the replay of the log.
    ///
    /// The directory gets mode 0700 and every file 0600.
    ///
    /// # Errors
    /// [`StorageError::InUse`] when another process holds it; [`StorageError::Layout`] when it has another format or
    /// belongs to another node; [`StorageError::Corrupt`] when acknowledged data cannot be read.
    pub fn open(path: &Path, options: LocalOptions) -> Result<Self, StorageError> {
        let (disk, lock) = lock(path)?;
        Self::open_on(disk, options, Some(lock))
    }

    /// Changes a data directory back to format 1, which earlier programs read. No process may use it.
    ///
    /// A program of format 1 does not know the encryptions that were counted since the upgrade: the barrier's key should
    /// be rotated afterwards.
    ///
    /// # Errors
    /// [`StorageError::Layout`] when it belongs to a member of a cluster or has format 1; otherwise as
    /// [`open`](Self::open).
    pub fn downgrade(path: &Path) -> Result<(), StorageError> {
        if !path.join(layout::META).exists() {
            return Err(StorageError::Layout("it has no meta.json".into()));
        }
        let (disk, _lock) = lock(path)?;
        upgrade::revert(&disk)
    }

    fn open_on(disk: Arc<dyn Disk>, options: LocalOptions, lock: Option<DirectoryLock>) -> Result<Self, StorageError> {
        let mut layout = Layout::open(&*disk, options.node_id.as_deref())?;
        if layout.needs_upgrade() {
            upgrade::run(&disk, &mut layout, &options)?;
        }
        // What an upgrade has left; nothing reads it.
        let _ = v1::delete(&*disk);
        let state = State::open(&*disk, options.cache_bytes, options.verify)?;
        let mut log = SegmentedLog::open(Segments { disk, bytes: options.flush_bytes }, state.position().id)?;
        let applier = Arc::new(Applier::new(state));
        applier.replay(&log.reader(), Upto::Last)?;
        log.purge(applier.state.position().id.index, Keep::NOTHING)?;
        let writer = Writer {
            applier: applier.clone(),
            hard: log.reader().hard_state(),
            log,
            frame: Frame::new(),
            flush_interval: options.flush_interval,
            flush_bytes: options.flush_bytes,
            reserve_bytes: options.reserve_bytes,
            unflushed: 0,
        };
        let (sender, requests) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("storage".into())
            .spawn(move || writer.run(&requests))
            .map_err(|error| StorageError::io("start the storage thread", error))?;
        Ok(Self {
            applier,
            node_id: layout.node_id,
            incarnation: layout.incarnation,
            clustered: options.clustered,
            max_batch_bytes: options.max_batch_bytes,
            requests: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            _lock: lock,
        })
    }

    /// The id of the node that the directory belongs to, if one was ever set.
    pub fn node_id(&self) -> Option<&str> {
        self.node_id.as_deref()
    }

    /// The random name of the data directory, which never changes. A copy of the directory has the same name.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Finishes the waiting commits, makes the tree durable and accepts no more commits. Blocks until done.
    pub fn close(&self) {
        drop(self.requests.lock().take());
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the storage thread has panicked");
        }
    }

    /// Why the writer does not respond.
    fn stopped_error(&self) -> StorageError {
        if let Some(reason) = self.applier.stopped.get() {
            return StorageError::Stopped(reason.clone());
        }
        match *self.requests.lock() {
            Some(_) => StorageError::Stopped("the storage thread has ended".into()),
            None => StorageError::Closed,
        }
    }
}

impl Drop for LocalBackend {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Backend for LocalBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        self.applier.state.get(key.as_str())
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.applier.state.list(prefix.as_str(), page)
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        let size = batch.encoded_len();
        if size > self.max_batch_bytes {
            return Err(StorageError::TooLarge { size, limit: self.max_batch_bytes });
        }
        let (result, receiver) = oneshot::channel();
        let sent = match &*self.requests.lock() {
            Some(requests) => requests.send(Request { batch, result }).is_ok(),
            None => false,
        };
        if !sent {
            return Err(self.stopped_error());
        }
        receiver.await.unwrap_or_else(|_| Err(self.stopped_error()))
    }

    fn encryptions(&self, key_term: u32) -> Result<u64, StorageError> {
        self.applier.state.encryptions(key_term)
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.applier.watchers.add(watcher);
    }

    fn roles(&self) -> Option<watch::Receiver<Role>> {
        // There is no sender: the role of a single node does not change.
        self.clustered.then(|| watch::channel(Role::Leading).1)
    }
}
