//! The seal of an unsealed server, and changes of the root key, the shares and the slots: in one commit each, so that at
//! every moment either the old record opens or the new one does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::{Clock, Error, Result, Status};
use keepfast_storage::{Backend, Barrier, SealChange, SealRecord, StorageError};

use super::generate_root::RootGeneration;
use super::known_keys::FollowedKeys;
use super::record::{KnownKeys, SealConfig, WayIn};
use super::rekey::Rekey;
use super::shares::Unsealing;
use super::slots::{Change, Changed, apply, current_root};
use super::wrap_rotation::WrapRotation;
use super::wrapped_slot::OpenedSlot;
use crate::cluster::announce::Announcer;
use crate::cluster::port::ComingRoot;

/// The time in which the record of an announced root key must be applied.
const EXPECTED_FOR: Duration = Duration::from_secs(30);

/// The seal of an unsealed server. Dropped, and so wiped, when the server is sealed.
pub(crate) struct CurrentSeal {
    /// The slot keys. Code that can read them here can read the root key as well.
    known: Arc<FollowedKeys>,
    /// The storage of the seal record.
    backend: Arc<dyn Backend>,
    /// Changes the wrap keys. The other members get a new root key as they get those.
    pub(crate) wrap: Arc<WrapRotation>,
    /// The rotation of the root key and the unseal keys in progress, at most one.
    pub(crate) rekey: Arc<tokio::sync::Mutex<Option<Rekey>>>,
    /// The rotation of the recovery keys in progress, at most one.
    pub(crate) recovery_rekey: Arc<tokio::sync::Mutex<Option<Rekey>>>,
    /// The root token generation in progress, at most one.
    pub(crate) root_generation: Arc<tokio::sync::Mutex<Option<RootGeneration>>>,
    /// The recovery keys that were submitted to let them unseal.
    pub(crate) break_glass: Arc<tokio::sync::Mutex<Unsealing>>,
}

impl CurrentSeal {
    /// For a server on this storage, whose record `config` was opened by `way`. Follows the records of `barrier`.
    pub(crate) fn new(
        config: &SealConfig,
        way: &WayIn,
        backend: Arc<dyn Backend>,
        others: Option<Announcer>,
        barrier: &Arc<Barrier>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let known = FollowedKeys::new(config, way, barrier);
        let wrap = WrapRotation::new(&known, backend.clone(), others, barrier, clock);
        CurrentSeal {
            known,
            backend,
            wrap,
            rekey: Arc::default(),
            recovery_rekey: Arc::default(),
            root_generation: Arc::default(),
            break_glass: Arc::default(),
        }
    }

    /// The keys of the current slots.
    pub(crate) fn known_keys(&self) -> KnownKeys {
        self.known.get()
    }

    /// Drops the rotations and the root token generation in progress, which the next leader does not have. A running
    /// request of one of them still ends.
    pub(crate) fn drop_ceremonies(&self) {
        reset(&self.rekey, |rekey| *rekey = None);
        reset(&self.recovery_rekey, |rekey| *rekey = None);
        reset(&self.root_generation, |generation| *generation = None);
        reset(&self.break_glass, Unsealing::reset);
    }

    /// The stored seal record.
    pub(crate) async fn seal_config(&self) -> Result<SealConfig> {
        SealConfig::load(&*self.backend).await?.ok_or_else(Error::sealed)
    }

    /// Applies a change to the seal record; a new root key encrypts the keyring in the same commit.
    ///
    /// # Errors
    /// See [`apply`]; 503 when another request has changed the record; those of the storage.
    pub(crate) async fn change(&self, barrier: &Barrier, change: Change) -> Result<()> {
        self.change_if(barrier, change, |_| Ok(true)).await.map(drop)
    }

