//! The seal: what unlocks the root key. How shares are collected and kept, and how they change, is [`custody`], [`shares`]
//! and [`rotation`]; what wraps the root key is a [`Seal`].

pub(crate) mod config;
pub(crate) mod custody;
pub(crate) mod generation;
pub(crate) mod rotation;
mod shamir;
pub(crate) mod shares;
#[cfg(test)]
mod suite;

use std::sync::Arc;

use async_trait::async_trait;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::{Error, Result};
use serde::{Deserialize, Serialize};

pub(crate) use config::{SealConfig, SealShape};
pub(crate) use custody::Custody;
use shamir::Shamir;
pub(crate) use shares::Unsealing;

/// Wraps the root key with a key that is kept elsewhere: by people who hold shares, or by a key management service.
///
/// A seal has its key, or the connection to it, and no state of the storage. Every implementation passes `seal_suite!`.
#[async_trait]
pub(crate) trait Seal: Send + Sync + 'static {
    /// Its type.
    fn kind(&self) -> SealKind;

    /// Wraps a key under the current key of the seal. Wrapping one key twice gives different bytes.
    async fn wrap(&self, key: &Key256) -> Result<Wrapped, SealError>;

    /// The key that [`wrap`](Seal::wrap) has wrapped.
    async fn unwrap(&self, wrapped: &Wrapped) -> Result<Key256, SealError>;
}

/// A key as a seal has wrapped it. Opaque: only the seal reads it, and may note in it which of its keys it used.
pub(crate) struct Wrapped(pub(crate) Vec<u8>);

/// Why a seal does not unwrap a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    /// It was wrapped under another key, or the bytes have been changed since.
    #[error("the key was not wrapped under this key of the seal")]
    WrongKey,
    /// The bytes are authentic, but they are no key of 32 bytes.
    #[error("what was unwrapped is no key of 32 bytes")]
    NoKey,
}

impl From<SealError> for Error {
    fn from(error: SealError) -> Self {
        Error::internal(error)
    }
}

/// A type of seal, as the configuration, the stored record and `sys/seal-status` call it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SealKind {
    /// Shares of an unseal key, which people hold.
    #[default]
    Shamir,
}

impl SealKind {
    /// The type of this name; `None` for one that this server does not have.
    pub fn parse(name: &str) -> Option<Self> {
        [SealKind::Shamir].into_iter().find(|kind| kind.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            SealKind::Shamir => "shamir",
        }
    }

    /// A seal with a fresh key, and the shares of that key.
    pub(crate) fn generate(self, shape: SealShape) -> Result<(Arc<dyn Seal>, Vec<SecretBytes>)> {
        match self {
            SealKind::Shamir => {
                let (seal, shares) = Shamir::generate(shape)?;
                Ok((Arc::new(seal), shares))
            }
        }
    }

    /// The seal with the key that these shares make; `None` when they make none. Whether it is the right key, only
    /// [`Seal::unwrap`] shows.
    pub(crate) fn from_shares(self, shape: SealShape, shares: &[SecretBytes]) -> Option<Arc<dyn Seal>> {
        match self {
            SealKind::Shamir => Some(Arc::new(Shamir::from_shares(shape, shares)?)),
        }
    }
}
