//! The single writer thread.
//!
//! It takes all waiting commits, checks and applies them in order to an uncommitted change of the state, appends those
//! that passed to the log as one group, commits the change, calls the watchers, and sends the results. A failed write
//! or sync stops it permanently: nothing is acknowledged afterwards.

use std::{
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    log::{AppendError, Log},
    state::{Change, State},
};
use crate::{Batch, Index, StorageError, Write, watch::Watchers};

/// A group is closed at this size in bytes; the batch that exceeds it is the last.
const GROUP_BYTES: usize = 4 << 20;

/// The state shared by the writer and the store.
pub(crate) struct Shared {
    pub(crate) state: State,
    pub(crate) watchers: Watchers,
    /// Why the writer has stopped.
    pub(crate) stopped: OnceLock<Arc<str>>,
}

/// A waiting commit.
pub(crate) struct Request {
    pub(crate) batch: Batch,
    pub(crate) result: oneshot::Sender<CommitResult>,
}

type CommitResult = Result<Index, StorageError>;

pub(crate) struct Writer<L> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: L,
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
    fn commit(&mut self, mut group: Vec<Request>) {
        let results = match self.shared.stopped.get() {
            Some(reason) => Err(StorageError::Stopped(reason.clone())),
            None => self.try_commit(&mut group).map_err(|failure| match failure {
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

    fn try_commit(&mut self, group: &mut [Request]) -> Result<Vec<CommitResult>, Failure> {
        let shared = self.shared.clone();
        let change = shared.state.begin()?;
        let (results, last) = self.apply(&change, group)?;
        if last < self.log.next() {
            change.abort()?;
            return Ok(results);
        }
        match self.log.append() {
            Ok(bytes) => self.unflushed += bytes,
            Err(AppendError::Full) => {
                change.abort()?;
                return Err(Failure::Full);
            }
            Err(AppendError::Broken(error)) => return Err(error.into()),
        }
        change.commit(last)?;
        for (request, result) in group.iter().zip(&results) {
            if let (Ok(index), false) = (result, request.batch.writes.is_empty()) {
                self.shared.watchers.notify(*index, &request.batch.writes);
            }
        }
        Ok(results)
    }

    /// Checks each batch and applies it when it passes. A batch sees the earlier batches of the group. Returns the
    /// results, and the index of the last applied batch.
    fn apply(&mut self, change: &Change, group: &mut [Request]) -> Result<(Vec<CommitResult>, u64), StorageError> {
        let mut records = change.records()?;
        let mut last = self.log.next() - 1;
        self.log.clear();
        let bytes: usize = group.iter().map(|request| request.batch.encoded_len()).sum();
        let has_room = self.log.has_room(self.reserve_bytes, bytes as u64);
        let mut results = Vec::with_capacity(group.len());
        for request in group {
            // A batch that passed the check is logged without its reads.
            let reads = std::mem::take(&mut request.batch.reads);
            if !records.reads_hold(&reads)? {
                results.push(Err(StorageError::Conflict));
                continue;
            }
            if !has_room && request.batch.writes.iter().any(|write| matches!(write, Write::Put { .. })) {
                results.push(Err(StorageError::Full));
                continue;
            }
            if !request.batch.writes.is_empty() {
                records.apply(&request.batch.writes)?;
                self.log.push(&request.batch);
                last += 1;
            }
            results.push(Ok(Index(last)));
        }
        Ok((results, last))
    }

    /// Makes the state durable, so that the log before it is no longer needed.
    fn flush(&mut self) {
        if self.shared.stopped.get().is_some() {
            self.unflushed = 0;
            return;
        }
        if let Err(error) = self.shared.state.flush() {
            self.stop(&error);
            return;
        }
        self.unflushed = 0;
        if let Err(error) = self.log.compact() {
            self.stop(&error);
        }
    }

    /// Stops all writes and logs the reason.
    fn stop(&mut self, error: &StorageError) -> StorageError {
        let reason: Arc<str> = error.to_string().into();
        tracing::error!(error = &*reason, "the storage stops: the last writes may not be durable");
        let reason = self.shared.stopped.get_or_init(|| reason);
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
