//! A request as the edge passes it to the kernel: with a canonical path and a bounded body, and not yet authenticated.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::secret::SecretString;

use crate::{CanonicalPath, Input, Operation, StateIndex, TlsSession};

/// The part of a request that only a node of a cluster evaluates.
#[derive(Clone, Default)]
pub struct ClusterPart {
    /// `X-Vault-Index`: the state that the request must see.
    pub index: Option<StateIndex>,
    /// `X-Vault-Inconsistent: forward-active-node`: a node without that state passes the request to the leader.
    pub forward_when_behind: bool,
    /// `X-Vault-Forward: active-node`: the leader handles the request.
    pub forward: bool,
    /// `X-Vault-No-Request-Forwarding`: the caller is redirected to the leader. The target of the request, from its
    /// first slash on.
    pub redirect: Option<String>,
    /// The name of the node that passed the request to this one. Not a header: only the cluster port sets it.
    pub forwarded_from: Option<String>,
    /// Whether nothing has proved the caller: the path needs no token. Not a header.
    pub is_unproven: bool,
}

/// The `Authorization` header, apart from the token.
#[derive(Clone, Default)]
pub enum Authorization {
    /// None, or one of another scheme.
    #[default]
    None,
    /// `Bearer`: the token of the request is from here.
    Bearer,
    /// `Basic`: the credentials, in base64. Only the token endpoint of OIDC providers reads them.
    Basic(SecretString),
}

/// A request as the edge read it. Not `Debug`: it holds the token and the body.
#[derive(Clone)]
pub struct Incoming {
    /// A fresh random id, for the response and the audit entries.
    pub id: String,
    /// The HTTP method.
    pub method: &'static str,
    /// The operation.
    pub operation: Operation,
    /// The path, without `/v1/`.
    pub path: CanonicalPath,
    /// The query parameters and the JSON body. `list`, `scan` and `help` are already in `operation`; the captures of
    /// the path are added when its row is found.
    pub input: Input,
    /// The client token, from either header.
    pub token: Option<SecretString>,
    /// The `Authorization` header.
    pub authorization: Authorization,
    /// The values of `X-Vault-MFA`: credentials for the MFA of a login. Only logins read them.
    pub mfa: Vec<SecretString>,
    /// `X-Vault-Namespace`; empty for the root namespace.
    pub namespace: String,
    /// Whether the edge did not receive the body, because it is longer than allowed without a live token.
    pub body_withheld: bool,
    /// The audited headers.
    pub headers: Vec<AuditedHeader>,
    /// `X-Vault-Wrap-TTL`: how long the response stays wrapped.
    pub wrap_ttl: Option<Duration>,
    /// The address of the caller, after `X-Forwarded-For` was evaluated; `None` on a unix socket.
    pub remote: Option<SocketAddr>,
    /// The TLS session of the connection; `None` without TLS.
    pub tls: Option<Arc<TlsSession>>,
    /// What the listener allows without a token.
    pub open: UnauthedEndpoints,
    /// Whether `Accept` names a format of Prometheus.
    pub accepts_prometheus: bool,
    /// What only a node of a cluster evaluates; `None` for most requests.
    pub cluster: Option<Box<ClusterPart>>,
}

/// Operations with shares that a listener allows without a token, because the shares authenticate. Any client can then
/// start or cancel one, so all are off unless the listener's stanza allows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnauthedEndpoints {
    /// `sys/rekey/`: new shares (`disable_unauthed_rekey_endpoints = false`).
    pub rekey: bool,
    /// `sys/generate-root/`: a new root token (`disable_unauthed_generate_root_endpoints = false`).
    pub generate_root: bool,
}

/// An audited header of the request.
#[derive(Clone)]
pub struct AuditedHeader {
    /// Its name in lower case.
    pub name: String,
    /// Its values.
    pub values: Vec<String>,
    /// Whether audit entries have the HMAC of the values.
    pub hmac: bool,
}
