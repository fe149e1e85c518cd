//! A node: its disk, its clocks, and the process that a crash ends.

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
    time::advance,
};

use super::{clock::Clock, phase::Phase, port::Port, world::Event};
use crate::{
    Backend, Barrier, ClusterStatus, Consensus, Index, LocalBackend, LocalOptions, Origin, StorageError, Watch, Write,
    local::{
        entry::Vote,
        log::{Log, ReadLog},
        sim_disk::{Fault, SimDisk},
    },
};

/// The shortest election timeout.
pub(super) const ELECTION: Duration = Duration::from_millis(600);

/// A node.
pub(super) struct Node {
    pub(super) number: usize,
    pub(super) disk: SimDisk,
    pub(super) clock: Clock,
    pub(super) process: Option<Process>,
    /// Counts the processes, so that events of an older one are dropped.
    pub(super) run: u32,
    pub(super) paused_until: u64,
    /// When the machine was frozen.
    pub(super) frozen_since: Option<u64>,
    /// Events during a pause.
    pub(super) backlog: VecDeque<Event>,
    pub(super) damage: Damage,
    /// The directory at the last start.
    pub(super) origin: Option<Origin>,
    /// The last vote that it has given.
    pub(super) voted: Option<Vote>,
    /// Whether the directory belongs to no cluster yet.
    pub(super) is_spare: bool,
}

/// What bits were changed of a disk.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Whether any were.
    pub(super) is_possible: bool,
    /// Whether the node has found it, and cannot serve.
    pub(super) is_found: bool,
}

/// What a task of a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A call of a client.
    Client,
    /// Opening of the barrier.
    Open,
    /// A call of another node.
    Serve,
    /// An operation on the cluster.
    Operate,
    /// The beginning of the exchange of messages, or of the joining.
    Begin,
}

/// What a task returns.
pub(super) enum Done {
    Nothing,
    /// A call of a client, which was a write or a read, succeeded.
    Called {
        is_write: bool,
    },
    Opened(Arc<Barrier>),
    /// The incarnation of a node that was removed, with the proof.
    Departed(Origin, Index),
    /// A change of the members.
    Changed,
    /// It failed for this reason.
    Failed(String),
}

/// The process of a node.
pub(super) struct Process {
    /// First, so that all futures are dropped before what they use.
    tasks: Vec<Task>,
    ended: Vec<(Work, Done)>,
    runtime: Runtime,
    pub(super) barrier: Option<Arc<Barrier>>,
    pub(super) backend: Arc<LocalBackend>,
    pub(super) phase: Phase,
    pub(super) port: Arc<Port>,
    pub(super) reports: Arc<Reports>,
    /// The own clock at the last turn.
    now: u64,
    pub(super) due: Due,
    /// The last entry of which `reports` was read.
    pub(super) applied: u64,
    /// The vote that the log had at the start.
    pub(super) vote: Vote,
    /// When the barrier is opened next, if it is not open.
    pub(super) opens_at: u64,
    /// Whether its end is scheduled, because it has stopped.
    pub(super) ends: bool,
}

/// A future that the simulation polls itself: the order in which `tokio` runs tasks that wait for one thing is random.
struct Task {
    work: Work,
    future: Pin<Box<dyn Future<Output = Done> + Send>>,
    flag: Arc<Flag>,
}

/// Whether a future is to be polled.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The times at which something is due.
#[derive(Default)]
pub(super) struct Due {
    pub(super) wake: Option<u64>,
    pub(super) disk: Option<u64>,
    pub(super) apply: Option<u64>,
}

/// What the watcher of a node has received.
#[derive(Default)]
pub(super) struct Reports(Mutex<Vec<(u64, Option<u64>)>>);

impl Reports {
    /// What came since the last call: indexes, with a digest of the writes, or `None` for a replacement of all records.
    pub(super) fn take(&self) -> Vec<(u64, Option<u64>)> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Watch for Reports {
    fn applied(&self, index: Index, writes: &[Write]) {
        let mut hash = crc32fast::Hasher::new();
        for write in writes {
            hash.update(write.key().as_str().as_bytes());
            if let Write::Put { value, .. } = write {
                hash.update(value);
            }
        }
        self.0.lock().push((index.0, Some(hash.finalize().into())));
    }

    fn replaced(&self, index: Index) {
        self.0.lock().push((index.0, None));
    }
}

impl Node {
    pub(super) fn name(number: usize) -> String {
        format!("n{number}")
    }

    /// The number of a node with this name.
    pub(super) fn number_of(name: &str) -> usize {
        name.get(1..).and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
    }

    pub(super) fn is_paused(&self, time: u64) -> bool {
        time < self.paused_until
    }

    /// Whether the log has forgotten a vote that was given, so that another could be given in the same term.
    pub(super) fn has_forgotten_vote(&self) -> bool {
        let stored = self.process.as_ref().map(|process| process.vote);
        let is_lost = |given: Vote, stored: Vote| {
            stored.term < given.term || (stored.term == given.term && stored.candidate != given.candidate)
        };
        self.voted.zip(stored).is_some_and(|(given, stored)| is_lost(given, stored))
    }