    /// The same if the change is due for the record that it would change. Returns whether it was.
    ///
    /// # Errors
    /// Those of `is_due`, and of [`change`](Self::change).
    pub(crate) async fn change_if(
        &self,
        barrier: &Barrier,
        mut change: Change,
        is_due: impl FnOnce(&SealConfig) -> Result<bool>,
    ) -> Result<bool> {
        let _changing = self.wrap.changing.lock().await;
        let from = SealRecord::load(&*self.backend).await?.ok_or_else(Error::sealed)?;
        let (config, known) = (SealConfig::from_bytes(&from)?, self.known.get());
        if !is_due(&config)? {
            return Ok(false);
        }
        let (has_new_shares, with) = match &mut change {
            Change::NewShares { backup, .. } => (true, backup.take()),
            _ => (false, None),
        };
        let root = current_root(&config, barrier, &known)?;
        let Changed { config, root, opened } = apply(&config, change, &root, &known)?;
        let to = config.to_bytes()?;
        match root {
            Some(root) => {
                let coming = ComingRoot { record: sha256(&to), root, seal: SecretBytes::default() };
                if let Some(others) = &self.wrap.others {
                    others.announce(&coming).await?;
                }
                settled(barrier.rewrap_root(&coming.root, Some(SealChange { from, to, with })).await)?;
            }
            None => settled(SealRecord::replace(&*self.backend, &from, to).await)?,
        }
        self.known.add_opened(opened);
        if has_new_shares {
            reset(&self.break_glass, Unsealing::reset);
        }
        Ok(true)
    }

    /// Follows the stored record, which may have changed before this server followed its records.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn follow_stored(&self) -> Result<()> {
        self.known.follow_stored(&*self.backend).await
    }

    /// The slot key of a slot, by the escrow of the record.
    pub(crate) fn knows(&self, slot: u32) -> Option<Key256> {
        self.known.get().slots.into_iter().find(|(id, _)| *id == slot).map(|(_, key)| key)
    }

    /// Keeps the keys of a slot whose KEK its seal has unwrapped.
    pub(crate) fn learn(&self, slot: u32, kek: &Key256) {
        self.known.add_opened([OpenedSlot::new(slot, kek)]);
    }

    /// Expects that another node commits this root key, or these wrap keys, for 30 seconds. Returns false when it cannot be
    /// used.
    pub(crate) fn expect(&self, barrier: &Arc<Barrier>, coming: &ComingRoot, clock: Arc<dyn Clock>) -> bool {
        let record = coming.record;
        let is_expected = match coming.wrap_keys() {
            Some(keys) => self.known.expect(record, keys),
            None => barrier.expect_root(record, &coming.root),
        };
        if !is_expected {
            return false;
        }
        let (barrier, known) = (Arc::downgrade(barrier), Arc::downgrade(&self.known));
        tokio::spawn(async move {
            clock.sleep_until(clock.now().after(EXPECTED_FOR)).await;
            if let Some(barrier) = barrier.upgrade() {
                barrier.forget_root(&record);
            }
            if let Some(known) = known.upgrade() {
                known.forget(&record);
            }
        });
        true
    }
}

pub(super) fn settled(result: Result<(), StorageError>) -> Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(StorageError::Conflict) => {
            Err(Error::new(Status::UNAVAILABLE, "the seal has changed; send the request again"))
        }
        Err(error) => Err(error.into()),
    }
}

/// The record of an unsealed server as it is stored, and its bytes.
pub(crate) async fn stored_record(current: &CurrentSeal) -> Result<(Bytes, SealConfig)> {
    stored(&*current.backend).await
}

/// Whether an unsealed server has other members.
pub(crate) fn has_others(current: &CurrentSeal) -> bool {
    current.wrap.others.as_ref().is_some_and(Announcer::has_others)
}

/// Reads the record that is stored, for changes without a barrier.
pub(crate) async fn stored(backend: &dyn Backend) -> Result<(Bytes, SealConfig)> {
    let record = SealRecord::load(backend).await?.ok_or_else(Error::sealed)?;
    let config = SealConfig::from_bytes(&record)?;
    Ok((record, config))
}

/// Resets a ceremony at once, or after the request that uses it.
fn reset<T: Send + 'static>(ceremony: &Arc<tokio::sync::Mutex<T>>, how: fn(&mut T)) {
    if let Ok(mut ceremony) = ceremony.try_lock() {
        how(&mut ceremony);
        return;
    }
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let ceremony = ceremony.clone();
        runtime.spawn(async move { how(&mut *ceremony.lock().await) });
    }
}
