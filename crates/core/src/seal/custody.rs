//! What an unsealed server keeps of its seal, and how the root key and its shares change: in one commit, so that at every
//! moment either the old shares unseal or the new ones do.

use std::sync::Arc;

use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::{Error, Result};
use keepfast_storage::{Backend, Barrier};
use parking_lot::Mutex;

use super::SealConfig;
use super::generation::Generation;
use super::rotation::Rotation;

/// What an unsealed server keeps of its seal. Dropped, and so wiped, when the server is sealed.
pub(crate) struct Custody {
    /// A new root key goes under it when only that changes. Whoever can read it here can read the root key as well.
    unseal_key: Mutex<Arc<Key256>>,
    /// Where the seal configuration is stored.
    backend: Arc<dyn Backend>,
    /// New shares in the making. At most one at a time.
    pub(crate) rotation: Arc<tokio::sync::Mutex<Option<Rotation>>>,
    /// A new root token in the making. At most one at a time.
    pub(crate) generation: Arc<tokio::sync::Mutex<Option<Generation>>>,
    /// Held while the seal's record changes.
    changing: tokio::sync::Mutex<()>,
}

impl Custody {
    /// Of a server on this storage, which this key has opened.
    pub(crate) fn new(unseal_key: Key256, backend: Arc<dyn Backend>) -> Self {
        Custody {
            unseal_key: Mutex::new(Arc::new(unseal_key)),
            backend,
            rotation: Arc::default(),
            generation: Arc::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// The stored seal configuration.
    pub(crate) async fn seal_config(&self) -> Result<SealConfig> {
        SealConfig::load(&*self.backend).await?.ok_or_else(Error::sealed)
    }

    /// Puts the keyring under a fresh root key. The shares stay the same.
    pub(crate) async fn change_root(&self, barrier: &Barrier) -> Result<()> {
        let _changing = self.changing.lock().await;
        let unseal_key = self.unseal_key.lock().clone();
        let root = random::key();
        let present = self.seal_config().await?;
        let next = present.over(&root, &unseal_key);
        Ok(barrier.rewrap_root(&root, Some(next.to_bytes()?)).await?)
    }

    /// Puts the keyring under `root`, which `next` holds sealed under `unseal_key`.
    pub(crate) async fn change_shares(
        &self,
        barrier: &Barrier,
        root: &Key256,
        unseal_key: Key256,
        next: &SealConfig,
    ) -> Result<()> {
        let _changing = self.changing.lock().await;
        barrier.rewrap_root(root, Some(next.to_bytes()?)).await?;
        *self.unseal_key.lock() = Arc::new(unseal_key);
        Ok(())
    }
}

/// Whether these shares are a quorum of the seal as it is now.
pub(crate) fn is_quorum(config: &SealConfig, shares: &[SecretBytes]) -> Result<bool> {
    match config.unseal_key(shares) {
        Some(key) => Ok(config.open(&key)?.is_some()),
        None => Ok(false),
    }
}
