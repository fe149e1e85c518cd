//! The order of all batches, below the state: a batch is acknowledged when it is durable in the log.
//!
//! The log does not interpret batches. The state machine above it is [`State`](super::state::State), which checks
//! (`reads_hold`) and applies them. Another log, such as a replicated one, works with the same state.

use bytes::Bytes;

use crate::{Batch, StorageError};

/// A durable sequence of batches, numbered from 1 on.
///
/// Batches are appended in groups: all batches of a group are durable, or none. Each implementation passes
/// `log_suite!`.
pub(crate) trait Log: Sized + Send + 'static {
    /// The storage medium of the log.
    type Medium: Send;

    /// Reads the batches after `applied`, in order, and passes each to `apply`, with its index and encoded by
    /// [`Batch::encode`]. Returns the index of the last one.
    ///
    /// The last group may be torn: it was then never acknowledged, and is skipped.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when anything else is missing or damaged; those of `apply`.
    fn replay(
        medium: &Self::Medium,
        applied: u64,
        apply: impl FnMut(u64, Bytes) -> Result<(), StorageError>,
    ) -> Result<u64, StorageError>;

    /// Opens the log for the batches from `next` on. The state must be durable up to `next`: a torn group is not read
    /// again.
    ///
    /// # Errors
    /// Those of the medium.
    fn open(medium: Self::Medium, next: u64) -> Result<Self, StorageError>;

    /// Index of the next batch to be appended.
    fn next(&self) -> u64;

    /// Begins a group; drops batches that were pushed and not appended.
    fn clear(&mut self);

    /// Adds a batch to the group.
    fn push(&mut self, batch: &Batch);

    /// Makes the group durable. Returns its size in the log, in bytes.
    fn append(&mut self) -> Result<u64, AppendError>;

    /// Whether `bytes` can be logged and applied while `reserve` bytes stay free.
    fn has_room(&self, reserve: u64, bytes: u64) -> bool;

    /// Deletes log entries. The state is durable up to the last batch, so a replay no longer needs the log.
    ///
    /// # Errors
    /// When the content of the medium is unknown: no further append is allowed.
    fn compact(&mut self) -> Result<(), StorageError>;
}

/// Why an append failed.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// No space. The log is unchanged.
    Full,
    /// The content of the medium is unknown: no further append is allowed.
    Broken(StorageError),
}
