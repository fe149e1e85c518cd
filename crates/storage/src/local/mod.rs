//! The embedded durable store: a log of batches in front of a tree that holds the state.
//!
//! A commit is acknowledged when the log has it on disk; commits that wait at the same time share one sync. The tree is
//! made durable about once a second; opening replays the rest of the log into it.

mod disk;
mod layout;
mod log;
#[cfg(test)]
mod log_suite;
mod segment;
mod segmented;
#[cfg(test)]
mod sim;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc, OnceLock, Weak,
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
    disk::{Disk, RealDisk},
    layout::{DirectoryLock, Layout},
    log::Log,
    segmented::{SegmentedLog, Segments},
    state::State,
    writer::{Request, Shared, Writer},
};
use crate::{Backend, Batch, Index, Key, Page, Role, StorageError, Watch, watch::Watchers};

/// What can be chosen about a [`LocalBackend`].
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Name of this node, as in `storage "raft" { node_id }`. Stored at the first start and compared afterwards.
    pub node_id: Option<String>,
    /// Whether the store is that of a cluster, of which this node is the only member and so the leader. Default: no.
    pub clustered: bool,
    /// Memory for pages of the tree, in bytes. Default: 8 MiB.
    pub cache_bytes: usize,
    /// Whether opening reads the whole tree and compares its checksums: finds what a device has silently changed, and
    /// takes about a second for a gigabyte. Without it a changed value is found when it is read, since it does not
    /// authenticate, but a changed path is a missing record. Default: no.
    pub verify: bool,
    /// The tree is made durable when nothing was committed for this long. Default: one second.
    pub flush_interval: Duration,
    /// The tree is made durable after so many bytes of log, which bounds what a start has to replay; log segments have
    /// about this size. Default: 16 MiB.
    pub flush_bytes: u64,
    /// Room that is left in the file system: with less free, or less than a quarter where that is less, commits that put
    /// something are refused with [`StorageError::Full`], while deleting goes on. Running into the end would stop the
    /// store. Default: 32 MiB.
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
/// After a failed write or sync it accepts nothing more until it is opened again, because what is on the disk is then
/// unknown; reading goes on. Dropping it makes the tree durable and waits for that.
pub struct LocalBackend {
    shared: Arc<Shared>,
    node_id: Option<String>,
    incarnation: String,
    clustered: bool,
    max_batch_bytes: usize,
    requests: Mutex<Option<Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    _lock: Option<DirectoryLock>,
}

impl LocalBackend {
    /// Opens a data directory; makes one when it is missing or empty. Blocks while the log is replayed.
    ///
    /// The directory gets mode 0700 and every file 0600.
    ///
    /// # Errors
    /// [`StorageError::InUse`] when another process has it; [`StorageError::Layout`] when it is of another format or
    /// another node; [`StorageError::Corrupt`] when what was acknowledged cannot be read.
    pub fn open(path: &Path, options: LocalOptions) -> Result<Self, StorageError> {
        let disk = RealDisk::open(path)
            .map_err(|error| StorageError::io(format!("open data directory {}", path.display()), error))?;
        let lock = DirectoryLock::take(path)?;
        Self::open_on(Arc::new(disk), options, Some(lock))
    }

    fn open_on(disk: Arc<dyn Disk>, options: LocalOptions, lock: Option<DirectoryLock>) -> Result<Self, StorageError> {
        let layout = Layout::open(&*disk, options.node_id.as_deref())?;
        let state = State::open(&*disk, options.cache_bytes, options.verify)?;
        let log = recover::<SegmentedLog>(Segments { disk, bytes: options.flush_bytes }, &state)?;
        let shared = Arc::new(Shared { state, watchers: Watchers::default(), stopped: OnceLock::new() });
        let writer = Writer {
            shared: shared.clone(),
            log,
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
            shared,
            node_id: layout.node_id,
            incarnation: layout.incarnation,
            clustered: options.clustered,
            max_batch_bytes: options.max_batch_bytes,
            requests: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            _lock: lock,
        })
    }

    /// The node that the directory belongs to, if it was ever named.
    pub fn node_id(&self) -> Option<&str> {
        self.node_id.as_deref()
    }

    /// The random name of the data directory, the same for as long as it exists. A copy of the directory has it too.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Finishes the commits that wait, makes the tree durable and accepts no more commits. Blocks until done.
    pub fn close(&self) {
        drop(self.requests.lock().take());
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the storage thread has panicked");
        }
    }

    /// Why no answer comes from the writer.
    fn gone(&self) -> StorageError {
        if let Some(reason) = self.shared.stopped.get() {
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
        self.shared.state.get(key.as_str())
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.shared.state.list(prefix.as_str(), page)
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        let size = batch.encoded_len();
        if size > self.max_batch_bytes {
            return Err(StorageError::TooLarge { size, limit: self.max_batch_bytes });
        }
        let (answer, answered) = oneshot::channel();
        let sent = match &*self.requests.lock() {
            Some(requests) => requests.send(Request { batch, answer }).is_ok(),
            None => false,
        };
        if !sent {
            return Err(self.gone());
        }
        answered.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.shared.watchers.add(watcher);
    }

    fn roles(&self) -> Option<watch::Receiver<Role>> {
        // Nobody sends: the role of a lone node does not change.
        self.clustered.then(|| watch::channel(Role::Leading).1)
    }
}

/// Brings the state to the end of the log, makes it durable, and opens the log behind that.
fn recover<L: Log>(medium: L::Medium, state: &State) -> Result<L, StorageError> {
    let change = state.begin()?;
    let last = {
        let mut records = change.records()?;
        let applied = state.applied()?;
        L::replay(&medium, applied, |_, bytes| records.apply(&Batch::decode(bytes)?.writes))?
    };
    change.commit(last)?;
    state.flush()?;
    let mut log = L::open(medium, last + 1)?;
    log.compact()?;
    Ok(log)
}
