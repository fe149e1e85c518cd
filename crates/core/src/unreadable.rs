//! Unreadable records. Each is logged and affects only its own subject: neither an unseal nor work on other records
//! stops because of it.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use keepfast_framework::{Error, Records, Result};
use keepfast_storage::{ReadTx, StorageError, View};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The stored state of a record.
pub(crate) enum Stored<T> {
    /// No record.
    Absent,
    /// An unreadable record; it is logged.
    Unreadable,
    /// A record.
    Record(T),
}

impl<T> Stored<T> {
    /// The record, if it is readable.
    pub(crate) fn readable(self) -> Option<T> {
        match self {
            Stored::Record(record) => Some(record),
            Stored::Absent | Stored::Unreadable => None,
        }
    }
}

/// Reads a record. An unreadable one is logged as `what`.
pub(crate) async fn read<T: Serialize + DeserializeOwned>(
    (records, what): (&Records<T>, &'static str),
    tx: &mut ReadTx,
    view: &View,
    name: &str,
) -> Result<Stored<T>> {
    match records.get_in(tx, view, name).await {
        Ok(None) => Ok(Stored::Absent),
        Ok(Some(record)) => Ok(Stored::Record(record)),
        Err(error) if unreadable(&error) => {
            let cause = error.cause().map(ToString::to_string).unwrap_or_default();
            tracing::error!(record = what, name, %cause, "a stored record cannot be read; requests that depend on it are refused");
            Ok(Stored::Unreadable)
        }
        Err(error) => Err(error),
    }
}

/// Whether an error means that one record is damaged, and not that storage fails.
pub(crate) fn unreadable(error: &Error) -> bool {
    match error.cause().and_then(|c| c.downcast_ref::<StorageError>()) {
        Some(error) => matches!(error, StorageError::Corrupt(..)),
        // The bytes are not the JSON of a record.
        None => true,
    }
}

/// Whether an error means that storage fails, so that no other work can succeed.
pub(crate) fn storage_fails(error: &Error) -> bool {
    error.cause().is_some_and(|cause| cause.is::<StorageError>()) && !unreadable(error)
}

/// Runs work on one lease, token or mount. A panic in it becomes an error.
///
/// # Errors
/// Those of the work; 500 for a panic.
pub(crate) async fn confined<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(Error::internal("a panic")))
}
