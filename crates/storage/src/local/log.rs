//! The log of entries, below the state: what an entry changes is acknowledged when the entry is durable in the log.
//!
//! The log does not interpret entries; [`apply`](super::apply) does. It also keeps the hard state of the node.

use std::ops::Range;

use super::{
    entry::{Entry, HardState, LogId},
    segment::Frame,
};
use crate::{StorageError, raft::boot::WINDOW, simulated};

/// A durable sequence of entries with consecutive indexes, and the hard state.
///
/// All of a frame is durable, or nothing of it. Each implementation passes `log_suite!`.
pub(crate) trait Log: Sized + Send + 'static {
    /// The storage medium of the log.
    type Medium: Send;
    /// Its reading side.
    type Reader: ReadLog;

    /// Creates a log without entries, durably: the next entry follows `base`. Deletes a log that exists.
    ///
    /// # Errors
    /// Those of the medium.
    fn create(medium: Self::Medium, base: LogId, hard: HardState) -> Result<Self, StorageError>;

    /// Opens a log. The state is durable up to `applied`: the log is started again after it when it does not reach it.
    ///
    /// The last frame may be torn: it was then never acknowledged, and is left out. Everything that a reader returns
    /// after the opening is durable.
    ///
    /// A last frame that was synced, and that the device has damaged since, looks like a torn one and is left out, too:
    /// nothing behind it shows that it was complete. A member then lacks entries, or a vote, that it has acknowledged.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when an entry after `applied` is missing or damaged; those of the medium.
    fn open(medium: Self::Medium, applied: LogId) -> Result<Self, StorageError>;

    /// Its reading side, which can be used while another thread appends.
    fn reader(&self) -> Self::Reader;

    /// Makes a frame durable, and returns its size in the log, in bytes.
    ///
    /// A frame with entries that do not follow the last one replaces the entries from its first index on. Without
    /// entries it stores the hard state.
    fn append(&mut self, frame: &mut Frame) -> Result<u64, AppendError>;

    /// Whether `bytes` can be logged and applied while `reserve` bytes stay free.
    fn has_room(&self, reserve: u64, bytes: u64) -> bool;

    /// Deletes entries that are no longer needed. The state is durable up to the entry `flushed`.
    ///
    /// # Errors
    /// When the content of the medium is unknown: no further append is allowed.
    fn purge(&mut self, flushed: u64, keep: Keep) -> Result<(), StorageError>;

    /// Deletes all entries, durably: the next one follows `base`. The state is durable up to it.
    ///
    /// # Errors
    /// Those of the medium: no further append is allowed.
    fn restart(&mut self, base: LogId) -> Result<(), StorageError>;
}

/// The reading side of a [`Log`]. It shows what is durable.
pub(crate) trait ReadLog: Clone + Send + Sync + 'static {
    /// The id before the first entry.
    fn base(&self) -> LogId;

    /// The id of the last entry, or that of the base.
    fn last(&self) -> LogId;

    /// The hard state. Its committed index is not after the last entry.
    fn hard_state(&self) -> HardState;

    /// The term of an entry or of the base; `None` for an entry before the base or after the last.
    fn term(&self, index: u64) -> Option<u64>;

    /// The base, and from which index on entries have which term, where it differs from the one before.
    fn terms(&self) -> (LogId, Vec<(u64, u64)>);

    /// The first entry of the last ones that have this number of bytes in the log, or of all.
    fn first_of_last(&self, bytes: u64) -> u64;

    /// Reads entries in order until `bytes` are exceeded, at least one.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when an entry is damaged or not in the log; [`StorageError::Layout`] for an entry of an
    /// unknown kind.
    fn entries(&self, range: Range<u64>, bytes: usize) -> Result<Vec<Entry>, StorageError>;
}

/// Which entries a purge keeps, although the state is durable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// Number of last entries, for followers that are behind.
    pub(crate) trailing: u64,
    /// The size of the log in bytes above which fewer than `trailing` are kept.
    pub(crate) bytes: u64,
}

impl Keep {
    /// For a node of a cluster. A leader reads for followers what it has not in memory any more, and sends a snapshot to one
    /// that is further behind. The places of the trailing entries take about 2 MiB of memory.
    pub(crate) const FOR_FOLLOWERS: Self = Self { trailing: 50_000, bytes: 8 * WINDOW };

    /// [`FOR_FOLLOWERS`](Self::FOR_FOLLOWERS), except in the simulation of nodes.
    pub(crate) fn for_followers() -> Self {
        let kept = |window| Self { trailing: window / 256, bytes: 2 * window };
        simulated::window().map_or(Self::FOR_FOLLOWERS, kept)
    }

    /// For a node without followers.
    pub(crate) const NOTHING: Self = Self { trailing: 0, bytes: 0 };
}

/// Why an append failed.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// No space. The log is unchanged.
    Full,
    /// The content of the medium is unknown: no further append is allowed.
    Broken(StorageError),
}
