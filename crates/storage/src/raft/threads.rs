//! The threads of a member beside its driver.

use std::{
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    thread::JoinHandle,
};

use keepfast_consensus::Frame;

use super::{
    apply_thread::{ApplyJob, ApplyThread},
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

pub(crate) struct Threads {
    /// Reads what is durable.
    pub(super) log: LogReader,
    disk: Option<Sender<DiskJob>>,
    apply: Option<Sender<ApplyJob>>,
    handles: Vec<JoinHandle<()>>,
    /// Dropped at the end.
    running: Option<Sender<()>>,
}

impl Threads {
    /// Starts them. They report to `events`.
    pub(crate) fn start(node: &Arc<Node>, log: SegmentedLog, events: &Sender<Event>) -> Result<Self, StorageError> {
        let reader = log.reader();
        let (disk, disk_jobs) = channel();
        let (running, ending) = channel();
        let (apply, apply_jobs) = channel();
        let of_disk = DiskThread {
            applier: node.applier.clone(),
            disk: node.disk.clone(),
            hard: reader.hard_state(),
            log,
            frame: segment::Frame::new(),
            events: events.clone(),
            pending: None,
            ending,
        };
        let of_state = ApplyThread {
            applier: node.applier.clone(),
            layout: node.layout.clone(),
            disk: node.disk.clone(),
            jobs_of_disk: disk.clone(),
            events: events.clone(),
            flush_interval: node.options.flush_interval,
            flush_bytes: node.options.flush_bytes,
            unflushed: 0,
        };
        let apply_handle = spawn("storage-apply", move || of_state.run(&apply_jobs))?;
        let disk_handle = spawn("storage-sync", move || of_disk.run(&disk_jobs))?;
        let handles = vec![apply_handle, disk_handle];
        Ok(Self { log: reader, disk: Some(disk), apply: Some(apply), handles, running: Some(running) })
    }

    pub(super) fn write(&self, frame: Frame) {
        if let Some(disk) = &self.disk {
            let _ = disk.send(DiskJob::Write(frame));
        }
    }

    pub(super) fn apply(&self, job: ApplyJob) {
        if let Some(apply) = &self.apply {
            let _ = apply.send(job);
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

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StorageError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(run);
    thread.map_err(|error| StorageError::io("start a storage thread", error))
}
