//! The threads of a node, one step at a time.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError},
    },
    time::Duration,
};

use crate::{
    local::{self, Process, segmented_log::SegmentedLog, writer::Writer},
    raft::{
        apply_thread::ApplyJob,
        disk_thread::DiskJob,
        driver::Driver,
        event::Event,
        node::Node,
        threads::{Threads, Workers},
    },
};

/// The thread that writes, and those beside it.
pub(super) struct Phase {
    node: Arc<Node>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    kind: Kind,
}

enum Kind {
    Lone(Box<Writer<SegmentedLog>>),
    Member(Box<MemberThreads>),
    Ended,
}

struct MemberThreads {
    driver: Driver,
    workers: Workers,
    disk_job: Option<DiskJob>,
    apply_job: Option<ApplyJob>,
}

/// What a thread waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// For nothing: it has a job.
    Job,
    /// For the time after which it does something without a job.
    Time,
    /// For a job.
    Forever,
}

impl Phase {
    pub(super) fn new(node: Arc<Node>, process: Process) -> Self {
        let Process { log, is_lone, sender, events } = process;
        let kind = if is_lone {
            let mut writer = local::lone_writer(&node, log);
            writer.abort_restore();
            Kind::Lone(Box::new(writer))
        } else {
            Kind::member(&node, log, &sender, false)
        };
        Self { node, sender, events, kind }
    }

    /// Lets the thread that writes process what waits. Returns whether anything did.
    pub(super) fn write(&mut self) -> bool {
        match &mut self.kind {
            Kind::Lone(writer) => {
                let Some(event) = writer.next.take().or_else(|| self.events.try_recv().ok()) else { return false };
                match writer.turn(&self.node, Ok(event), &self.events) {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(None) => self.kind = Kind::Ended,
                    ControlFlow::Break(Some(next)) => self.end_lone(next),
                }
                true
            }
            Kind::Member(threads) => {
                let event = self.events.try_recv().ok();
                if event.is_none() && threads.driver.until_tick() != Some(Duration::ZERO) {
                    return false;
                }
                if threads.driver.turn(event, &self.events) {
                    self.kind = Kind::Ended;
                }
                true
            }
            Kind::Ended => false,
        }
    }

    fn end_lone(&mut self, next: local::writer::Next) {
        let Kind::Lone(writer) = std::mem::replace(&mut self.kind, Kind::Ended) else { return };
        let (first, is_founding) = local::end_lone(&self.node, next);
        self.kind = Kind::member(&self.node, writer.log, &self.sender, is_founding);
        if let (Kind::Member(threads), Some(_)) = (&mut self.kind, &first) {
            threads.driver.turn(first, &self.events);
        }
    }

    /// The time until the next tick.
    pub(super) fn until_tick(&self) -> Option<Duration> {
        match &self.kind {
            Kind::Member(threads) => threads.driver.until_tick(),
            _ => None,
        }
    }

    /// What the thread of the disk waits for.
    pub(super) fn disk(&mut self) -> Waits {
        let Kind::Member(threads) = &mut self.kind else { return Waits::Forever };
        let Workers { disk, disk_jobs, .. } = &threads.workers;
        if threads.disk_job.is_none() {
            threads.disk_job = disk_jobs.try_recv().ok();
        }
        match (threads.disk_job.is_some() || !disk.later.is_empty(), disk.pending.is_some()) {
            (true, _) => Waits::Job,
            (false, true) => Waits::Time,
            (false, false) => Waits::Forever,
        }
    }

    /// Lets the thread of the disk do one job.
    pub(super) fn run_disk(&mut self) {
        let Kind::Member(threads) = &mut self.kind else { return };
        let Workers { disk, disk_jobs, .. } = &mut threads.workers;
        let job = disk.later.pop_front().or_else(|| threads.disk_job.take());
        disk.turn(job.ok_or(RecvTimeoutError::Timeout), disk_jobs);
    }

    /// What the thread of the state waits for; of a lone node, the thread that writes.
    pub(super) fn apply(&mut self) -> Waits {
        let (has_job, unflushed) = match &mut self.kind {
            Kind::Lone(writer) => (false, writer.unflushed),
            Kind::Member(threads) => {
                let Workers { apply, apply_jobs, .. } = &threads.workers;
                if threads.apply_job.is_none() {
                    threads.apply_job = apply_jobs.try_recv().ok();
                }
                let has_job = threads.apply_job.is_some() || apply.next.is_some() || apply.installing.is_some();
                (has_job, apply.unflushed)
            }
            Kind::Ended => (false, 0),
        };
        match (has_job, unflushed) {
            (true, _) => Waits::Job,
            (false, 0) => Waits::Forever,
            (false, _) => Waits::Time,
        }
    }

    /// Lets the thread of the state do one job.
    pub(super) fn run_apply(&mut self) {
        match &mut self.kind {
            Kind::Lone(writer) => {
                let _ = writer.turn(&self.node, Err(RecvTimeoutError::Timeout), &self.events);
            }
            Kind::Member(threads) => threads.run_apply(),
            Kind::Ended => {}
        }
    }
}

impl Kind {
    fn member(node: &Arc<Node>, log: SegmentedLog, sender: &Sender<Event>, is_founding: bool) -> Self {
        let (threads, workers) = Threads::prepare(node, log, sender);
        let mut driver = Driver::new(node.clone(), threads, sender.clone(), is_founding);
        driver.found();
        Self::Member(Box::new(MemberThreads { driver, workers, disk_job: None, apply_job: None }))
    }
}

impl MemberThreads {
    fn run_apply(&mut self) {
        let Workers { apply, apply_jobs, .. } = &mut self.workers;
        if let Some(installing) = apply.installing.take() {
            match installing.result.try_recv() {
                Ok(result) => apply.installed(installing.state, Some(result)),
                Err(TryRecvError::Disconnected) => apply.installed(installing.state, None),
                Err(TryRecvError::Empty) => apply.installing = Some(installing),
            }
            return;
        }
        let job = apply.next.take().or_else(|| self.apply_job.take());
        apply.turn(job.ok_or(RecvTimeoutError::Timeout), apply_jobs);
    }
}
