//! The seals whose key is split into shares.

use std::sync::Arc;

use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::Result;

use super::kind::SealKind;
use super::shamir::Shamir;
use super::shape::SealShape;
use super::wrap::Seal;

/// Creates a seal with a fresh key, and the shares of that key.
pub(crate) fn generate(kind: SealKind, shape: SealShape) -> Result<(Arc<dyn Seal>, Vec<SecretBytes>)> {
    match kind {
        SealKind::Shamir => {
            let (seal, shares) = Shamir::generate(shape)?;
            Ok((Arc::new(seal), shares))
        }
    }
}

/// The seal with the key of these shares; `None` when they do not combine. Only [`Seal::unwrap`] shows whether it is
/// the right key.
pub(super) fn from_shares(kind: SealKind, shape: SealShape, shares: &[SecretBytes]) -> Option<Arc<dyn Seal>> {
    match kind {
        SealKind::Shamir => Some(Arc::new(Shamir::from_shares(shape, shares)?)),
    }
}

/// The seal with this key, which [`Seal::key`] of another node has returned; `None` for bytes that are no key.
pub(super) fn from_key(kind: SealKind, key: &SecretBytes) -> Option<Arc<dyn Seal>> {
    match kind {
        SealKind::Shamir => Some(Arc::new(Shamir::from_key(key)?)),
    }
}