    /// Whether it runs now.
    pub(super) fn is_up(&self, time: u64) -> bool {
        self.process.is_some() && !self.is_paused(time)
    }

    /// Ends a pause.
    pub(super) fn resume(&mut self, time: u64) {
        self.paused_until = self.paused_until.min(time);
        if let Some(since) = self.frozen_since.take() {
            self.clock.frozen += time - since;
        }
    }

    /// Ends the process: nothing reaches the disk any more.
    pub(super) fn end(&mut self, time: u64) {
        self.run += 1;
        self.backlog.clear();
        self.resume(time);
        if let Some(process) = self.process.take() {
            self.disk.fail_at(self.disk.operations(), Fault::Crash);
            drop(process);
        }
    }
}

impl Process {
    /// Opens the directory.
    pub(super) fn open(disk: &SimDisk, options: LocalOptions, run: u32, now: u64) -> Result<Self, StorageError> {
        let (node, process) = LocalBackend::prepare(Arc::new(disk.clone()), options)?;
        let vote = process.log.reader().hard_state().vote;
        let phase = Phase::new(node.clone(), process);
        let backend = Arc::new(LocalBackend::without_thread(node));
        let reports: Arc<Reports> = Arc::default();
        let watcher: Arc<dyn Watch> = reports.clone();
        backend.watch(Arc::downgrade(&watcher) as Weak<dyn Watch>);
        let origin = backend.consensus().map(|consensus| consensus.identity());
        let origin = origin.ok_or_else(|| StorageError::corrupt("it belongs to no cluster"))?;
        let builder = Builder::new_current_thread().enable_time().start_paused(true).event_interval(u32::MAX).build();
        Ok(Self {
            runtime: builder.map_err(|error| StorageError::io("start a runtime", error))?,
            barrier: None,
            tasks: Vec::new(),
            ended: Vec::new(),
            applied: backend.applied(),
            backend,
            phase,
            port: Arc::new(Port::new(origin, run)),
            reports,
            now,
            due: Due::default(),
            vote,
            opens_at: 0,
            ends: false,
        })
    }

    pub(super) fn consensus(&self) -> Option<Arc<dyn Consensus>> {
        self.backend.consensus()
    }

    pub(super) fn cluster_status(&self) -> Option<ClusterStatus> {
        self.consensus().map(|consensus| consensus.status())
    }

    /// Runs everything that can run at this time of the own clock.
    pub(super) fn run_until(&mut self, now: u64) {
        let passed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        self.advance(Duration::from_micros(passed));
        while self.poll() | self.phase.write() {
            self.run_spawned();
        }
    }

    /// Advances the clock of the runtime, which wakes the tasks whose timers are due. Without tasks there are no timers,
    /// and the runtime, which costs more than most turns, does not run.
    fn advance(&mut self, passed: Duration) {
        if self.has_tasks() || self.has_spawned() {
            if !passed.is_zero() {
                self.runtime.block_on(advance(passed));
            }
            self.run_spawned();
        } else {
            let _context = self.runtime.enter();
            let _ = pin!(advance(passed)).poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Whether the code of a server has spawned tasks of `tokio`.
    fn has_spawned(&self) -> bool {
        self.runtime.metrics().num_alive_tasks() > 0
    }

    /// Runs the tasks that the code of a server has spawned.
    fn run_spawned(&self) {
        if self.has_spawned() {
            self.runtime.block_on(async {
                // The first one ends when no task is ready; timers may then have made some ready.
                yield_now().await;
                yield_now().await;
            });
        }
    }

    /// Polls the tasks that can go on, in the order of their beginning. Returns whether there was one.
    fn poll(&mut self) -> bool {
        let _context = self.runtime.enter();
        let mut is_any = false;
        let ended = self.tasks.extract_if(.., |task| {
            if !task.flag.0.swap(false, Ordering::Relaxed) {
                return false;
            }
            is_any = true;
            let waker = Waker::from(task.flag.clone());
            match task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(done) => {
                    self.ended.push((task.work, done));
                    true
                }
                Poll::Pending => false,
            }
        });
        drop(ended.collect::<Vec<_>>());
        is_any
    }

    /// Starts a task.
    pub(super) fn spawn(&mut self, work: Work, future: impl Future<Output = Done> + Send + 'static) {
        self.tasks.push(Task { work, future: Box::pin(future), flag: Arc::new(Flag(true.into())) });
    }

    /// Whether such a task runs.
    pub(super) fn does(&self, work: Work) -> bool {
        self.tasks.iter().any(|task| task.work == work)
    }

    /// The tasks that have ended.
    pub(super) fn ended(&mut self) -> Vec<(Work, Done)> {
        std::mem::take(&mut self.ended)
    }

    pub(super) fn has_tasks(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// The barrier, while it has its keys.
    pub(super) fn open_barrier(&self) -> Option<Arc<Barrier>> {
        self.barrier.clone().filter(|barrier| !barrier.is_closed())
    }
}
