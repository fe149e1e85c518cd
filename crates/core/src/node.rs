//! One server: uninitialised, sealed or unsealed.

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::engine::{Registered, Registry};
use keepfast_framework::{Clock, Error, Result, Status, Timestamp};
use keepfast_storage::{Backend, Barrier, BarrierError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::admission::{Admission, Rules};
use crate::audit;
use crate::audit::target::{Allowed, OpenedDevice};
use crate::duties::Duties;
use crate::metrics::Metrics;
use crate::metrics::storage::Timed;
use crate::request::in_flight::InFlight;
use crate::request::{Incoming, Response};
use crate::seal::{Custody, SealConfig, Unsealing};
use crate::settings::Settings;
use crate::sys::System;
use crate::sys::metrics::OpenMetrics;
use crate::token::handlers::TokenAuth;
use crate::unsealed::{Ingredients, Unsealed};
use crate::versions;

/// One server.
pub struct Node {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Arc<Settings>,
    engines: Arc<Registry>,
    /// What is true only between unseal and seal lives in here and nowhere else.
    unsealed: RwLock<Option<Serving>>,
    pub(crate) unsealing: Mutex<Unsealing>,
    admission: Arc<Admission>,
    pub(crate) metrics: Arc<Metrics>,
    /// The server has just been unsealed.
    pub(crate) unsealed_now: Notify,
    pub(crate) in_flight: Arc<InFlight>,
    /// The metrics that listeners give to whoever asks.
    pub(crate) open_metrics: OpenMetrics,
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

impl Node {
    /// A server on this storage. It starts sealed, or uninitialised.
    pub fn new(backend: Arc<dyn Backend>, engines: Registry, clock: Arc<dyn Clock>, settings: Settings) -> Arc<Self> {
        let metrics = Arc::<Metrics>::default();
        let backend: Arc<dyn Backend> = Arc::new(Timed::new(backend, clock.clone(), metrics.clone()));
        Arc::new_cyclic(|myself: &Weak<Node>| {
            let node = myself.clone();
            let system = Registered::with(move |_cx| {
                let node = node.clone();
                Box::pin(async move { System::open(&node) })
            });
            let node = myself.clone();
            let token = Registered::with(move |_cx| {
                let node = node.clone();
                Box::pin(async move { TokenAuth::open(&node) })
            });
            Node {
                admission: Arc::new(Admission::new(clock.clone(), metrics.clone())),
                metrics,
                unsealed_now: Notify::new(),
                in_flight: Arc::default(),
                open_metrics: OpenMetrics::default(),
                backend,
                clock,
                settings: Arc::new(settings),
                engines: Arc::new(engines.preceded_by(vec![system, token])),
                unsealed: RwLock::new(None),
                unsealing: Mutex::default(),
                changing: tokio::sync::Mutex::new(()),
            }
        })
    }

    /// Answers one request.
    pub async fn handle(&self, incoming: Box<Incoming>) -> Response {
        // Boxed, as are all steps that few requests take: a future holds what it may wait for, and the whole journey is
        // moved to its place in memory with each request.
        if self.is_bare(&incoming) {
            return Box::pin(self.handle_bare(*incoming)).await;
        }
        match self.unsealed() {
            Some(unsealed) => unsealed.handle(incoming).await,
            None => Response::failed(&Error::sealed()),
        }
    }

    /// The unsealed server, if it is.
    pub(crate) fn unsealed(&self) -> Option<Arc<Unsealed>> {
        self.unsealed.read().as_ref().map(|s| s.unsealed.clone())
    }

    /// Whether the server is unsealed and its leases are under quarantine.
    pub fn has_quarantine(&self) -> bool {
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
    pub fn is_sealed(&self) -> bool {
        self.unsealed.read().is_none()
    }

    /// Whether the storage is initialised.
    ///
    /// # Errors
    /// When storage fails or the record of the seal is damaged.
    pub async fn is_initialized(&self) -> Result<bool> {
        Ok(self.seal_config().await?.is_some())
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
        // Scripts and test harnesses wait for these lines; they are the peer's.
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
        let view = unsealed.barrier.view("sys/");
        let mut tx = unsealed.barrier.begin();
        versions::note(&mut tx, &view, &self.settings.version, self.clock.now()).await?;
        let rules = Rules::load(&mut tx, &view).await?;
        tx.commit().await?;
        Ok(rules)
    }

    /// What is decided before a request is read.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Whether a token is alive and may be used from this address. Counts no use of it; false while sealed.
    pub async fn knows_token(&self, token: &SecretString, remote: Option<IpAddr>) -> bool {
        let Some(unsealed) = self.unsealed() else { return false };
        let found = unsealed.tokens.find_anywhere(token.expose(), self.clock.now()).await;
        found.is_ok_and(|found| found.is_some_and(|token| token.record.allows_from(remote)))
    }

    /// Records a request that a quota has refused before it was read.
    pub async fn record_refusal(&self, refused: Box<Incoming>) {
        if let Some(unsealed) = self.unsealed() {
            unsealed.record_refusal(refused).await;
        }
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

    /// Seals before the process ends.
    pub async fn shutdown(&self) {
        self.seal().await;
    }

    /// Opens the audit devices' targets anew.
    pub fn reopen_audit(&self) {
        if let Some(unsealed) = self.unsealed() {
            unsealed.audit.reopen();
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
