//! The first stage: a canonical path and a bounded body, and nothing else is proved.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::{CanonicalPath, Input, Operation, TlsSession};

/// A request as the edge understood it. Not `Debug`: it holds the token and the body.
pub struct Incoming {
    /// A fresh random id, for the answer and the audit entries.
    pub id: String,
    /// The method that asks for it.
    pub method: &'static str,
    /// What is done.
    pub operation: Operation,
    /// Where, without `/v1/`.
    pub path: CanonicalPath,
    /// The query parameters, of which `list`, `scan` and `help` are already in `operation`, and the JSON body; the captures
    /// of the path are added when its row is found.
    pub input: Input,
    /// The client token, from either header.
    pub token: Option<SecretString>,
    /// `X-Vault-Namespace`; empty for the root namespace.
    pub namespace: String,
    /// Whether the caller sent a body that the edge did not receive: it is longer than one without a live token may be.
    pub body_withheld: bool,
    /// The headers that audit devices record.
    pub headers: Vec<RecordedHeader>,
    /// `X-Vault-Wrap-TTL`: the answer is to be wrapped for this long.
    pub wrap_ttl: Option<Duration>,
    /// Where the caller connects from, after `X-Forwarded-For` was judged; `None` on a unix socket.
    pub remote: Option<SocketAddr>,
    /// The TLS session of the connection; `None` without TLS.
    pub tls: Option<Arc<TlsSession>>,
    /// What the listener lets in without a token.
    pub open: OpenCeremonies,
    /// Whether its `Accept` names a form that Prometheus reads.
    pub accepts_prometheus: bool,
}

/// Ceremonies with shares that a listener lets in without a token, because shares prove enough. Anybody can then begin or
/// cancel one, so all are off unless the listener's stanza says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenCeremonies {
    /// `sys/rekey/`: new shares (`disable_unauthed_rekey_endpoints = false`).
    pub rekey: bool,
    /// `sys/generate-root/`: a new root token (`disable_unauthed_generate_root_endpoints = false`).
    pub generate_root: bool,
}

/// A header of the request that audit devices record.
pub struct RecordedHeader {
    /// Its name in lower case.
    pub name: String,
    /// Its values.
    pub values: Vec<String>,
    /// Whether they are recorded as hashes.
    pub hmac: bool,
}
