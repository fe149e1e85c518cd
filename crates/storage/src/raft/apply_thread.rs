//! The thread that applies committed entries of a member, returns their results and makes the state durable.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use keepfast_consensus::{Entry, Kind, LogId, Vote};
use parking_lot::Mutex;

use super::{
    disk_thread::{DiskJob, Install},
    event::{Event, Reply},
    receive::Received,
};
use crate::{
    Incarnation, Index, NodeId, StorageError,
    local::{
        apply::{Applier, Decision},
        disk::Disk,
        open_layout::OpenLayout,
        state::State,
    },
};

/// A group is closed at this size in bytes or entries.
const GROUP_BYTES: usize = 4 << 20;
const GROUP_ENTRIES: usize = 256;
/// The driver is woken at this number of applied bytes: it may hold back entries until they are applied.
const UNNOTED_BYTES: u64 = 1 << 20;

/// What the thread does, in order.
pub(crate) enum ApplyJob {
    /// Applies entries, and returns the results to the calls that wait here, by their indexes.
    Entries(Vec<Entry>, Vec<(u64, Reply<Index>)>),
    /// Replaces the state by one that is durable beside it.
    Install(Box<NewState>),
    /// Deletes a snapshot that is not installed, and returns this result to its sender.
    Discard(Box<Received>, Result<(), StorageError>),
    /// Stores that no list has a longer election timeout of this node any more.
    LowerTimeout(u32),
    /// Stores which nodes were members.
    NoteRemoved(Vec<(NodeId, Incarnation)>),
}

/// A state that has been received.
pub(crate) struct NewState {
    pub(super) state: State,
    pub(super) vote: Vote,
    pub(super) last: LogId,
}

/// What was applied since the driver has looked: the last index, and bytes. Nothing waits for that in the driver as long
/// as only batches are applied, so it looks when something else wakes it.
#[derive(Default)]
pub(crate) struct Unnoted(Mutex<(u64, u64)>);

impl Unnoted {
    /// Adds a group. Returns the bytes of all.
    fn add(&self, index: u64, bytes: u64) -> u64 {
        let mut unnoted = self.0.lock();
        *unnoted = (index, unnoted.1 + bytes);
        unnoted.1
    }

    /// Takes it; `None` when nothing was applied.
    pub(super) fn take(&self) -> Option<(u64, u64)> {
        let taken = std::mem::take(&mut *self.0.lock());
        (taken.0 > 0).then_some(taken)
    }
}

pub(crate) struct ApplyThread {
    pub(super) applier: Arc<Applier>,
    pub(super) layout: Arc<OpenLayout>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) jobs_of_disk: Sender<DiskJob>,
    pub(super) events: Sender<Event>,
    pub(super) unnoted: Arc<Unnoted>,
    pub(super) flush_interval: Duration,
    pub(super) flush_bytes: u64,
    /// Bytes applied since the last flush.
    pub(crate) unflushed: u64,
    /// A job of another kind behind the last group.
    pub(crate) next: Option<ApplyJob>,
    /// A state that the thread of the disk puts in its place.
    pub(crate) installing: Option<Installing>,
}

/// A state that is durable, until its place is, too.
pub(crate) struct Installing {
    pub(crate) state: State,
    pub(crate) result: Receiver<Result<(), StorageError>>,
}

impl ApplyThread {
    /// Runs until the sender is dropped, then makes the state durable.
    pub(super) fn run(mut self, jobs: &Receiver<ApplyJob>) {
        loop {
            let job = match (self.next.take(), self.unflushed) {
                (Some(job), _) => Ok(job),
                (None, 0) => jobs.recv().map_err(RecvTimeoutError::from),
                (None, _) => jobs.recv_timeout(self.flush_interval),
            };
            let is_end = matches!(job, Err(RecvTimeoutError::Disconnected));
            self.turn(job, jobs);
            if let Some(installing) = self.installing.take() {
                let result = installing.result.recv();
                self.installed(installing.state, result.ok());
            }
            if is_end {
                return;
            }
        }
    }

    /// Does a job, or what follows from none. If it leaves `installing`, the next job follows after
    /// [`installed`](Self::installed).
    pub(crate) fn turn(&mut self, job: Result<ApplyJob, RecvTimeoutError>, jobs: &Receiver<ApplyJob>) {
        let done = match job {
            Ok(ApplyJob::Entries(entries, waiting)) => {
                self.next = self.entries(entries, waiting, jobs);
                if self.unflushed >= self.flush_bytes { self.flush() } else { Ok(()) }
            }
            Ok(ApplyJob::Install(new)) => {
                self.install(*new);
                Ok(())
            }
            Ok(ApplyJob::Discard(received, result)) => {
                received.discard(&*self.disk, result);
                Ok(())
            }
            Ok(ApplyJob::LowerTimeout(election_ms)) => {
                self.lower_timeout(election_ms);
                Ok(())
            }
            Ok(ApplyJob::NoteRemoved(removed)) => {
                if let Err(error) = self.layout.change(|layout| layout.note_removed(&*self.disk, removed)) {
                    // After a restart they are unknown, and may send messages of Raft.
                    tracing::warn!(%error, "the removed members are not stored");
                }
                Ok(())
            }
            Err(_) => self.flush(),
        };
        if let Err(error) = done {
            self.fail(&error);
        }
    }

