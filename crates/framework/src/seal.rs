//! The trait of seals whose key is outside of the server: a key management service, an HSM, another server, or a key in
//! a file. Core wraps the key of a slot of the seal record with it; the crate `keepfast-seals` implements it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_crypto::locked::Key256;

/// Wraps one key with a key that is outside of the server. Has the connection and its credentials, no state of the
/// storage.
#[async_trait]
pub trait Seal: Send + Sync + 'static {
    /// The type as `sys/seal-status` returns it and the stanza is labelled: `awskms`, `static`, …
    fn kind(&self) -> &'static str;

    /// What an operator may see of the configuration, for the banner and `sys/seals`; never a credential.
    fn description(&self) -> Vec<(&'static str, String)>;

    /// Wraps a key under the current version of the seal's key. Wrapping one key twice gives different bytes.
    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError>;

    /// Unwraps a key. Uses the key of `wrapped.key_id`, not the configured one, where the service allows it.
    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError>;

    /// The id of the key that [`wrap`](Seal::wrap) would use now; `None` when only `wrap` tells it.
    async fn current_key(&self) -> Result<Option<String>, SealError> {
        Ok(None)
    }

    /// Whether a key was wrapped under the configured key, in any version, by the id that [`wrap`](Seal::wrap) has
    /// returned with it. [`unwrap`](Seal::unwrap) may use another key. True when the seal cannot tell it.
    async fn is_configured_key(&self, key_id: &str) -> Result<bool, SealError> {
        Ok(self.current_key().await?.is_none_or(|current| current == key_id))
    }

    /// Whether the seal counts its attempts with a credential, which is locked after a few wrong ones. Another seal of
    /// the same stanza then does not replace it.
    fn counts_attempts(&self) -> bool {
        false
    }

    /// Whether the seal waits for the file of a secret.
    fn waits(&self) -> bool {
        false
    }
}

/// A key wrapped by a seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// The version of the seal's key, as the service names it. At most 1,024 bytes.
    pub key_id: String,
    /// The algorithm, when the seal has several; else empty.
    pub mechanism: String,
    /// The wrapped key, as the service returned it. At most 16 KiB.
    pub blob: Bytes,
    /// The nonce, where the service returns it apart.
    pub iv: Option<Bytes>,
    /// The authentication tag, where the service returns it apart.
    pub tag: Option<Bytes>,
}

/// Why a seal does not wrap or unwrap. The class decides when the call is repeated and is shown to operators; the cause
/// is for the log only, and has no credential, query, header or body.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", class.name())]
pub struct SealError {
    /// The class of the failure.
    pub class: SealErrorClass,
    /// What happened.
    pub cause: String,
}

/// The class of a failure of a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealErrorClass {
    /// No response: connection, name, timeout, or a failure of the service.
    Unreachable,
    /// The service limits requests; with the time after which it allows another.
    Throttled(Option<Duration>),
    /// The credentials are missing, expired, or do not allow the call.
    Denied,
    /// The key is missing, disabled, deleted, or did not wrap these bytes.
    WrongKey,
    /// The configuration cannot work.
    Misconfigured,
    /// The process that talks to the HSM ended.
    Crashed,
}

impl SealErrorClass {
    /// Its name in `sys/seals`, in metrics and in the log.
    pub fn name(self) -> &'static str {
        match self {
            SealErrorClass::Unreachable => "unreachable",
            SealErrorClass::Throttled(_) => "throttled",
            SealErrorClass::Denied => "denied",
            SealErrorClass::WrongKey => "wrong_key",
            SealErrorClass::Misconfigured => "misconfigured",
            SealErrorClass::Crashed => "crashed",
        }
    }
}

impl SealError {
    /// An error of this class.
    pub fn new(class: SealErrorClass, cause: impl Into<String>) -> Self {
        SealError { class, cause: cause.into() }
    }
}
