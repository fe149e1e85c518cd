//! What lives as long as the process, and how the server is unsealed and sealed.

use std::sync::Arc;

use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::engine::Registry;
use keepfast_framework::{Clock, Error, Result, Status, Timestamp};
use keepfast_storage::{Backend, Barrier, BarrierError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::admission::{Admission, Rules};
use crate::audit;
use crate::audit::Allowed;
use crate::audit::target::OpenedDevice;
use crate::duties::Duties;
use crate::layout::SYSTEM_STORAGE;
use crate::metrics::Metrics;
use crate::request::in_flight::InFlight;
use crate::seal::{Custody, SealConfig, Unsealing};
use crate::settings::Settings;
use crate::unsealed::{Ingredients, Unsealed};
use crate::versions;

/// What lives as long as the process, and the unsealed server while there is one.
pub(crate) struct Lifecycle {
    pub(crate) backend: Arc<dyn Backend>,
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
}

/// An unsealed server and, as this node leads, its duties.
struct Serving {
    unsealed: Arc<Unsealed>,
    since: Timestamp,
    cluster_name: String,
    _duties: Duties,
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
    ) -> Self {
        Lifecycle {
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
        }
    }

    /// The unsealed server, if it is.
    pub(crate) fn unsealed(&self) -> Option<Arc<Unsealed>> {
        self.unsealed.read().as_ref().map(|s| s.unsealed.clone())
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

    /// Since when it is unsealed.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.unsealed.read().as_ref().map(|s| s.since)
    }

    /// Whether it is sealed or uninitialised.
    pub(crate) fn is_sealed(&self) -> bool {
        self.unsealed.read().is_none()
    }

    /// The stored seal configuration; `None` when the server is not initialised.
    pub(crate) async fn seal_config(&self) -> Result<Option<SealConfig>> {
        SealConfig::load(&*self.backend).await
    }

    /// Tries to unseal with these shares. Returns whether they were the right ones.
    ///
    /// # Errors
    /// When storage fails or something that serving needs cannot be opened; the server stays sealed.
    pub(crate) async fn unseal(&self, shares: &[SecretBytes]) -> Result<bool> {
        let begun = self.clock.now();
        let _changing = self.changing.lock().await;
        if !self.is_sealed() {
            return Ok(true);
        }
        let Some(config) = self.seal_config().await? else { return Err(Error::invalid("Vault is not initialized")) };
        let Some(unseal_key) = config.unseal_key(shares) else { return Ok(false) };
        let Some(root) = config.open(&unseal_key)? else { return Ok(false) };
        let opening = self.clock.now();
        let unsealed = self.open_for_service(&root, unseal_key).await.map_err(|e| explained("unseal", e))?;
        self.metrics.post_unseal.record(self.clock.now().since(opening));
        let duties = Duties::start(unsealed.clone());
        self.unsealing.lock().reset();
        let since = self.clock.now();
        *self.unsealed.write() = Some(Serving { unsealed, since, cluster_name: config.cluster_name, _duties: duties });
        self.metrics.unseal.record(since.since(begun));
        self.unsealed_now.notify_one();
        // Shares that came while it was opened are not kept.
        self.unsealing.lock().reset();
        // Scripts and test harnesses wait for these log lines of OpenBao.
        tracing::info!("post-unseal setup complete");
        tracing::info!("vault is unsealed");
        Ok(true)
    }

    /// Opens everything that serving needs; the audit devices first, because they depend on what is outside.
    async fn open_for_service(&self, root: &Key256, unseal_key: Key256) -> Result<Arc<Unsealed>> {
        let devices = audit::target::open_all(&self.settings.audit, &Allowed::declared(&self.settings.own_files))?;
        let unsealed = self.open(self.backend.clone(), root, unseal_key, devices).await?;
        self.begin_to_serve(&unsealed).await?;
        Ok(unsealed)
    }

    /// Opens an initialised storage with these opened audit devices.
    pub(crate) async fn open(
        &self,
        backend: Arc<dyn Backend>,
        root: &Key256,
        unseal_key: Key256,
        devices: Vec<OpenedDevice>,
    ) -> Result<Arc<Unsealed>> {
        let custody = Custody::new(unseal_key, backend.clone());
        let barrier = Barrier::open(backend, root).await.map_err(|error| match error {
            BarrierError::Storage(error) => Error::from(error),
            other => Error::internal(other),
        })?;
        let given = Ingredients {
            barrier,
            settings: self.settings.clone(),
            clock: self.clock.clone(),
            engines: self.engines.clone(),
            custody,
            devices,
            metrics: self.metrics.clone(),
            in_flight: self.in_flight.clone(),
        };
        Unsealed::open(given).await
    }

    /// Notes the version and puts the rules of admission in force.
    async fn begin_to_serve(&self, unsealed: &Unsealed) -> Result<()> {
        let rules = self.note_version(unsealed).await?;
        self.admission.replace(rules);
        Ok(())
    }

    /// Notes the version of this server in the storage, and reads the rules of admission.
    pub(crate) async fn note_version(&self, unsealed: &Unsealed) -> Result<Rules> {
        let view = unsealed.barrier.view(SYSTEM_STORAGE);
        let mut tx = unsealed.barrier.begin();
        versions::note(&mut tx, &view, &self.settings.version, self.clock.now()).await?;
        let rules = Rules::load(&mut tx, &view).await?;
        tx.commit().await?;
        Ok(rules)
    }

    /// Seals: the keys are wiped, requests that are under way fail at their next access to storage.
    pub(crate) async fn seal(&self) {
        let begun = self.clock.now();
        let _changing = self.changing.lock().await;
        let serving = self.unsealed.write().take();
        self.unsealing.lock().reset();
        self.admission.replace(Rules::default());
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
