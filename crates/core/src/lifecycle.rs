//! What lives as long as the process, and how the server is unsealed and sealed.

use std::sync::{Arc, Weak};

use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::engine::Registry;
use keepfast_framework::{Clock, Error, Result, Status, Timestamp};
use keepfast_storage::{Backend, Barrier, BarrierError, Role};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::admission::{Admission, RulesSource};
use crate::audit;
use crate::audit::Allowed;
use crate::audit::target::OpenedDevice;
use crate::duties::Duties;
use crate::metrics::Metrics;
use crate::request::in_flight::InFlight;
use crate::seal::{Custody, Seal, SealConfig, Unsealing};
use crate::settings::Settings;
use crate::takeover::take_over;
use crate::unsealed::{Ingredients, Unsealed};

/// What lives as long as the process, and the unsealed server while there is one.
pub(crate) struct Lifecycle {
    pub(crate) backend: Arc<dyn Backend>,
    /// The role of this node; `None` on a storage without a cluster.
    roles: Option<watch::Receiver<Role>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Arc<Settings>,
    engines: Arc<Registry>,
    /// What is true only between unseal and seal lives in here and nowhere else.
    unsealed: RwLock<Option<Serving>>,
    pub(crate) unsealing: Mutex<Unsealing>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Arc<Metrics>,
    /// The server has just been unsealed.
    pub(crate) unsealed_now: Notify,
    pub(crate) in_flight: Arc<InFlight>,
    /// Init, unseal and seal come one after the other.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Itself, for the task that seals it.
    this: Weak<Lifecycle>,
}

/// An unsealed server.
struct Serving {
    unsealed: Arc<Unsealed>,
    since: Timestamp,
    cluster_name: String,
    /// `None` on a node that does not lead.
    _duties: Option<Duties>,
    _seal_guard: SealGuard,
}

/// Seals the server when another node has changed the root key, until it is dropped.
struct SealGuard(tokio::task::JoinHandle<()>);

impl Drop for SealGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl SealGuard {
    fn start(lifecycle: Weak<Lifecycle>, barrier: Arc<Barrier>) -> Self {
        SealGuard(tokio::spawn(async move {
            barrier.root_lost().await;
            if let Some(lifecycle) = lifecycle.upgrade() {
                tracing::warn!("the root key was changed by another node; this one seals");
                lifecycle.seal().await;
            }
        }))
    }
}

