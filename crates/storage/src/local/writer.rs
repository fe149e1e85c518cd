//! The single writer thread.
//!
//! It takes all waiting commits, checks and applies them in order to an uncommitted change of the state, appends those
//! that passed to the log as one frame, commits the change, calls the watchers, and sends the results. The check before
//! the append keeps conflicts out of the log; a replay evaluates the batches again. A failed write or sync stops it
//! permanently: nothing is acknowledged afterwards.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    apply::{Applier, Group},
    entry::HardState,
    log::{AppendError, Keep, Log},
    segment::Frame,
    state::{Change, Position},
};
use crate::{Batch, Index, StorageError, Write};

/// A group is closed at this size in bytes; the batch that exceeds it is the last.
const GROUP_BYTES: usize = 4 << 20;

/// A waiting commit.
pub(crate) struct Request {
    pub(crate) batch: Batch,
    pub(crate) result: oneshot::Sender<CommitResult>,
}

type CommitResult = Result<Index, StorageError>;

pub(crate) struct Writer<L> {
    pub(crate) applier: Arc<Applier>,
    pub(crate) log: L,
    /// The group that is being written.
    pub(crate) frame: Frame,
    /// The vote for this node, which is the only voter.
    pub(crate) hard: HardState,
    pub(crate) flush_interval: Duration,
    pub(crate) flush_bytes: u64,
    pub(crate) reserve_bytes: u64,
    /// Bytes logged since the last flush.
    pub(crate) unflushed: u64,
}

/// Why a group was not committed.
enum Failure {
    /// No space; nothing has changed.
    Full,
    /// No further write is allowed.
    Broken(StorageError),
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Broken(error)
    }
}

impl<L: Log> Writer<L> {
    /// Runs until the senders are dropped, then makes the state durable.
    pub(crate) fn run(mut self, requests: &Receiver<Request>) {
        loop {
            // An idle store waits without a timer.
            let received = match self.unflushed {
                0 => requests.recv().map_err(RecvTimeoutError::from),
                _ => requests.recv_timeout(self.flush_interval),
            };
            match received {
                Ok(first) => self.commit(gather(first, requests)),
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.unflushed >= self.flush_bytes {
                self.flush();
            }
        }
        self.flush();
    }

    /// Commits a group and sends the result of each request.
    fn commit(&mut self, group: Vec<Request>) {
        let results = match self.applier.stopped.get() {
            Some(reason) => Err(StorageError::Stopped(reason.clone())),
            None => self.try_commit(&group).map_err(|failure| match failure {
                Failure::Full => StorageError::Full,
                Failure::Broken(error) => self.stop(&error),
            }),
        };
        match results {
            Ok(results) => {
                for (request, result) in group.into_iter().zip(results) {
                    // The receiver may be dropped; the commit remains valid.
                    let _ = request.result.send(result);
                }
            }
            Err(error) => {
                for request in group {
                    let _ = request.result.send(Err(error.clone()));
                }
            }
        }
    }

    fn try_commit(&mut self, group: &[Request]) -> Result<Vec<CommitResult>, Failure> {
        let applier = self.applier.clone();
        let change = applier.state.begin()?;
        let (results, position) = self.apply(&change, group)?;
        if self.frame.count() == 0 {
            change.abort()?;
            return Ok(results);
        }
        // The only voter: what is durable here is committed.
        self.frame.hard.committed = position.id.index;
        match self.log.append(&mut self.frame) {
            Ok(bytes) => self.unflushed += bytes,
            Err(AppendError::Full) => {
                change.abort()?;
                return Err(Failure::Full);
            }
            Err(AppendError::Broken(error)) => return Err(error.into()),
        }
        applier.publish(change, position, |applier| {
            for (request, answer) in group.iter().zip(&results) {
                if let (Ok(index), false) = (answer, request.batch.writes.is_empty()) {
                    applier.watchers.notify(*index, &request.batch.writes);
                }
            }
        })?;
        Ok(results)
    }

    /// Checks each batch; applies it and adds it to the frame when it passes. A batch sees the earlier batches of the
    /// group. Returns the results, and the position after the last applied batch.
    fn apply(&mut self, change: &Change, requests: &[Request]) -> Result<(Vec<CommitResult>, Position), StorageError> {
        let state = &self.applier.state;
        let mut group = Group::begin(state, change)?;
        let mut last = state.position().id.index;
        self.frame.begin(last + 1, self.hard);
        let bytes: usize = requests.iter().map(|request| request.batch.encoded_len()).sum();
        let has_room = self.log.has_room(self.reserve_bytes, bytes as u64);
        let mut results = Vec::with_capacity(requests.len());
        for request in requests {
            if !group.holds(&request.batch.reads)? {
                results.push(Err(StorageError::Conflict));
                continue;
            }
            if !has_room && request.batch.writes.iter().any(|write| matches!(write, Write::Put { .. })) {
                results.push(Err(StorageError::Full));
                continue;
            }
            if !request.batch.writes.is_empty() {
                let id = self.frame.push_batch(self.hard.vote.term, &request.batch);
                group.write(id, &request.batch.writes)?;
                last = id.index;
            }
            results.push(Ok(Index(last)));
        }
        Ok((results, group.end()?))
    }

    /// Makes the state durable, so that the log before it is no longer needed.
    fn flush(&mut self) {
        if self.applier.stopped.get().is_some() {
            self.unflushed = 0;
            return;
        }
        if let Err(error) = self.applier.state.flush() {
            self.stop(&error);
            return;
        }
        self.unflushed = 0;
        let flushed = self.applier.state.position().id.index;
        if let Err(error) = self.log.purge(flushed, Keep::NOTHING) {
            self.stop(&error);
        }
    }

    /// Stops all writes and logs the reason.
    fn stop(&mut self, error: &StorageError) -> StorageError {
        let reason: Arc<str> = error.to_string().into();
        tracing::error!(error = &*reason, "the storage stops: the last writes may not be durable");
        let reason = self.applier.stopped.get_or_init(|| reason);
        self.unflushed = 0;
        StorageError::Stopped(reason.clone())
    }
}

/// The given request and those that wait behind it.
fn gather(first: Request, requests: &Receiver<Request>) -> Vec<Request> {
    let mut bytes = first.batch.encoded_len();
    let mut group = vec![first];
    while bytes < GROUP_BYTES
        && let Ok(next) = requests.try_recv()
    {
        bytes += next.batch.encoded_len();
        group.push(next);
    }
    group
}