    /// Applies entries, and those that wait behind them, as one group. Returns a job of another kind behind them.
    fn entries(
        &mut self,
        mut entries: Vec<Entry>,
        mut waiting: Vec<(u64, Reply<Index>)>,
        jobs: &Receiver<ApplyJob>,
    ) -> Option<ApplyJob> {
        let mut bytes = size(&entries);
        let mut next = None;
        while bytes < GROUP_BYTES && entries.len() < GROUP_ENTRIES && next.is_none() {
            match jobs.try_recv() {
                Ok(ApplyJob::Entries(later, replies)) => {
                    bytes += size(&later);
                    entries.extend(later);
                    waiting.extend(replies);
                }
                Ok(other) => next = Some(other),
                Err(_) => break,
            }
        }
        if let Err(error) = self.group(entries, waiting, bytes as u64) {
            self.fail(&error);
        }
        next
    }

    fn group(
        &mut self,
        entries: Vec<Entry>,
        waiting: Vec<(u64, Reply<Index>)>,
        bytes: u64,
    ) -> Result<(), StorageError> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let (first, index) = (first.id.index, last.id.index);
        let is_plain = entries.iter().all(|entry| entry.kind() == Ok(Kind::Batch));
        let decisions = match self.applier.stopped() {
            Some(error) => Err(error),
            None => self.applier.apply(entries),
        };
        let decisions = match decisions {
            Ok(decisions) => decisions,
            Err(error) => {
                // They are committed: without room for the state they take effect at the next start.
                let outcome = if matches!(error, StorageError::Full) { StorageError::Unknown } else { error.clone() };
                for (_, reply) in waiting {
                    let _ = reply.send(Err(outcome.clone()));
                }
                return Err(error);
            }
        };
        self.unflushed += bytes;
        if self.unnoted.add(index, bytes) >= UNNOTED_BYTES || !is_plain {
            let _ = self.events.send(Event::Applied);
        }
        for (index, reply) in waiting {
            let decision = index.checked_sub(first).and_then(|at| decisions.get(usize::try_from(at).ok()?));
            let _ = reply.send(match decision {
                Some(Decision::Passed) => Ok(Index(index)),
                Some(Decision::Conflict) => Err(StorageError::Conflict),
                Some(Decision::Refused) => Err(StorageError::corrupt("an entry of the restore does not fit")),
                None => Err(StorageError::Unknown),
            });
        }
        Ok(())
    }

    /// Makes the state durable, so that the log before it is no longer needed by this node.
    fn flush(&mut self) -> Result<(), StorageError> {
        if self.unflushed == 0 || self.applier.stopped.get().is_some() {
            self.unflushed = 0;
            return Ok(());
        }
        let state = self.applier.state();
        // What is applied while it flushes may not be durable.
        let flushed = state.position().id.index;
        if !planted!(PurgeBeforeFlush) {
            state.flush()?;
        }
        self.unflushed = 0;
        let _ = self.jobs_of_disk.send(DiskJob::Purge(flushed));
        Ok(())
    }

    fn install(&mut self, new: NewState) {
        let (done, result) = channel();
        let _ = self.jobs_of_disk.send(DiskJob::Install(Install { vote: new.vote, last: new.last, done }));
        self.installing = Some(Installing { state: new.state, result });
    }

    /// Enters a state, with the result of the thread of the disk; `None` when that has ended.
    pub(crate) fn installed(&mut self, state: State, result: Option<Result<(), StorageError>>) {
        let result = result.unwrap_or_else(|| Err(self.applier.stopped().unwrap_or(StorageError::Closed)));
        if let Err(error) = result.and_then(|()| self.enter(state)) {
            self.fail(&error);
        }
    }

    fn enter(&mut self, state: State) -> Result<(), StorageError> {
        self.unflushed = 0;
        if self.layout.read(|layout| layout.joining) {
            // A caller that waits for the end of the joining opens the records then, and must not receive the replacement
            // of what it has opened.
            self.layout.change_and(|layout| layout.complete(&*self.disk), || self.applier.replace(state))?;
        } else {
            self.applier.replace(state);
        }
        let _ = self.events.send(Event::Installed);
        Ok(())
    }

    fn lower_timeout(&self, election_ms: u32) {
        if let Err(error) = self.layout.change(|layout| layout.lower(&*self.disk, election_ms)) {
            // The longer time is right as well.
            tracing::warn!(%error, "a shorter election timeout is not stored");
        }
    }

    fn fail(&mut self, error: &StorageError) {
        if self.applier.stopped.get().is_none() {
            self.applier.stop(error);
        }
        self.unflushed = 0;
        let _ = self.events.send(Event::Failed);
    }
}

fn size(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.payload.len() + 32).sum()
}
