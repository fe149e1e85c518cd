//! The embedded durable store: a log of entries in front of a tree that holds the state.
//!
//! A commit is acknowledged when it is durable in the log; commits that wait at the same time share one sync. The tree
//! is made durable about once a second; opening replays the rest of the log into it.

pub(crate) mod apply;
pub(crate) mod disk;
pub(crate) mod entry;
pub(crate) mod examine;
#[cfg(any(test, feature = "suite"))]
pub(crate) mod fuzzing;
pub(crate) mod image;
pub(crate) mod layout;
pub(crate) mod log;
pub(crate) mod log_index;
#[cfg(test)]
mod log_model;
#[cfg(test)]
mod log_suite;
pub(crate) mod open_layout;
mod recovery;
mod restore;
mod scan;
pub(crate) mod scanned;
pub(crate) mod segment;
pub(crate) mod segment_files;
pub(crate) mod segmented_log;
#[cfg(any(test, feature = "suite"))]
pub(crate) mod sim_disk;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod upgrade;
mod v1;
pub(crate) mod writer;

use std::{
    path::Path,
    sync::{
        Arc, Weak,
        mpsc::{self, Receiver, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_consensus::MAX_ENTRY;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::{
    apply::{Applier, Upto},
    disk::{Disk, RealDisk},
    entry::{FOUNDER, Vote},
    layout::{DirectoryLock, Layout},
    log::{Keep, Log, ReadLog},
    segment::Frame,
    segmented_log::{SegmentedLog, Segments},
    state::State,
    writer::{Next, Writer},
};
use crate::{
    Backend, Batch, Consensus, Index, Key, Page, Role, StorageError, Watch,
    raft::{
        boot,
        driver::Driver,
        event::Event,
        node::Node,
        threads::{PanicGuard, Threads},
    },
};

/// Options of a [`LocalBackend`].
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Name of this node, as in `storage "raft" { node_id }`. Stored at the first start and compared at later starts.
    pub node_id: Option<String>,
    /// Whether the store belongs to a cluster, if only with this node as its only member and therefore its leader.
    /// Default: no.
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
    /// The largest batch accepted, in bytes. Default, and at most: 8 MiB, less one byte, which a cluster can replicate.
    pub max_batch_bytes: usize,
    /// The shortest election timeout of a member; the longest is the double. Default: 600 milliseconds. At least 100
    /// milliseconds, at most a minute.
    pub election: Duration,
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
            max_batch_bytes: MAX_ENTRY - 1,
            election: Duration::from_millis(600),
        }
    }
}

/// A store in a directory of the local file system, for one process at a time.
///
/// After a failed write or sync it accepts no commit until it is opened again, because the content of the disk is then
/// unknown; reads still work. Dropping it makes the tree durable and blocks until then.
pub struct LocalBackend {
    node: Arc<Node>,
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

    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        options: LocalOptions,
        lock: Option<DirectoryLock>,
    ) -> Result<Self, StorageError> {
        let (node, process) = Self::prepare(disk, options)?;
        let of_thread = node.clone();
        let thread = std::thread::Builder::new()
            .name("storage".into())
            .spawn(move || run(&of_thread, process))
            .map_err(|error| StorageError::io("start the storage thread", error))?;
        Ok(Self { node, thread: Mutex::new(Some(thread)), _lock: lock })
    }

    /// Opens the directory, and returns what its thread runs.
    pub(crate) fn prepare(disk: Arc<dyn Disk>, options: LocalOptions) -> Result<(Arc<Node>, Process), StorageError> {
        let mut layout = Layout::open(&*disk, options.node_id.as_deref())?;
        if layout.needs_upgrade() {
            upgrade::run(&disk, &mut layout, &options)?;
        }
        if options.clustered {
            recovery::run(&disk, &mut layout, &options)?;
            layout.announce(&*disk, boot::election_ms(&options))?;
        }
        // What an upgrade or a snapshot that was not complete has left; nothing reads it.
        let _ = v1::delete(&*disk);
        let state = State::open(&*disk, options.cache_bytes, options.verify)?;
        let _ = disk.remove(state::FILE_NEW);
        if layout.joining && state.members()?.is_some() {
            layout.complete(&*disk)?;
        }
        let segments = Segments::of(&disk, options.flush_bytes);
        let mut log = SegmentedLog::open(segments, state.position().id)?;
        let applier = Arc::new(Applier::new(state));
        let is_lone = replay(&applier, &log, &layout)?;
        let keep = if is_lone { Keep::NOTHING } else { Keep::for_followers() };
        log.purge(applier.state().position().id.index, keep)?;
        let (sender, events) = mpsc::channel();
        let term = log.reader().hard_state().vote.term;
        let node = Arc::new(Node::new(applier, disk, options, layout, sender.clone(), is_lone, term)?);
        Ok((node, Process { log, is_lone, sender, events }))
    }

    /// The id of the node that the directory belongs to, if one was ever set.
    pub fn node_id(&self) -> Option<String> {
        self.node.layout.read(|layout| layout.node_id.clone())
    }

    /// The random name of the data directory, which never changes. A copy of the directory has the same name.
    pub fn incarnation(&self) -> String {
        self.node.layout.read(|layout| layout.incarnation.clone())
    }

    /// Finishes the waiting commits, makes the tree durable and accepts no more commits. Blocks until done.
    pub fn close(&self) {
        self.node.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the storage thread has panicked");
        }
    }
}

