//! The order of all batches, below the state: a batch is acknowledged when the log has it.
//!
//! The log knows nothing of what batches do; the state machine above it is [`State`](super::state::State), which checks
//! (`hold`) and applies them. Another log, such as one that other nodes have too, needs no other state.

use bytes::Bytes;

use crate::{Batch, StorageError};

/// A durable sequence of batches, numbered from 1 on.
///
/// Batches are appended in groups: all of a group are durable, or none. Each implementation passes `log_suite!`.
pub(crate) trait Log: Sized + Send + 'static {
    /// Where it is.
    type Medium: Send;

    /// Reads the batches that come after `applied`, in order, and gives each to `apply`, with its index and encoded as by
    /// [`Batch::encode`]. Returns the index of the last one.
    ///
    /// The last group may be torn: then it was never acknowledged, and is left out.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when anything else is missing or damaged; those of `apply`.
    fn replay(
        medium: &Self::Medium,
        applied: u64,
        apply: impl FnMut(u64, Bytes) -> Result<(), StorageError>,
    ) -> Result<u64, StorageError>;

    /// Opens the log for the batches from `next` on. The state must be durable up to there: what was torn is not read again.
    ///
    /// # Errors
    /// Those of the medium.
    fn open(medium: Self::Medium, next: u64) -> Result<Self, StorageError>;

    /// Index of the next batch to be appended.
    fn next(&self) -> u64;

    /// Begins a group; forgets what was pushed and not appended.
    fn clear(&mut self);

    /// Adds a batch to the group.
    fn push(&mut self, batch: &Batch);

    /// Makes the group durable. Returns how many bytes that took.
    fn append(&mut self) -> Result<u64, AppendError>;

    /// Whether `bytes` can be logged and applied with `reserve` bytes of room left.
    fn has_room(&self, reserve: u64, bytes: u64) -> bool;

    /// The state is durable up to the last batch: nothing in the log is needed for a replay any more.
    ///
    /// # Errors
    /// When it is not known what is on the medium: nothing may be appended any more.
    fn compact(&mut self) -> Result<(), StorageError>;
}

/// What became of an append that failed.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// There was no room. The log is as before.
    Full,
    /// It is not known what is on the medium: nothing may be appended any more.
    Broken(StorageError),
}
