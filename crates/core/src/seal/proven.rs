//! A KEK that a seal has wrapped and unwrapped again, which alone may become that of a slot.

use keepfast_crypto::compare;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_framework::seal::{SealError, SealErrorClass, WrappedKey};

use super::metered::Metered;

use super::planted::planted;

/// The longest name of a key in bytes.
const MAX_KEY_ID: usize = 1024;
/// The longest wrapped key in bytes.
const MAX_BLOB: usize = 16 << 10;
/// The longest nonce, tag or algorithm name in bytes.
const MAX_PART: usize = 256;

/// A KEK and its wrapped form, which the seal has unwrapped to the same key.
pub(crate) struct ProvenKek {
    kek: Key256,
    wrapped: WrappedKey,
}

impl ProvenKek {
    /// Creates a KEK, lets the seal wrap it, and reads it back through the seal.
    pub(super) async fn by(seal: &Metered<'_>) -> Result<Self, SealError> {
        let kek = random::key();
        let wrapped = seal.wrap(&kek).await?;
        let part = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len) <= MAX_PART;
        let is_bounded = wrapped.key_id.len() <= MAX_KEY_ID
            && (1..=MAX_BLOB).contains(&wrapped.blob.len())
            && wrapped.mechanism.len() <= MAX_PART
            && part(&wrapped.iv)
            && part(&wrapped.tag);
        if !is_bounded {
            return Err(SealError::new(SealErrorClass::Misconfigured, "the wrapped key is too long"));
        }
        let read = if planted!(ReadBackSkipped) { kek.clone() } else { seal.unwrap(&wrapped).await? };
        if !compare::equal(read.expose(), kek.expose()) {
            return Err(SealError::new(SealErrorClass::WrongKey, "the wrapped key does not unwrap to the same key"));
        }
        Ok(ProvenKek { kek, wrapped })
    }

    /// As [`by`](Self::by), without counts.
    #[cfg(test)]
    pub(crate) async fn create(seal: &dyn keepfast_framework::seal::Seal) -> Result<Self, SealError> {
        let (counts, clock) = (Default::default(), keepfast_framework::clock::TestClock::default());
        Self::by(&Metered { seal, counts: &counts, clock: &clock }).await
    }

    /// The version of the seal's key that wraps it.
    pub(crate) fn key_id(&self) -> &str {
        &self.wrapped.key_id
    }

    /// The KEK.
    pub(crate) fn kek(&self) -> &Key256 {
        &self.kek
    }

    pub(crate) fn into_parts(self) -> (Key256, WrappedKey) {
        (self.kek, self.wrapped)
    }
}
