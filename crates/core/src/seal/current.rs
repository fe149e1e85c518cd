//! The seal of an unsealed server, and changes of the root key and the shares: in one commit, so that at every moment
//! either the old shares unseal or the new ones do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::{Clock, Error, Result, Status};
use keepfast_storage::{Backend, Barrier, SealChange, SealRecord, StorageError, Watch};

use super::by_shares;
use super::config::SealConfig;
use super::generate_root::RootGeneration;
use super::in_use::SealInUse;
use super::rekey::Rekey;
use super::wrap::Seal;
use crate::cluster::announce::Announcer;
use crate::cluster::port::ComingRoot;

/// The time in which the record of an announced root key must be applied.
const EXPECTED_FOR: Duration = Duration::from_secs(30);

/// The seal of an unsealed server. Dropped, and so wiped, when the server is sealed.
pub(crate) struct CurrentSeal {
    /// Wraps a new root key when only that changes. Code that can read its key here can read the root key as well.
    seal: Arc<SealInUse>,
    /// The storage of the seal configuration.
    backend: Arc<dyn Backend>,
    /// The other members, which get a new root key before its record; `None` without a cluster.
    others: Option<Announcer>,
    /// The rotation of the shares in progress, at most one.
    pub(crate) rekey: Arc<tokio::sync::Mutex<Option<Rekey>>>,
    /// The root token generation in progress, at most one.
    pub(crate) root_generation: Arc<tokio::sync::Mutex<Option<RootGeneration>>>,
    /// Held while the seal configuration changes.
    changing: tokio::sync::Mutex<()>,
}

impl CurrentSeal {
    /// For a server on this storage, whose root key this seal has unwrapped. Follows the records of `barrier`.
    pub(crate) fn new(
        seal: Arc<dyn Seal>,
        backend: Arc<dyn Backend>,
        others: Option<Announcer>,
        barrier: &Barrier,
    ) -> Self {
        let seal = SealInUse::new(seal);
        let watcher: Arc<dyn Watch> = seal.clone();
        barrier.watch(Arc::downgrade(&watcher));
        CurrentSeal {
            seal,
            backend,
            others,
            rekey: Arc::default(),
            root_generation: Arc::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// The current seal.
    pub(crate) fn seal(&self) -> Arc<dyn Seal> {
        self.seal.get()
    }

    /// The seal of this record, if another node has announced it; otherwise the current one.
    pub(crate) fn seal_of(&self, record: &[u8]) -> Arc<dyn Seal> {
        self.seal.of(record)
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
    ///
    /// Fails when this node does not have the seal of the stored record: a root key that another seal wraps could not be
    /// unwrapped with the current shares.
    pub(crate) async fn change_root(&self, barrier: &Barrier) -> Result<()> {
        let _changing = self.changing.lock().await;
        let (seal, from) = (self.seal(), self.record().await?);
        let config = SealConfig::from_bytes(&from)?;
        if config.unwrap(&*seal).await?.is_none() {
            let text = "this node does not have the current unseal key; seal it and unseal it with the current shares";
            return Err(Error::new(Status::INTERNAL, text));
        }
        let root = random::key();
        let to = config.rewrapped(&*seal, &root).await?.to_bytes()?;
        self.replace(barrier, &root, seal, SealChange { from, to }).await
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
        let change = SealChange { from: self.record().await?, to: next.to_bytes()? };
        self.replace(barrier, root, seal, change).await
    }

    async fn record(&self) -> Result<Bytes> {
        SealRecord::load(&*self.backend).await?.ok_or_else(Error::sealed)
    }

    /// Commits a root key and the seal record that holds it, after the other members have got both.
    async fn replace(&self, barrier: &Barrier, root: &Key256, seal: Arc<dyn Seal>, change: SealChange) -> Result<()> {
        let coming = ComingRoot { record: sha256(&change.to), root: root.clone(), seal: seal.key() };
        if let Some(others) = &self.others {
            others.announce(&coming).await?;
        }
        // Before the commit: the record of a commit whose outcome is not known may be applied later.
        self.seal.expect(coming.record, seal.clone());
        let result = barrier.rewrap_root(root, Some(change)).await;
        if !matches!(result, Err(StorageError::Unknown | StorageError::Stopped(_) | StorageError::Io { .. })) {
            self.seal.forget(&coming.record);
        }
        match result {
            Ok(()) => self.seal.set(seal),
            Err(StorageError::Conflict) => {
                return Err(Error::new(Status::UNAVAILABLE, "the seal has changed; send the request again"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn expects(&self, record: &[u8; 32]) -> bool {
        self.seal.expects(record)
    }

    /// Expects that another node commits this root key, for 30 seconds. Returns false when it cannot be used.
    pub(crate) fn expect(&self, barrier: &Arc<Barrier>, coming: &ComingRoot, clock: Arc<dyn Clock>) -> bool {
        let Some(seal) = by_shares::from_key(self.seal().kind(), &coming.seal) else { return false };
        let record = coming.record;
        if !barrier.expect_root(record, &coming.root) {
            return false;
        }
        self.seal.expect(record, seal);
        let (barrier, seal) = (Arc::downgrade(barrier), Arc::downgrade(&self.seal));
        tokio::spawn(async move {
            clock.sleep_until(clock.now().after(EXPECTED_FOR)).await;
            if let Some(barrier) = barrier.upgrade() {
                barrier.forget_root(&record);
            }
            if let Some(seal) = seal.upgrade() {
                seal.forget(&record);
            }
        });
        true
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