#[cfg(any(test, feature = "suite"))]
impl LocalBackend {
    /// A store without a thread: the caller runs its [`Process`].
    pub(crate) fn without_thread(node: Arc<Node>) -> Self {
        Self { node, thread: Mutex::new(None), _lock: None }
    }

    /// The index of the last entry that is applied.
    pub(crate) fn applied(&self) -> u64 {
        self.node.applier.applied.borrow().0
    }

    /// The state.
    pub(crate) fn image(&self) -> Result<image::Image, StorageError> {
        self.node.applier.state().image()
    }

    /// Why nothing is written any more.
    pub(crate) fn stopped(&self) -> Option<StorageError> {
        self.node.applier.stopped()
    }
}

#[cfg(test)]
impl LocalBackend {
    /// The longest election timeout that a list may have, in milliseconds.
    pub(crate) fn announced_ms(&self) -> u32 {
        self.node.layout.read(|layout| layout.announced_ms)
    }

    /// Whether parts of a restore are staged.
    pub(crate) fn is_restoring(&self) -> bool {
        self.node.applier.state().is_restoring()
    }

    /// Begins a restore that nobody completes.
    pub(crate) async fn begin_restore(&self) -> Result<Index, StorageError> {
        let begin = keepfast_consensus::Payload::RestoreBegin(Bytes::new());
        self.node.submit(crate::raft::event::Proposal::other(&begin)).await
    }
}

/// Applies what the log has and the state has not. Returns whether the node has no other members.
fn replay(applier: &Applier, log: &SegmentedLog, layout: &Layout) -> Result<bool, StorageError> {
    let is_lone = || -> Result<bool, StorageError> {
        let members = applier.state().members()?.map(|members| members.list);
        let is_alone = members.is_none_or(|list| list.len() == 1 && boot::find(&list, &layout.origin()).is_some());
        Ok(is_alone && !layout.joining)
    };
    applier.replay(&log.reader(), if is_lone()? { Upto::Last } else { Upto::Committed })?;
    // The log may have had more members; or its end may not be committed.
    Ok(is_lone()? && log.reader().last() == applier.state().position().id)
}

/// What the thread of a store runs, beside the [`Node`].
pub(crate) struct Process {
    pub(crate) log: SegmentedLog,
    pub(crate) is_lone: bool,
    /// Sends to `events`.
    pub(crate) sender: Sender<Event>,
    pub(crate) events: Receiver<Event>,
}

/// The writer of a node without other members.
pub(crate) fn lone_writer(node: &Node, log: SegmentedLog) -> Writer<SegmentedLog> {
    let mut hard = log.reader().hard_state();
    let candidate = node.published.view().id.unwrap_or(FOUNDER);
    if hard.vote.candidate != candidate {
        // Another node may have led this term, and written other entries in it.
        hard.vote = Vote { term: hard.vote.term + 1, candidate };
    }
    Writer {
        applier: node.applier.clone(),
        hard,
        log,
        frame: Frame::new(),
        flush_interval: node.options.flush_interval,
        flush_bytes: node.options.flush_bytes,
        reserve_bytes: node.options.reserve_bytes,
        unflushed: 0,
        next: None,
    }
}

/// Ends the time of a node without other members. Returns the first event of its driver, and whether it founds a cluster.
pub(crate) fn end_lone(node: &Node, next: Next) -> (Option<Event>, bool) {
    node.published.end_lone();
    match next {
        Next::Founded(event) => (Some(event), true),
        Next::Joins => {
            node.publish_joining();
            (None, false)
        }
    }
}

/// The thread that writes: alone, and as the driver of a member once there are others.
fn run(node: &Arc<Node>, process: Process) {
    let Process { mut log, is_lone, sender, events } = process;
    let _guard = PanicGuard::of(node, &sender);
    let (mut first, mut is_founding) = (None, false);
    if is_lone {
        let mut writer = lone_writer(node, log);
        let Some(next) = writer.run(node, &events) else { return };
        log = writer.log;
        (first, is_founding) = end_lone(node, next);
    }
    match Threads::start(node, log, &sender) {
        Ok(threads) => Driver::new(node.clone(), threads, sender, is_founding).run(first, &events),
        Err(error) => drop(node.applier.stop(&error)),
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
        self.node.applier.state().get(key.as_str())
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.node.applier.state().list(prefix.as_str(), page)
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        self.node.commit(batch).await
    }

    fn encryptions(&self, key_term: u32) -> Result<u64, StorageError> {
        self.node.applier.state().encryptions(key_term)
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.node.applier.watchers.add(watcher);
    }

    fn roles(&self) -> Option<watch::Receiver<Role>> {
        self.node.options.clustered.then(|| self.node.published.roles.subscribe())
    }

    fn consensus(&self) -> Option<Arc<dyn Consensus>> {
        self.node.options.clustered.then(|| self.node.clone() as Arc<dyn Consensus>)
    }
}
