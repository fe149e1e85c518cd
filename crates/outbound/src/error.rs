//! Why a call failed, without what a URL or a header may hide.

use std::error::Error;
use std::io;
use std::time::Duration;

/// Settings that no call can be made with. The text names files and settings, not their content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub(crate) String);

/// A call without a response. The text names the host and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{host}: {failure}")]
pub struct CallError {
    /// The host and port of the URL, or the path of the Unix socket.
    pub host: String,
    /// Why there is no response.
    pub failure: Failure,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection was open in time.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The response was not complete in time.
    #[error("no response within {0:?}")]
    Timeout(Duration),
    /// The body of the response is longer than this number of bytes.
    #[error("the response is longer than {0} bytes")]
    TooLarge(usize),
    /// TLS: one side does not trust the other, or they have no version in common.
    #[error("tls: {0}")]
    Tls(rustls::Error),
    /// No connection could be opened, for the reason that the system or the proxy gives.
    #[error("{0}")]
    Unreachable(String),
    /// The connection ended early, or what came is not HTTP.
    #[error("{0}")]
    Broken(String),
}

/// The error of a connection that took too long to open.
#[derive(Debug, thiserror::Error)]
#[error("the connection took too long")]
pub(crate) struct ConnectTimeout(pub(crate) Duration);

impl Failure {
    /// What an error of a connector or of hyper means. `opened` says whether there was a connection.
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

/// An error as another type, also where an I/O error has it inside.
fn inner<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let wrapped: &(dyn Error + 'static) = error.downcast_ref::<io::Error>()?.get_ref()?;
    wrapped.downcast_ref()
}
