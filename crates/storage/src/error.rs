//! Errors of the storage layer.

use std::{io, sync::Arc};

/// An error of the storage layer. Cheap to clone, because one failed write fails every commit that waited for it.
///
/// No variant carries a stored value. Some carry the storage path, which belongs in the log and not in a response.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// Another commit changed a record or listing that the batch had read. Nothing was written; run the request again.
    #[error("what the transaction read was changed by another commit")]
    Conflict,
    /// A transaction conflicted on every try, up to the limit. Nothing was written.
    #[error("a transaction was given up after too many conflicts")]
    Contended,
    /// The device has no room left. Nothing was written.
    #[error("no space left on the storage device")]
    Full,
    /// The storage path is invalid; the text says why.
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
    /// No leader is known, or none can confirm that it leads. Nothing was written.
    #[error("the cluster has no leader")]
    NoLeader,
    /// The leader changed before the commit. Nothing was written, and nothing will be: run the request again.
    #[error("the leader changed before the commit")]
    NotCommitted,
    /// The leader changed or the connection was lost during the commit: it may take effect later.
    #[error("the outcome of the commit is not known")]
    Unknown,
    /// This node has not yet applied the entry.
    #[error("this node has not applied entry {0} yet")]
    Behind(u64),
    /// This node was removed from its cluster.
    #[error("this node was removed from its cluster")]
    Removed,
    /// The list of members does not allow the change.
    #[error("the members cannot be changed so: {0}")]
    Change(#[from] keepfast_consensus::ChangeError),
    /// Another change of the members is not applied yet.
    #[error("another change of the members is open")]
    ChangeOpen,
    /// Another snapshot is being received or restored. Nothing was written.
    #[error("another snapshot is being received or restored")]
    InProgress,
    /// No other voter can become the leader.
    #[error("no other voter is in contact")]
    NoTarget,
    /// A write through a read-only transaction.
    #[error("a read-only transaction cannot write")]
    ReadOnly,
    /// An operation on a file failed.
    #[error("cannot {action}: {cause}")]
    Io {
        /// What was attempted, as in "write log segment".
        action: Arc<str>,
        /// The error of the operating system.
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
    /// This program or this node cannot use the data directory; the text says why.
    #[error("unusable data directory: {0}")]
    Layout(Arc<str>),
    /// Another process has the data directory open.
    #[error("data directory {directory} is in use by {holder}")]
    InUse {
        /// The data directory.
        directory: Arc<str>,
        /// The process that holds it, as far as known.
        holder: Arc<str>,
    },
}

impl StorageError {
    /// Whether nothing was written and nothing will be, so that the transaction can run again.
    pub fn may_run_again(&self) -> bool {
        matches!(self, Self::Conflict | Self::NotCommitted)
    }

    /// An I/O error during `action`; a full device becomes [`StorageError::Full`].
    pub fn io(action: impl Into<Arc<str>>, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { action: action.into(), cause: Arc::new(cause) },
        }
    }

    /// Like [`io`](Self::io), for errors after which [`StorageError::Full`] would be wrong, because data may have been
    /// written.
    pub(crate) fn io_kept(action: impl Into<Arc<str>>, cause: io::Error) -> Self {
        Self::Io { action: action.into(), cause: Arc::new(cause) }
    }

    /// A stored record that does not have the form that was written.
    pub fn corrupt(what: impl Into<Arc<str>>) -> Self {
        Self::Corrupt(what.into())
    }
}
