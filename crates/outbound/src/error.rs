//! Errors of calls. Their texts contain no path, query or header, because those may contain secrets.

use std::error::Error;
use std::io;
use std::time::Duration;

/// Invalid settings. The text contains the names of files and settings, not their content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub(crate) String);

/// A call without a response. The text contains the host and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{host}: {failure}")]
pub struct CallError {
    /// The host and port of the URL, or the path of the Unix socket.
    pub host: String,
    /// The cause.
    pub failure: Failure,
}

/// The cause of a [`CallError`].
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection was established within this time.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The response was not complete within this time.
    #[error("no response within {0:?}")]
    Timeout(Duration),
    /// The body of the response is longer than this number of bytes.
    #[error("the response is longer than {0} bytes")]
    TooLarge(usize),
    /// TLS: one side does not trust the other, or they have no common version.
    #[error("tls: {0}")]
    Tls(rustls::Error),
    /// The connection could not be established; the text is the reason of the system or the proxy.
    #[error("{0}")]
    Unreachable(String),
    /// The connection ended early, or the response is not HTTP.
    #[error("{0}")]
    Broken(String),
}

/// The error of a connection attempt that exceeds its timeout.
#[derive(Debug, thiserror::Error)]
#[error("the connection took too long")]
pub(crate) struct ConnectTimeout(pub(crate) Duration);

impl Failure {
    /// Converts an error of a connector or of hyper. `opened` is whether a connection was established.
    pub(crate) fn of(error: &(dyn Error + 'static), opened: bool) -> Self {
        let mut deepest = error;
        loop {
            if let Some(tls) = inner::<rustls::Error>(deepest) {
                return Failure::Tls(tls.clone());
            }
            if let Some(ConnectTimeout(limit)) = inner(deepest) {
                return Failure::ConnectTimeout(*limit);
            }
            match deepest.source() {
                Some(next) => deepest = next,
                None if opened => return Failure::Broken(deepest.to_string()),
                None => return Failure::Unreachable(deepest.to_string()),
            }
        }
    }
}

/// Finds an error of type `T`, also inside of an I/O error.
fn inner<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let wrapped: &(dyn Error + 'static) = error.downcast_ref::<io::Error>()?.get_ref()?;
    wrapped.downcast_ref()
}
