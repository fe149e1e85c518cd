//! The thread that syncs the log of a member: while it syncs one frame, the next ones wait and are merged.

use std::sync::{
    Arc,
    mpsc::{Receiver, Sender},
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
};

/// What the thread does, in order.
pub(super) enum DiskJob {
    /// Writes a frame.
    Write(Frame),
    /// Deletes entries up to this one, up to which the state is durable.
    Purge(u64),
    /// Puts the new state in the place of the current one, and begins the log again after it.
    Install(Install),
}

/// The new state is durable beside the current one.
pub(super) struct Install {
    pub(super) vote: Vote,
    pub(super) last: LogId,
    /// Gets the result.
    pub(super) done: Sender<Result<(), StorageError>>,
}

pub(super) struct DiskThread {
    pub(super) applier: Arc<Applier>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) log: SegmentedLog,
    pub(super) frame: segment::Frame,
    /// What the last frame has.
    pub(super) hard: HardState,
    pub(super) events: Sender<Event>,
}

impl DiskThread {
    /// Runs until the senders are dropped.
    pub(super) fn run(mut self, jobs: &Receiver<DiskJob>) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| jobs.recv().ok()) {
            if self.applier.stopped.get().is_some() {
                // An `Install` fails as its sender is dropped.
                continue;
            }
            let done = match job {
                DiskJob::Write(mut frame) => {
                    while let Ok(job) = jobs.try_recv() {
                        match job {
                            DiskJob::Write(later) => frame.merge(later),
                            other => {
                                next = Some(other);
                                break;
                            }
                        }
                    }
                    self.write(&frame)
                }
                DiskJob::Purge(flushed) => self.log.purge(flushed, Keep::FOR_FOLLOWERS),
                DiskJob::Install(install) => {
                    let result = self.install(&install);
                    let _ = install.done.send(result.clone());
                    result
                }
            };
            if let Err(error) = done {
                self.applier.stop(&error);
                let _ = self.events.send(Event::Failed);
            }
        }
    }

    fn write(&mut self, frame: &Frame) -> Result<(), StorageError> {
        self.hard.vote = frame.vote.unwrap_or(self.hard.vote);
        self.hard.committed = self.hard.committed.max(frame.committed);
        let first = frame.entries.first().map(|entry| entry.id.index);
        self.frame.begin(first.unwrap_or(self.log.reader().last().index + 1), self.hard);
        for entry in &frame.entries {
            self.frame.push(entry.id.term, &entry.payload);
        }
        self.append()?;
        let _ = self.events.send(Event::Persisted(frame.number));
        Ok(())
    }

    fn append(&mut self) -> Result<(), StorageError> {
        match self.log.append(&mut self.frame) {
            Ok(_) => Ok(()),
            // A member without room can acknowledge nothing, and so takes no part.
            Err(AppendError::Full) => Err(StorageError::Full),
            Err(AppendError::Broken(error)) => Err(error),
        }
    }

    /// Each step leaves a directory that opens: the vote comes first, since it may only grow, and an opening begins a log
    /// again that does not reach the state.
    fn install(&mut self, install: &Install) -> Result<(), StorageError> {
        self.hard.vote = install.vote;
        self.frame.begin(self.log.reader().last().index + 1, self.hard);
        self.append()?;
        State::enter(&*self.disk)?;
        self.log.restart(install.last)?;
        self.hard.committed = self.hard.committed.max(install.last.index);
        Ok(())
    }
}