impl Lifecycle {
    /// A server on this storage. It starts sealed, or uninitialised.
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
        settings: Arc<Settings>,
        engines: Arc<Registry>,
        admission: Arc<Admission>,
        metrics: Arc<Metrics>,
        this: Weak<Lifecycle>,
    ) -> Self {
        Lifecycle {
            roles: backend.roles(),
            backend,
            clock,
            settings,
            engines,
            unsealed: RwLock::new(None),
            unsealing: Mutex::default(),
            admission,
            metrics,
            unsealed_now: Notify::new(),
            in_flight: Arc::default(),
            changing: tokio::sync::Mutex::new(()),
            this,
        }
    }

    /// The unsealed server, if it is. From the moment another node has changed the root key there is none.
    pub(crate) fn unsealed(&self) -> Option<Arc<Unsealed>> {
        let serving = self.unsealed.read();
        serving.as_ref().filter(|s| !s.unsealed.barrier.has_lost_root()).map(|s| s.unsealed.clone())
    }

    /// Whether the server is unsealed and its leases are under quarantine.
    pub(crate) fn has_quarantine(&self) -> bool {
        self.unsealed().is_some_and(|unsealed| unsealed.leases.is_quarantined())
    }

    /// The name of the cluster; while the server is sealed the one that the configuration has, if any.
    pub(crate) fn cluster_name(&self) -> String {
        let serving = self.unsealed.read();
        serving.as_ref().map_or_else(|| self.settings.cluster_name.clone(), |s| s.cluster_name.clone())
    }

    /// The role of this node in its cluster; `None` when the storage has no cluster.
    pub(crate) fn role(&self) -> Option<Role> {
        self.roles.as_ref().map(|roles| roles.borrow().clone())
    }

    /// Whether no other node takes the commits of this storage.
    pub(crate) fn is_active(&self) -> bool {
        self.roles.as_ref().is_none_or(|roles| roles.borrow().is_leading())
    }

    /// Since when it is unsealed.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.unsealed.read().as_ref().map(|s| s.since)
    }

    /// Whether it is sealed or uninitialised.
    pub(crate) fn is_sealed(&self) -> bool {
        self.unsealed().is_none()
    }

    /// The stored seal configuration; `None` when the server is not initialised.
    pub(crate) async fn seal_config(&self) -> Result<Option<SealConfig>> {
        SealConfig::load(&*self.backend).await
    }

    /// Unseals with these shares. Returns whether they were the right ones.
    ///
    /// # Errors
    /// Those of [`unseal_by`](Self::unseal_by).
    pub(crate) async fn unseal(&self, shares: &[SecretBytes]) -> Result<bool> {
        self.unseal_by(|config| config.seal_from(shares)).await
    }

    /// Unseals with the seal that `seal_of` returns for the stored configuration. Returns whether there is one and it has the
    /// right key.
    ///
    /// # Errors
    /// When storage fails or something that serving needs cannot be opened; the server stays sealed.
    pub(crate) async fn unseal_by(
        &self,
        seal_of: impl FnOnce(&SealConfig) -> Option<Arc<dyn Seal>> + Send,
    ) -> Result<bool> {
        let begun = self.clock.now();
        let _changing = self.changing.lock().await;
        if !self.is_sealed() {
            return Ok(true);
        }
        let Some(config) = self.seal_config().await? else { return Err(Error::invalid("Vault is not initialized")) };
        let Some(seal) = seal_of(&config) else { return Ok(false) };
        let Some(root) = config.unwrap(&*seal).await? else { return Ok(false) };
        let opening = self.clock.now();
        let unsealed = self.open_to_lead(&root, seal).await.map_err(|e| explained("unseal", e))?;
        self.metrics.post_unseal.record(self.clock.now().since(opening));
        let duties = Duties::start(unsealed.clone());
        self.unsealing.lock().reset();
        self.serve(unsealed, config.cluster_name, Some(duties));
        self.metrics.unseal.record(self.clock.now().since(begun));
        self.unsealed_now.notify_one();
        // Shares that came while it was opened are not kept.
        self.unsealing.lock().reset();
        // Scripts and test harnesses wait for these log lines of OpenBao.
        tracing::info!("post-unseal setup complete");
        tracing::info!("vault is unsealed");
        Ok(true)
    }

    fn serve(&self, unsealed: Arc<Unsealed>, cluster_name: String, duties: Option<Duties>) {
        let guard = SealGuard::start(self.this.clone(), unsealed.barrier.clone());
        let since = self.clock.now();
        let serving = Serving { unsealed, since, cluster_name, _duties: duties, _seal_guard: guard };
        *self.unsealed.write() = Some(serving);
    }

    /// Unseals as a node that does not lead: it writes nothing.
    #[cfg(test)]
    pub(crate) async fn unseal_as_standby(&self, shares: &[SecretBytes]) -> Result<()> {
        let config = self.seal_config().await?.ok_or_else(Error::sealed)?;
        let seal = config.seal_from(shares).ok_or_else(Error::sealed)?;
        let root = config.unwrap(&*seal).await?.ok_or_else(Error::sealed)?;
        let devices = self.open_devices()?;
        let barrier = self.open_barrier(self.backend.clone(), &root).await?;
        let custody = Custody::new(seal, self.backend.clone());
        let unsealed = self.open(barrier, custody, devices, self.admission.source()).await?;
        self.serve(unsealed, config.cluster_name, None);
        Ok(())
    }

    /// Opens everything that serving needs, after what has to be written first; the audit devices come before both, because
    /// they depend on what is outside.
    async fn open_to_lead(&self, root: &Key256, seal: Arc<dyn Seal>) -> Result<Arc<Unsealed>> {
        let devices = self.open_devices()?;
        let barrier = self.open_barrier(self.backend.clone(), root).await?;
        self.take_over(&barrier).await?;
        let custody = Custody::new(seal, self.backend.clone());
        let opened = self.open(barrier, custody, devices, self.admission.source()).await;
        if opened.is_err() {
            self.admission.clear();
        }
        opened
    }

    /// Writes what the node that leads writes before it serves.
    pub(crate) async fn take_over(&self, barrier: &Arc<Barrier>) -> Result<()> {
        take_over(barrier, &self.settings, &self.engines, self.clock.now()).await
    }

    fn open_devices(&self) -> Result<Vec<OpenedDevice>> {
        Ok(audit::target::open_all(&self.settings.audit, &Allowed::declared(&self.settings.own_files))?)
    }

    /// Opens an initialised storage.
    pub(crate) async fn open_barrier(&self, backend: Arc<dyn Backend>, root: &Key256) -> Result<Arc<Barrier>> {
        Barrier::open(backend, root).await.map_err(|error| match error {
            BarrierError::Storage(error) => Error::from(error),
            other => Error::internal(other),
        })
    }

    /// Opens a server on an opened storage with these opened audit devices.
    pub(crate) async fn open(
        &self,
        barrier: Arc<Barrier>,
        custody: Custody,
        devices: Vec<OpenedDevice>,
        rules: RulesSource,
    ) -> Result<Arc<Unsealed>> {
        let given = Ingredients {
            barrier,
            settings: self.settings.clone(),
            clock: self.clock.clone(),
            engines: self.engines.clone(),
            custody,
            devices,
            metrics: self.metrics.clone(),
            in_flight: self.in_flight.clone(),
            rules,
        };
        Unsealed::open(given).await
    }

    /// Seals: the keys are wiped, requests that are under way fail at their next access to storage.
    pub(crate) async fn seal(&self) {
        let begun = self.clock.now();
        let _changing = self.changing.lock().await;
        let serving = self.unsealed.write().take();
        self.unsealing.lock().reset();
        self.admission.clear();
        if let Some(serving) = serving {
            serving.unsealed.barrier.close();
            self.metrics.seal.record(self.clock.now().since(begun));
            tracing::info!("vault is sealed");
        }
    }
}

/// The same failure with its cause in clear: only who initialises or unseals gets it, and has to know what to mend.
pub(crate) fn explained(what: &str, error: Error) -> Error {
    match error.cause() {
        Some(cause) if error.status() == Status::INTERNAL => {
            let text = format!("{what} failed: {cause}");
            Error::new(Status::INTERNAL, text)
        }
        _ => error,
    }
}
