//! Keys derived from the root key, for what only its holders can prove to each other.

use keepfast_crypto::kdf::hkdf_sha256;
use keepfast_crypto::locked::Key256;

use super::{Barrier, RootKey};
use crate::StorageError;

/// A key for one purpose, derived from another key (HKDF, RFC 5869). The purpose is part of a protocol.
pub fn derive_key(key: &Key256, purpose: &[u8]) -> Key256 {
    let mut derived = Key256::zeroed();
    hkdf_sha256(key.expose(), &[], purpose, derived.expose_mut());
    derived
}

impl Barrier {
    /// A key derived from the root key by [`derive_key`].
    ///
    /// # Errors
    /// [`StorageError::Closed`].
    pub fn derive_from_root(&self, purpose: &str) -> Result<RootKey, StorageError> {
        let keyring = self.keyring.load();
        keyring.active().ok_or(StorageError::Closed)?;
        Ok(derive_key(keyring.root(), purpose.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keepfast_crypto::random;

    use super::*;
    use crate::MemoryBackend;

    #[tokio::test]
    async fn a_key_of_the_root_differs_by_root_and_purpose() {
        let (backend, root) = (Arc::new(MemoryBackend::new()), random::key());
        Barrier::create(backend.clone(), &root, "seal".into(), 0).await.unwrap();
        let barrier = Barrier::open(backend, &root).await.unwrap();
        let derived = |purpose| *barrier.derive_from_root(purpose).unwrap().expose();
        assert_eq!(derived("a"), *derive_key(&root, b"a").expose());
        assert_ne!(derived("a"), derived("b"));
        assert_ne!(derived("a"), *barrier.derive(1, "a").unwrap().expose());
        barrier.rewrap_root(&random::key(), None).await.unwrap();
        assert_ne!(derived("a"), *derive_key(&root, b"a").expose());
        barrier.close();
        assert!(matches!(barrier.derive_from_root("a"), Err(StorageError::Closed)));
    }
}
