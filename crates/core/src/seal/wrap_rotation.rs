//! Changes of the wrap keys: the first one, another one, and the end of the one before it. The other members get them before
//! the record does, as they get a root key.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::random;
use keepfast_framework::{Clock, Error, Result, Status, Timestamp};
use keepfast_storage::{Backend, Barrier, SealRecord, WrapKeySource, WrapKeys};
use tokio::sync::{Mutex, Notify};

use super::current::settled;
use super::known_keys::FollowedKeys;
use super::record::SealConfig;
use super::slots::{Change, apply, current_root};
use crate::cluster::announce::Announcer;
use crate::cluster::announced::{NAMESPACES, WRAPPED_VALUES};
use crate::cluster::port::ComingRoot;

/// The pause between two attempts to create the first wrap key.
const RETRY: Duration = Duration::from_secs(60);

/// Changes the wrap keys of an unsealed server.
pub(crate) struct WrapRotation {
    known: Arc<FollowedKeys>,
    /// The storage of the seal record.
    backend: Arc<dyn Backend>,
    /// The other members; `None` without a cluster.
    pub(super) others: Option<Announcer>,
    barrier: Weak<Barrier>,
    clock: Arc<dyn Clock>,
    /// Held while the seal record changes.
    pub(super) changing: Mutex<()>,
    /// Notified when a rewrap begins.
    pub(crate) started: Notify,
    /// When the first wrap key could not be created; held while one is created.
    failed: Mutex<Option<Timestamp>>,
}

impl WrapRotation {
    /// For a server whose barrier gets its first wrap key by this.
    pub(super) fn new(
        known: &Arc<FollowedKeys>,
        backend: Arc<dyn Backend>,
        others: Option<Announcer>,
        barrier: &Arc<Barrier>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let (known, weak) = (known.clone(), Arc::downgrade(barrier));
        let (changing, started, failed) = Default::default();
        let rotation =
            Arc::new(WrapRotation { known, backend, others, barrier: weak, clock, changing, started, failed });
        let source: Weak<dyn WrapKeySource> = Arc::<Self>::downgrade(&rotation);
        barrier.follow_wrap_keys(source);
        rotation
    }

    /// Changes the wrap keys to those that `next` returns for the current ones, if it returns some. Returns whether it did.
    ///
    /// # Errors
    /// With 503 when a slot cannot get them now, when a member has an earlier version, when they do not reach a quorum of the
    /// voters, and when the seal record or the keyring has changed; those of the storage.
    pub(crate) async fn change(&self, next: impl FnOnce(&WrapKeys) -> Option<WrapKeys> + Send) -> Result<bool> {
        let barrier = self.barrier.upgrade().ok_or_else(Error::sealed)?;
        let _changing = self.changing.lock().await;
        let from = SealRecord::load(&*self.backend).await?.ok_or_else(Error::sealed)?;
        let (config, known) = (SealConfig::from_bytes(&from)?, self.known.get());
        let Some(keys) = next(&barrier.wrap_keys()) else { return Ok(false) };
        self.check_members()?;
        let root = current_root(&config, &barrier, &known)?;
        let to = apply(&config, Change::WrapKeys(keys.clone()), &root, &known)?.config.to_bytes()?;
        if let Some(others) = &self.others {
            // A member that does not know wrap keys expects a root key that nobody has.
            let (record, root) = (sha256(&to), random::key());
            others.announce(&ComingRoot { record, root, seal: ComingRoot::of_wrap_keys(&keys) }).await?;
        }
        settled(barrier.replace_seal(&from, to).await)?;
        Ok(true)
    }

    /// Refuses wrap keys while a member has a version that cannot read wrapped values.
    fn check_members(&self) -> Result<()> {
        let members = self.others.as_ref().map(|others| others.without_format(WRAPPED_VALUES)).unwrap_or_default();
        if members.is_empty() {
            return Ok(());
        }
        let text = format!(
            "values are wrapped once every member has a version that reads them; upgrade {}",
            members.join(", ")
        );
        Err(Error::new(Status::UNAVAILABLE, text))
    }

    /// Refuses the first namespace while a member has a version that cannot read the leases of namespaces: it would drop
    /// them when it leads.
    ///
    /// # Errors
    /// 503 with the names of these members.
    pub(crate) fn check_members_read_namespaces(&self) -> Result<()> {
        let members = self.others.as_ref().map(|others| others.without_format(NAMESPACES)).unwrap_or_default();
        match members.is_empty() {
            true => Ok(()),
            false => Err(Error::new(
                Status::UNAVAILABLE,
                format!("namespaces need members of a version that has them; upgrade {}", members.join(", ")),
            )),
        }
    }

    /// The other members whose configuration has another `disable_sealwrap` than this one.
    pub(crate) fn members_that_differ(&self, disable_sealwrap: bool) -> Vec<String> {
        self.others.as_ref().map(|others| others.with_other_sealwrap(disable_sealwrap)).unwrap_or_default()
    }
}

#[async_trait]
impl WrapKeySource for WrapRotation {
    async fn create(&self) {
        let now = self.clock.now();
        let mut failed = self.failed.lock().await;
        if failed.is_some_and(|failed| now.since(failed) < RETRY) {
            return;
        }
        match self.change(|keys| keys.is_empty().then(WrapKeys::first)).await {
            Ok(true) => tracing::info!("the first wrap key is created: values that are wrapped need it from now on"),
            Ok(false) => {}
            Err(error) => {
                *failed = Some(now);
                let cause = error.cause().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, cause, "there is no wrap key yet: values are not wrapped");
            }
        }
    }

    async fn refresh(&self) {
        if let Err(error) = self.known.follow_stored(&*self.backend).await {
            let cause = error.cause().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, cause, "the wrap keys cannot be read");
        }
    }
}
