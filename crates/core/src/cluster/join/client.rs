//! The interface by which a node that joins calls the leader. The server implements it.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_crypto::secret::SecretString;

/// A leader to join, with the TLS settings of the connection.
#[derive(Clone, Default)]
pub struct JoinTarget {
    /// The address of its API.
    pub api_addr: String,
    /// The CA of its certificate, instead of those of the system.
    pub ca: Option<PemSource>,
    /// Whether any certificate is accepted: the exchange itself proves the other side.
    pub any_certificate: bool,
    /// The client certificate.
    pub client_certificate: Option<PemSource>,
    /// The key of the client certificate.
    pub client_key: Option<SecretPemSource>,
    /// The host name in its certificate, instead of that of the address.
    pub tls_servername: Option<String>,
}

impl fmt::Debug for JoinTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTarget").field("api_addr", &self.api_addr).finish_non_exhaustive()
    }
}

/// Certificates in PEM format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PemSource {
    /// A file, read for each connection.
    File(PathBuf),
    /// The text.
    Text(String),
}

/// A private key in PEM format.
#[derive(Clone)]
pub enum SecretPemSource {
    /// A file, read for each connection.
    File(PathBuf),
    /// The text.
    Text(SecretString),
}

/// A request of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinStep {
    /// `sys/storage/raft/bootstrap/challenge`
    Challenge,
    /// `sys/storage/raft/bootstrap/answer`
    Answer,
}

impl JoinStep {
    /// The path of the request below `/v1/`.
    pub fn path(self) -> &'static str {
        match self {
            JoinStep::Challenge => "sys/storage/raft/bootstrap/challenge",
            JoinStep::Answer => "sys/storage/raft/bootstrap/answer",
        }
    }
}

/// Why a leader was not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The TLS settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// There was no response.
    #[error("{0}")]
    Call(String),
    /// The response is an error, with its status and its texts.
    #[error("{status}: {text}")]
    Refused {
        /// The status.
        status: u16,
        /// The texts of the response.
        text: String,
    },
    /// The response is not what a leader of Keepfast returns.
    #[error("{0}")]
    Response(&'static str),
}

/// Calls leaders.
#[async_trait]
pub trait JoinClient: fmt::Debug + Send + Sync + 'static {
    /// Sends a JSON body to a leader. Returns the body of a response with status 200, of at most 1 MiB.
    ///
    /// # Errors
    /// See [`JoinError`].
    async fn send(&self, to: &JoinTarget, step: JoinStep, body: Vec<u8>) -> Result<Bytes, JoinError>;
}
