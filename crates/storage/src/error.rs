//! What can go wrong below the barrier.

use std::{io, sync::Arc};

/// A failure of the storage layer. Cheap to clone, because one failed write answers every commit that waited for it.
///
/// No variant carries a stored value; some name the storage path, which belongs in the log and not in an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// Something that the batch had read was changed by another commit. Nothing was written; run the request again.
    #[error("what the transaction read was changed by another commit")]
    Conflict,
    /// A transaction conflicted each time that it ran, too often to be tried again. Nothing was written.
    #[error("a transaction was given up after too many conflicts")]
    Contended,
    /// The device has no room left. Nothing was written.
    #[error("no space left on the storage device")]
    Full,
    /// The storage path is not acceptable; the text says why.
    #[error("invalid storage path: {0}")]
    InvalidKey(&'static str),
    /// The batch is larger than the store accepts.
    #[error("a batch of {size} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Size of the encoded batch in bytes.
        size: usize,
        /// The largest size accepted, in bytes.
        limit: usize,
    },
    /// Another node of the cluster takes commits. Nothing was written.
    #[error("this node does not lead its cluster")]
    NotLeader,
    /// A write through a read-only transaction.
    #[error("a read-only transaction cannot write")]
    ReadOnly,
    /// An operation on a file failed.
    #[error("cannot {action}: {cause}")]
    Io {
        /// What was attempted, as in "write log segment".
        action: Arc<str>,
        /// What the operating system answered.
        cause: Arc<io::Error>,
    },
    /// A stored record is damaged, was moved to another path, or was tampered with.
    #[error("corrupt storage: {0}")]
    Corrupt(Arc<str>),
    /// The store or the barrier has been closed.
    #[error("the storage is closed")]
    Closed,
    /// An earlier write or sync failed, so the store accepts nothing more until the process is started again.
    #[error("the storage has stopped after a failed write and needs a restart: {0}")]
    Stopped(Arc<str>),
    /// The data directory is not one that this program or this node can use; the text says why.
    #[error("unusable data directory: {0}")]
    Layout(Arc<str>),
    /// Another process has the data directory open.
    #[error("data directory {directory} is in use by {holder}")]
    InUse {
        /// The data directory.
        directory: Arc<str>,
        /// Which process holds it, as far as known.
        holder: Arc<str>,
    },
}

impl StorageError {
    /// An I/O failure while doing `action`; a full device becomes [`StorageError::Full`].
    pub fn io(action: impl Into<Arc<str>>, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { action: action.into(), cause: Arc::new(cause) },
        }
    }

    /// As [`io`](Self::io), for failures after which a full device is more than that.
    pub(crate) fn io_kept(action: impl Into<Arc<str>>, cause: io::Error) -> Self {
        Self::Io { action: action.into(), cause: Arc::new(cause) }
    }

    /// A stored record that cannot be what was written.
    pub fn corrupt(what: impl Into<Arc<str>>) -> Self {
        Self::Corrupt(what.into())
    }
}
