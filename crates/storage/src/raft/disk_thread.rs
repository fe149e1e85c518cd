//! The thread that syncs the log of a member: while it syncs one frame, the next ones wait and are merged.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use keepfast_consensus::{Frame, LogId, Vote};

use super::event::Event;
use crate::{
    StorageError,
    local::{
        apply::Applier,
        disk::Disk,
        entry::HardState,
        log::{AppendError, Keep, Log, ReadLog},
        segment,
        segmented_log::SegmentedLog,
        state::State,
    },
    simulated,
};

/// The time after which a frame is written again for which the device had no room.
const RETRY: Duration = Duration::from_millis(500);

/// What the thread does, in order.
pub(crate) enum DiskJob {
    /// Writes a frame.
    Write(Frame),
    /// Deletes entries up to this one, up to which the state is durable.
    Purge(u64),
    /// Puts the new state in the place of the current one, and begins the log again after it.
    Install(Install),
}

/// The new state is durable beside the current one.
pub(crate) struct Install {
    pub(super) vote: Vote,
    pub(super) last: LogId,
    /// Gets the result.
    pub(super) done: Sender<Result<(), StorageError>>,
}

pub(crate) struct DiskThread {
    pub(super) applier: Arc<Applier>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) log: SegmentedLog,
    pub(super) frame: segment::Frame,
    /// What the last frame has.
    pub(super) hard: HardState,
    pub(super) events: Sender<Event>,
    /// What the device had no room for. Later frames are merged into it, and none of them is acknowledged.
    pub(crate) pending: Option<Frame>,
    /// Jobs behind the frames that were merged.
    pub(crate) later: VecDeque<DiskJob>,
    /// Its sender is dropped when the node ends: nobody waits for the pending frame any more.
    pub(super) ending: Receiver<()>,
}

impl DiskThread {
    /// Runs until the senders are dropped.
    pub(super) fn run(mut self, jobs: &Receiver<DiskJob>) {
        loop {
            let job = match (self.later.pop_front(), &self.pending) {
                (Some(job), _) => Ok(job),
                (None, None) => jobs.recv().map_err(RecvTimeoutError::from),
                (None, Some(_)) => jobs.recv_timeout(RETRY),
            };
            if !self.turn(job, jobs) {
                return;
            }
        }
    }

    /// Does a job with the frames that wait behind it, or what follows from none. Returns false at the end.
    pub(crate) fn turn(&mut self, job: Result<DiskJob, RecvTimeoutError>, jobs: &Receiver<DiskJob>) -> bool {
        if self.applier.stopped.get().is_some() && !matches!(job, Err(RecvTimeoutError::Disconnected)) {
            self.pending = None;
            // An `Install` fails as its sender is dropped.
            return true;
        }
        let done = match job {
            Ok(DiskJob::Write(frame)) => {
                self.merge(frame);
                while let Ok(job) = jobs.try_recv() {
                    match job {
                        DiskJob::Write(frame) => self.merge(frame),
                        other => {
                            self.later.push_back(other);
                            break;
                        }
                    }
                }
                self.write()
            }
            Ok(DiskJob::Purge(flushed)) => self.log.purge(flushed, Keep::for_followers()),
            Ok(DiskJob::Install(install)) => {
                let result = self.install(&install);
                let _ = install.done.send(result.clone());
                result
            }
            Err(RecvTimeoutError::Timeout) => self.write(),
            Err(RecvTimeoutError::Disconnected) => {
                if self.pending.is_some() && self.applier.stopped.get().is_none() {
                    // The last try; what is not written was never acknowledged.
                    let _ = self.write();
                }
                return false;
            }
        };
        if let Err(error) = done {
            self.applier.stop(&error);
            let _ = self.events.send(Event::Failed);
        }
        true
    }

    fn merge(&mut self, frame: Frame) {
        match &mut self.pending {
            Some(pending) => pending.merge(frame),
            None => self.pending = Some(frame),
        }
    }

    /// Writes the pending frame. Without room it stays pending.
    fn write(&mut self) -> Result<(), StorageError> {
        let Some(frame) = self.pending.take() else { return Ok(()) };
        if !planted!(VoteNotStored) {
            self.hard.vote = frame.vote.unwrap_or(self.hard.vote);
        }
        self.hard.committed = self.hard.committed.max(frame.committed);
        let first = frame.entries.first().map(|entry| entry.id.index);
        self.frame.begin(first.unwrap_or(self.log.reader().last().index + 1), self.hard);
        for entry in &frame.entries {
            self.frame.push(entry.id.term, &entry.payload);
        }
        if self.append()? {
            let _ = self.events.send(Event::Persisted(frame.number));
        } else {
            self.pending = Some(frame);
        }
        Ok(())
    }

    /// Whether there was room.
    fn append(&mut self) -> Result<bool, StorageError> {
        match self.log.append(&mut self.frame) {
            Ok(_) => Ok(true),
            Err(AppendError::Full) => Ok(false),
            Err(AppendError::Broken(error)) => Err(error),
        }
    }

    /// Tries again until there is room, or the process ends.
    fn until_room(
        &mut self,
        mut step: impl FnMut(&mut Self) -> Result<bool, StorageError>,
    ) -> Result<(), StorageError> {
        while !step(self)? {
            // A simulated thread cannot wait: the node stops.
            if simulated::is_on() || !matches!(self.ending.recv_timeout(RETRY), Err(RecvTimeoutError::Timeout)) {
                return Err(StorageError::Full);
            }
        }
        Ok(())
    }

    /// Each step leaves a directory that opens: the vote comes first, since it may only grow, and an opening begins a log
    /// again that does not reach the state.
    fn install(&mut self, install: &Install) -> Result<(), StorageError> {
        // The messages that wait for earlier frames leave after it.
        self.until_room(|thread| thread.write().map(|()| thread.pending.is_none()))?;
        self.hard.vote = install.vote;
        self.frame.begin(self.log.reader().last().index + 1, self.hard);
        self.until_room(Self::append)?;
        State::enter(&*self.disk)?;
        self.log.restart(install.last)?;
        self.hard.committed = self.hard.committed.max(install.last.index);
        Ok(())
    }
}
