//! The trait of seals, which wrap the root key.

use async_trait::async_trait;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::Error;

use super::kind::SealKind;

/// Wraps the root key with a key outside of the storage: in shares that operators hold, or in a key management service.
///
/// A seal has its key, or the connection to it, and no state of the storage. Every implementation passes `seal_suite!`.
#[async_trait]
pub(crate) trait Seal: Send + Sync + 'static {
    /// Its type.
    fn kind(&self) -> SealKind;

    /// Wraps a key under the current key of the seal. Wrapping one key twice gives different bytes.
    async fn wrap(&self, key: &Key256) -> Result<Wrapped, SealError>;

    /// Unwraps a key that [`wrap`](Seal::wrap) has wrapped.
    async fn unwrap(&self, wrapped: &Wrapped) -> Result<Key256, SealError>;

    /// The key from which another node makes the same seal; empty when its key is outside of the server.
    fn key(&self) -> SecretBytes;
}

/// A key wrapped by a seal. Opaque: only the seal reads it, and it may contain the version of the seal's key.
pub(crate) struct Wrapped(pub(crate) Vec<u8>);

/// Why a seal does not unwrap a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    /// The key was wrapped under another key, or the bytes have changed since.
    #[error("the key was not wrapped under this key of the seal")]
    WrongKey,
    /// The bytes are authentic, but not a key of 32 bytes.
    #[error("what was unwrapped is no key of 32 bytes")]
    NoKey,
}

impl From<SealError> for Error {
    fn from(error: SealError) -> Self {
        Error::internal(error)
    }
}
