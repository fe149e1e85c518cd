//! The seal of an unsealed server, and changes of the root key and the shares: in one commit, so that at every moment
//! either the old shares unseal or the new ones do.

use std::sync::Arc;

use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::{Error, Result};
use keepfast_storage::{Backend, Barrier};
use parking_lot::Mutex;

use super::config::SealConfig;
use super::generate_root::RootGeneration;
use super::rekey::Rekey;
use super::wrap::Seal;

/// The seal of an unsealed server. Dropped, and so wiped, when the server is sealed.
pub(crate) struct CurrentSeal {
    /// Wraps a new root key when only that changes. Code that can read its key here can read the root key as well.
    seal: Mutex<Arc<dyn Seal>>,
    /// The storage of the seal configuration.
    backend: Arc<dyn Backend>,
    /// The rotation of the shares in progress, at most one.
    pub(crate) rekey: Arc<tokio::sync::Mutex<Option<Rekey>>>,
    /// The root token generation in progress, at most one.
    pub(crate) root_generation: Arc<tokio::sync::Mutex<Option<RootGeneration>>>,
    /// Held while the seal configuration changes.
    changing: tokio::sync::Mutex<()>,
}

impl CurrentSeal {
    /// For a server on this storage, whose root key this seal has unwrapped.
    pub(crate) fn new(seal: Arc<dyn Seal>, backend: Arc<dyn Backend>) -> Self {
        CurrentSeal {
            seal: Mutex::new(seal),
            backend,
            rekey: Arc::default(),
            root_generation: Arc::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// The current seal.
    pub(crate) fn seal(&self) -> Arc<dyn Seal> {
        self.seal.lock().clone()
    }

    /// Drops the rotation and the root token generation in progress, which the next leader does not have. A running
    /// request of one of them still ends.
    pub(crate) fn drop_ceremonies(&self) {
        drop_ceremony(&self.rekey);
        drop_ceremony(&self.root_generation);
    }

    /// The stored seal configuration.
    pub(crate) async fn seal_config(&self) -> Result<SealConfig> {
        SealConfig::load(&*self.backend).await?.ok_or_else(Error::sealed)
    }

    /// Encrypts the keyring under a fresh root key. The shares stay the same.
    pub(crate) async fn change_root(&self, barrier: &Barrier) -> Result<()> {
        let _changing = self.changing.lock().await;
        let seal = self.seal();
        let root = random::key();
        let next = self.seal_config().await?.rewrapped(&*seal, &root).await?;
        Ok(barrier.rewrap_root(&root, Some(next.to_bytes()?)).await?)
    }

    /// Encrypts the keyring under `root`, which `next` holds wrapped by `seal`.
    pub(crate) async fn change_shares(
        &self,
        barrier: &Barrier,
        root: &Key256,
        seal: Arc<dyn Seal>,
        next: &SealConfig,
    ) -> Result<()> {
        let _changing = self.changing.lock().await;
        barrier.rewrap_root(root, Some(next.to_bytes()?)).await?;
        *self.seal.lock() = seal;
        Ok(())
    }
}

/// Drops a ceremony at once, or after the request that uses it.
fn drop_ceremony<T: Send + 'static>(ceremony: &Arc<tokio::sync::Mutex<Option<T>>>) {
    if let Ok(mut ceremony) = ceremony.try_lock() {
        *ceremony = None;
        return;
    }
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let ceremony = ceremony.clone();
        runtime.spawn(async move { *ceremony.lock().await = None });
    }
}

/// Whether these shares are a quorum of the seal in `config`.
pub(crate) async fn is_quorum(config: &SealConfig, shares: &[SecretBytes]) -> Result<bool> {
    match config.seal_from(shares) {
        Some(seal) => Ok(config.unwrap(&*seal).await?.is_some()),
        None => Ok(false),
    }
}
