//! The threads of a member beside its driver.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use keepfast_consensus::Frame;

use super::{
    apply_thread::{ApplyJob, ApplyThread, Unnoted},
    disk_thread::{DiskJob, DiskThread},
    event::Event,
    node::Node,
};
use crate::{
    StorageError,
    local::{
        log::{Log, ReadLog},
        segment,
        segmented_log::{LogReader, SegmentedLog},
    },
};

/// Lets a node take no part in its cluster when the thread that holds this panics: without it the node does nothing, and
/// another one has to lead.
pub(crate) struct PanicGuard {
    node: Arc<Node>,
    events: Sender<Event>,
}

impl PanicGuard {
    pub(crate) fn of(node: &Arc<Node>, events: &Sender<Event>) -> Self {
        Self { node: node.clone(), events: events.clone() }
    }
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.node.applier.stop_once(&StorageError::Stopped("a storage thread has panicked".into()));
        // A lone node goes on to serve reads, as after a failed write.
        if !self.node.published.is_lone() {
            self.node.published.withdraw();
        }
        let _ = self.events.send(Event::Failed);
    }
}

/// What runs on the threads of the disk and the state, with the jobs of each.
pub(crate) struct Workers {
    pub(crate) disk: DiskThread,
    pub(crate) disk_jobs: Receiver<DiskJob>,
    pub(crate) apply: ApplyThread,
    pub(crate) apply_jobs: Receiver<ApplyJob>,
}

pub(crate) struct Threads {
    /// Reads what is durable.
    pub(super) log: LogReader,
    disk: Option<Sender<DiskJob>>,
    apply: Option<Sender<ApplyJob>>,
    /// What the thread of the state has applied.
    pub(super) unnoted: Arc<Unnoted>,
    handles: Vec<JoinHandle<()>>,
    /// Gets [`Event::Failed`] when a thread takes no job: it has panicked.
    events: Sender<Event>,
    /// Dropped at the end.
    running: Option<Sender<()>>,
}

impl Threads {
    /// Starts them. They report to `events`.
    pub(crate) fn start(node: &Arc<Node>, log: SegmentedLog, events: &Sender<Event>) -> Result<Self, StorageError> {
        let (mut threads, Workers { disk, disk_jobs, apply, apply_jobs }) = Self::prepare(node, log, events);
        let of_state = spawn("storage-apply", PanicGuard::of(node, events), move || apply.run(&apply_jobs))?;
        let of_disk = spawn("storage-sync", PanicGuard::of(node, events), move || disk.run(&disk_jobs))?;
        threads.handles = vec![of_state, of_disk];
        Ok(threads)
    }

    /// What runs on them.
    pub(crate) fn prepare(node: &Arc<Node>, log: SegmentedLog, events: &Sender<Event>) -> (Self, Workers) {
        let reader = log.reader();
        let (disk, disk_jobs) = channel();
        let (running, ending) = channel();
        let (apply, apply_jobs) = channel();
        let unnoted = Arc::<Unnoted>::default();
        let of_disk = DiskThread {
            applier: node.applier.clone(),
            disk: node.disk.clone(),
            hard: reader.hard_state(),
            log,
            frame: segment::Frame::new(),
            events: events.clone(),
            pending: None,
            later: VecDeque::new(),
            ending,
        };
        let of_state = ApplyThread {
            applier: node.applier.clone(),
            layout: node.layout.clone(),
            disk: node.disk.clone(),
            jobs_of_disk: disk.clone(),
            events: events.clone(),
            unnoted: unnoted.clone(),
            flush_interval: node.options.flush_interval,
            flush_bytes: node.options.flush_bytes,
            unflushed: 0,
            next: None,
            installing: None,
        };
        let (handles, events) = (Vec::new(), events.clone());
        let threads = Self {
            log: reader,
            disk: Some(disk),
            apply: Some(apply),
            unnoted,
            handles,
            events,
            running: Some(running),
        };
        (threads, Workers { disk: of_disk, disk_jobs, apply: of_state, apply_jobs })
    }

    pub(super) fn write(&self, frame: Frame) {
        if self.disk.as_ref().is_some_and(|disk| disk.send(DiskJob::Write(frame)).is_err()) {
            let _ = self.events.send(Event::Failed);
        }
    }

    pub(super) fn apply(&self, job: ApplyJob) {
        if self.apply.as_ref().is_some_and(|apply| apply.send(job).is_err()) {
            let _ = self.events.send(Event::Failed);
        }
    }

    /// Ends them once they have done what waits.
    pub(super) fn end(&mut self) {
        self.running = None;
        self.apply = None;
        self.disk = None;
        for handle in self.handles.drain(..) {
            if handle.join().is_err() {
                tracing::error!("a storage thread has panicked");
            }
        }
    }
}

fn spawn(name: &str, guard: PanicGuard, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StorageError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
        let _guard = guard;
        run();
    });
    thread.map_err(|error| StorageError::io("start a storage thread", error))
}
