//! Unseals and seals the server.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::{Error, Result, Status, Timestamp};
use keepfast_storage::{Barrier, Consensus, Role};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::audit::target::OpenedDevice;
use crate::background::BackgroundTasks;
use crate::cluster::administration::Administration;
use crate::cluster::announce::Announcer;
use crate::cluster::autopilot_task::AutopilotTask;
use crate::cluster::clock_task::ClockTask;
use crate::cluster::join::rejoin::Rejoin;
use crate::cluster::keys::{Connection, ConnectionParts};
use crate::cluster::lead::{LeaderWork, Leadership};
use crate::cluster::service::ServedPeers;
use crate::cluster::snapshots::history::SnapshotHistory;
use crate::cluster::snapshots::scheduled::{SnapshotServer, SnapshotTask};
use crate::namespace::open::Namespaces;
use crate::operator_error::explained;
use crate::parts::ServerParts;
use crate::seal::guard::{AfterFailure, SealGuard};
use crate::seal::{CurrentSeal, SealConfig, Seals, Unsealing, WayIn, share_key};
use crate::self_init::gate::SelfInit;
use crate::unseal::keeper::{Keeper, Leads};
use crate::unseal::rolling::RollingMigration;
use crate::unsealed::{OpenInputs, Unsealed};

/// How long a request waits for a server that opens its services again.
const REOPENS_WITHIN: Duration = Duration::from_secs(5);

/// Unseals and seals the server.
pub(crate) struct Lifecycle {
    /// The parts that live as long as the process.
    pub(crate) parts: ServerParts,
    /// What exists only between unseal and seal.
    served: Served,
    pub(crate) unsealing: Mutex<Unsealing>,
    /// Init, unseal and seal exclude each other.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// How the members of the cluster change.
    pub(crate) administration: Administration,
    /// The seals of the configuration.
    pub(crate) seals: Arc<Seals>,
    /// The initialization by stanzas of the configuration.
    pub(crate) self_init: Arc<SelfInit>,
    /// A reference to itself, for the task that seals it.
    this: Weak<Lifecycle>,
}

/// The unsealed server, if it is.
struct Served {
    serving: RwLock<Option<Serving>>,
    /// Whether the services are being opened again over the records of a snapshot.
    reopening: watch::Sender<bool>,
    /// Notified after an unseal.
    unsealed_now: Notify,
}

/// An unsealed server.
struct Serving {
    namespaces: Arc<Namespaces>,
    cluster: ClusterName,
    /// Follows the role of this node, with the background tasks of the leader.
    leadership: Leadership,
    /// The connection to the other members; `None` on a storage that is not replicated.
    connection: Option<Connection>,
    _seal_guard: SealGuard,
    /// Checks the seals.
    _keeper: Keeper,
}

/// The name and the id of the cluster.
struct ClusterName {
    name: String,
    id: Arc<str>,
}

impl Serving {
    /// The namespaces, unless their barrier has failed closed.
    fn usable(&self) -> Option<&Arc<Namespaces>> {
        (!self.root().barrier.has_failed_closed()).then_some(&self.namespaces)
    }

    /// The services of the root namespace.
    fn root(&self) -> &Arc<Unsealed> {
        self.namespaces.root().server()
    }

    /// Whether a snapshot has replaced its records.
    fn is_replaced(&self) -> bool {
        self.root().barrier.is_replaced()
    }

    /// Whether it serves with this barrier.
    fn has(&self, barrier: &Arc<Barrier>) -> bool {
        Arc::ptr_eq(&self.root().barrier, barrier)
    }
}

impl Lifecycle {
    /// A server of these parts, sealed or uninitialised.
    pub(crate) fn new(parts: ServerParts, seals: Seals, self_init: Arc<SelfInit>, this: Weak<Lifecycle>) -> Self {
        let (serving, reopening, unsealed_now) = (RwLock::new(None), watch::channel(false).0, Notify::new());
        Lifecycle {
            parts,
            served: Served { serving, reopening, unsealed_now },
            unsealing: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
            administration: Administration::default(),
            seals: Arc::new(seals),
            self_init,
            this,
        }
    }

    /// The namespaces of the unsealed server; `None` while sealed, and after its barrier has failed closed.
    pub(crate) fn namespaces(&self) -> Option<Arc<Namespaces>> {
        self.served.serving.read().as_ref().and_then(Serving::usable).cloned()
    }

    /// The unsealed server, under the same conditions.
    pub(crate) fn unsealed(&self) -> Option<Arc<Unsealed>> {
        self.served
            .serving
            .read()
            .as_ref()
            .and_then(Serving::usable)
            .map(|namespaces| namespaces.root().server().clone())
    }

    /// The name of the cluster; while the server is sealed, the configured one, if any.
    pub(crate) fn cluster_name(&self) -> String {
        let serving = self.served.serving.read();
        let serving = serving.as_ref().filter(|s| s.usable().is_some());
        serving.map_or_else(|| self.parts.settings.cluster_name.clone(), |s| s.cluster.name.clone())
    }

    /// The id of the cluster; `None` while the server is sealed.
    pub(crate) fn cluster_id(&self) -> Option<Arc<str>> {
        self.served.serving.read().as_ref().filter(|s| s.usable().is_some()).map(|s| s.cluster.id.clone())
    }

    /// Since when this node leads, unsealed; `None` on a standby, and until the takeover is complete.
    pub(crate) fn leads_since(&self) -> Option<Timestamp> {
        self.served.serving.read().as_ref().filter(|s| s.usable().is_some()).and_then(|s| s.leadership.since())
    }

    /// Whether it is sealed or uninitialised.
    pub(crate) fn is_sealed(&self) -> bool {
        self.unsealed().is_none()
    }

    /// Unseals with these shares. Returns whether they open the root key.
    ///
    /// # Errors
    /// Those of [`unseal_by`](Self::unseal_by).
    pub(crate) async fn unseal(&self, shares: &[SecretBytes]) -> Result<bool> {
        if !self.is_sealed() {
            return Ok(true);
        }
        let shape = self.parts.seal_config().await?.ok_or_else(uninitialized)?.shape();
        match share_key::combine(shape, shares) {
            Some(key) => self.unseal_by(WayIn::Shares(key)).await,
            None => Ok(false),
        }
    }

    /// Unseals with what opens the root key of the stored record. Returns whether it opens it.
    ///
    /// # Errors
    /// When storage fails, the record was changed, or a service cannot be opened; the server stays sealed.
    pub(crate) async fn unseal_by(&self, way: WayIn) -> Result<bool> {
        let _changing = self.changing.lock().await;
        unseal_locked(self, &way, &mut None).await
    }

    /// Unseals as a standby, which writes nothing.
    #[cfg(test)]
    pub(crate) async fn unseal_as_standby(&self, shares: &[SecretBytes]) -> Result<()> {
        let parts = &self.parts;
        let config = parts.seal_config().await?.ok_or_else(Error::sealed)?;
        let way = WayIn::Shares(share_key::combine(config.shape(), shares).ok_or_else(Error::sealed)?);
        let root = config.open(&way)?.ok_or_else(Error::sealed)?;
        let devices = parts.open_devices()?;
        let barrier = parts.open_barrier(parts.backend.clone(), &root).await?;
        let unsealed = open_services(parts, barrier, devices, (&config, &way)).await?;
        serve(self, config, Opened { unsealed, connection: None, led: None }, None);
        Ok(())
    }

    /// Seals the server: the keys are erased, and requests in flight fail at their next access to storage. A leader
    /// transfers its leadership before. No seal unseals it again until a quorum of shares or a restart.
    pub(crate) async fn seal(&self) {
        self.administration.joining.end(&self.parts.membership).await;
        let _changing = self.changing.lock().await;
        // An unseal that is running would clear it.
        self.seals.set_manual(true);
        seal_locked(self).await;
    }
}

/// Unseals by what a seal has opened. `None` when the server is sealed on request.
///
/// # Errors
/// See [`Lifecycle::unseal_by`].
pub(crate) async fn unseal_by_seal(lifecycle: &Lifecycle, way: &WayIn) -> Result<Option<bool>> {
    let _changing = lifecycle.changing.lock().await;
    if lifecycle.seals.is_manual() {
        return Ok(None);
    }
    unseal_locked(lifecycle, way, &mut None).await.map(Some)
}

/// Serves with these services. `led` is the term in which this node has taken over.
fn serve(lifecycle: &Lifecycle, config: SealConfig, opened: Opened, roles: Option<watch::Receiver<Role>>) {
    let Opened { unsealed, connection, led } = opened;
    let guard = SealGuard::start(lifecycle.this.clone(), unsealed.barrier.clone());
    let this = lifecycle.this.clone();
    let leads: Leads = Arc::new(move || this.upgrade().is_some_and(|server| server.parts.is_active()));
    let keeper = Keeper::start(&lifecycle.seals, &unsealed, &leads);
    let namespaces = Namespaces::new(unsealed.clone(), &lifecycle.parts);
    let work = WorkOfLeader::new(lifecycle.this.clone(), unsealed);
    let leadership = Leadership::begin(Arc::new(work), roles, led, lifecycle.parts.observed());
    let cluster = ClusterName { name: config.cluster_name, id: config.cluster_id.into() };
    let serving = Serving { namespaces, cluster, leadership, connection, _seal_guard: guard, _keeper: keeper };
    *lifecycle.served.serving.write() = Some(serving);
}

/// Unseals while `changing` is held; see [`Lifecycle::unseal_by`]. Takes the connection to the other members that was
/// kept, if any, once the root key is known.
async fn unseal_locked(lifecycle: &Lifecycle, way: &WayIn, kept: &mut Option<Connection>) -> Result<bool> {
    let started = lifecycle.parts.clock.now();
    if !lifecycle.is_sealed() {
        return Ok(true);
    }
    let config = lifecycle.parts.seal_config().await?.ok_or_else(uninitialized)?;
    let Some(root) = config.open(way)? else { return Ok(false) };
    let opening = lifecycle.parts.clock.now();
    let opened = open(lifecycle, (&config, way), &root, kept).await.map_err(|e| explained("unseal", e))?;
    lifecycle.parts.metrics.post_unseal.record(lifecycle.parts.clock.now().since(opening));
    lifecycle.unsealing.lock().reset();
    lifecycle.seals.set_manual(false);
    serve(lifecycle, config, opened, lifecycle.parts.membership.roles());
    lifecycle.parts.metrics.unseal.record(lifecycle.parts.clock.now().since(started));
    lifecycle.served.unsealed_now.notify_one();
    lifecycle.self_init.wake.notify_one();
    // Shares that arrived during the unseal are dropped.
    lifecycle.unsealing.lock().reset();
    // Scripts and test harnesses wait for these log lines of OpenBao.
    tracing::info!("post-unseal setup complete");
    tracing::info!("vault is unsealed");
    Ok(true)
}

/// Seals the server while `changing` is held. From the first step on it handles no request; then the background tasks
/// end, another node gets the leadership, and the keys are erased.
async fn seal_locked(lifecycle: &Lifecycle) {
    let started = lifecycle.parts.clock.now();
    lifecycle.seals.rolling.forget();
    let Some(stopped) = stop(lifecycle) else { return };
    let Stopped { namespaces, connection } = stopped;
    if let Some(connection) = connection {
        connection.close().await;
    }
    namespaces.root().server().barrier.close();
    lifecycle.parts.metrics.seal.record(lifecycle.parts.clock.now().since(started));
    tracing::info!("vault is sealed");
}

/// A server that handles no requests any more.
struct Stopped {
    namespaces: Arc<Namespaces>,
    connection: Option<Connection>,
}

/// Ends the handling of requests and the background tasks; `None` when the server is sealed.
fn stop(lifecycle: &Lifecycle) -> Option<Stopped> {
    let serving = lifecycle.served.serving.write().take();
    lifecycle.unsealing.lock().reset();
    lifecycle.parts.admission.clear();
    let Serving { namespaces, leadership, connection, .. } = serving?;
    drop(leadership);
    Some(Stopped { namespaces, connection })
}

#[async_trait]
impl AfterFailure for Lifecycle {
    /// Without an interruption, so that a seal on request in the meantime seals the reopened server.
    async fn after_failure(&self, barrier: &Arc<Barrier>) {
        let lifecycle = self;
        let _changing = lifecycle.changing.lock().await;
        let Some(known) = known_keys(lifecycle, barrier) else { return };
        if barrier.is_replaced() {
            lifecycle.served.reopening.send_replace(true);
            reopen(lifecycle, known).await;
            lifecycle.served.reopening.send_replace(false);
        } else {
            tracing::warn!("the storage has closed on this node, which seals");
            seal_locked(lifecycle).await;
        }
        // The seals may open the current record.
        lifecycle.seals.begin_round();
    }
}

/// Opens the services again over the records that have replaced all former ones. The node stays connected to the other
/// members and keeps its role, unless other keys hold the root key of these records.
async fn reopen(lifecycle: &Lifecycle, known: WayIn) {
    tracing::warn!("all records were replaced: this node opens its services again");
    let Some(Stopped { namespaces, mut connection }) = stop(lifecycle) else { return };
    namespaces.root().server().barrier.close();
    let unsealed = unseal_locked(lifecycle, &known, &mut connection).await;
    match unsealed {
        Ok(true) => return,
        Ok(false) => tracing::warn!("the storage was replaced: this node seals and needs the shares of the new one"),
        Err(error) => tracing::error!(%error, "the storage was replaced, and this node cannot open it: it seals"),
    }
    if let Some(connection) = connection {
        connection.close().await;
    }
    tracing::info!("vault is sealed");
}

/// The slot keys of the server that serves with this barrier; `None` when an unseal has replaced it.
fn known_keys(lifecycle: &Lifecycle, barrier: &Arc<Barrier>) -> Option<WayIn> {
    let serving = lifecycle.served.serving.read();
    let serving = serving.as_ref().filter(|serving| serving.has(barrier))?;
    Some(WayIn::Known(serving.root().current_seal.known_keys()))
}

/// Waits for the next unseal.
pub(crate) async fn unsealed_now(lifecycle: &Lifecycle) {
    lifecycle.served.unsealed_now.notified().await;
}

fn uninitialized() -> Error {
    Error::invalid("Vault is not initialized")
}

/// The services of an unsealed server.
struct Opened {
    unsealed: Arc<Unsealed>,
    connection: Option<Connection>,
    /// The term of the log in which this node has taken over; `None` on a standby.
    led: Option<u64>,
}

/// Opens the barrier, connects to the other members, and opens all services: on the leader after its writes. The audit
/// devices are opened before, because they depend on external state.
async fn open(
    lifecycle: &Lifecycle,
    (config, way): (&SealConfig, &WayIn),
    root: &Key256,
    kept: &mut Option<Connection>,
) -> Result<Opened> {
    let parts = &lifecycle.parts;
    let devices = parts.open_devices()?;
    let barrier = parts.open_barrier(parts.backend.clone(), root).await?;
    config.unlock_wrapped_values(way, &barrier)?;
    lifecycle.self_init.observe(&barrier).await?;
    let connection = match kept.take() {
        Some(connection) => Some(connection.reopen(&barrier, parts.clock.clone()).await?),
        None => connect(lifecycle, config, &barrier).await?,
    };
    match open_by_role(parts, barrier, devices, (config, way)).await {
        Ok((unsealed, led)) => Ok(Opened { unsealed, connection, led }),
        Err(error) => {
            if let Some(connection) = connection {
                connection.close().await;
            }
            Err(error)
        }
    }
}

/// Connects to the other members of the cluster; `None` on a storage that is not replicated. A node without other
/// members also serves without a connection.
async fn connect(lifecycle: &Lifecycle, config: &SealConfig, barrier: &Arc<Barrier>) -> Result<Option<Connection>> {
    let parts = &lifecycle.parts;
    let (Some(consensus), Some(port)) = (parts.membership.consensus(), parts.membership.port()) else {
        return Ok(None);
    };
    let this = lifecycle.this.upgrade().ok_or_else(Error::sealed)?;
    let connection = ConnectionParts {
        consensus: consensus.clone(),
        port: port.clone(),
        service: Arc::new(ServedPeers::new(&this, consensus.clone())),
        addresses: parts.settings.addresses(),
        cluster_id: config.cluster_id.clone(),
        rejoin: rejoin(lifecycle, consensus, config),
        authorities: Arc::default(),
        observed: parts.observed(),
    };
    match Connection::open(connection, barrier, parts.clock.clone()).await {
        Ok(connection) => Ok(Some(connection)),
        Err(error) if parts.membership.is_alone() => {
            let cause = error.cause().map(ToString::to_string).unwrap_or_default();
            tracing::error!(%error, %cause, "the cluster port is not open: no other node can join");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Gets the keys of the cluster that this node has missed; `None` for a server that cannot join.
fn rejoin(lifecycle: &Lifecycle, consensus: &Arc<dyn Consensus>, config: &SealConfig) -> Option<Rejoin> {
    let parts = &lifecycle.parts;
    Some(Rejoin {
        consensus: consensus.clone(),
        proven: lifecycle.administration.proven.clone(),
        client: parts.settings.join.client.clone()?,
        configured: parts.settings.join.retry.clone(),
        addresses: parts.settings.addresses(),
        cluster_id: config.cluster_id.clone(),
    })
}

/// Opens all services: on the leader after its writes. Also returns the term in which it has taken over.
async fn open_by_role(
    parts: &ServerParts,
    barrier: Arc<Barrier>,
    devices: Vec<OpenedDevice>,
    by: (&SealConfig, &WayIn),
) -> Result<(Arc<Unsealed>, Option<u64>)> {
    let mut led = parts.membership.leads_soon(&*parts.clock).await.then(|| term(parts));
    if led.is_some()
        && let Err(error) = parts.take_over(&barrier).await
    {
        if parts.membership.is_alone() {
            return Err(error);
        }
        // A member serves without it, and repeats it.
        let cause = error.cause().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%error, %cause, "the takeover failed and is repeated");
        led = None;
    }
    Ok((open_services(parts, barrier, devices, by).await?, led))
}

/// The term of the log; 0 on a storage that is not replicated.
fn term(parts: &ServerParts) -> u64 {
    parts.membership.cluster_status().map_or(0, |status| status.term)
}

/// The namespaces of a server whose records a snapshot replaces, as soon as it is open again. `None` at once for a
/// sealed server.
///
/// Fails with 503 when it takes long.
pub(crate) async fn reopened(lifecycle: &Lifecycle) -> Result<Option<Arc<Namespaces>>> {
    let clock = &lifecycle.parts.clock;
    let (mut reopening, until) = (lifecycle.served.reopening.subscribe(), clock.now().after(REOPENS_WITHIN));
    loop {
        let is_replaced = lifecycle.served.serving.read().as_ref().is_some_and(Serving::is_replaced);
        let is_reopening = *reopening.borrow_and_update() || is_replaced;
        // Read afterwards: it may have become open.
        let namespaces = lifecycle.namespaces();
        if namespaces.is_some() || !is_reopening {
            return Ok(namespaces);
        }
        tokio::select! {
            Ok(()) = reopening.changed() => {}
            () = clock.sleep_until(until) => {
                let text = "the server opens its services again over the records of a snapshot; try again";
                return Err(Error::new(Status::UNAVAILABLE, text));
            }
        }
    }
}

impl SnapshotServer for Lifecycle {
    fn parts(&self) -> &ServerParts {
        &self.parts
    }

    fn services(&self) -> Option<Arc<Unsealed>> {
        self.unsealed()
    }

    fn history(&self) -> &SnapshotHistory {
        &self.administration.automatic_snapshots
    }
}

/// The work of the leader of this server.
struct WorkOfLeader {
    lifecycle: Weak<Lifecycle>,
    unsealed: Arc<Unsealed>,
    background: Mutex<Option<BackgroundTasks>>,
    autopilot: Mutex<Option<AutopilotTask>>,
    snapshots: Mutex<Option<SnapshotTask>>,
    clocks: Mutex<Option<ClockTask>>,
    migration: Mutex<Option<RollingMigration>>,
}

impl WorkOfLeader {
    fn new(lifecycle: Weak<Lifecycle>, unsealed: Arc<Unsealed>) -> Self {
        let (background, autopilot) = (Mutex::default(), Mutex::default());
        let (snapshots, clocks, migration) = (Mutex::default(), Mutex::default(), Mutex::default());
        WorkOfLeader { lifecycle, unsealed, background, autopilot, snapshots, clocks, migration }
    }

    fn set_taken_over(&self, has_taken_over: bool) {
        if let Some(lifecycle) = self.lifecycle.upgrade() {
            lifecycle.parts.membership.taken_over.set(has_taken_over);
            lifecycle.parts.membership.clocks.change_role();
        }
    }
}

#[async_trait]
impl LeaderWork for WorkOfLeader {
    fn term(&self) -> u64 {
        self.lifecycle.upgrade().map_or(0, |lifecycle| term(&lifecycle.parts))
    }

    async fn take_over(&self) -> Result<()> {
        let lifecycle = self.lifecycle.upgrade().ok_or_else(Error::sealed)?;
        lifecycle.parts.take_over(&self.unsealed.barrier).await
    }

    fn start(&self) {
        let Some(lifecycle) = self.lifecycle.upgrade() else { return };
        lifecycle.administration.autopilot.reset();
        self.set_taken_over(true);
        let parts = &lifecycle.parts;
        *self.clocks.lock() = ClockTask::start(&parts.membership, parts.clock.clone());
        let clocks = parts.membership.clocks.clone();
        *self.background.lock() = Some(BackgroundTasks::start(self.unsealed.clone(), clocks));
        *self.autopilot.lock() = Some(AutopilotTask::start(self.lifecycle.clone()));
        *self.snapshots.lock() = SnapshotTask::start(self.lifecycle.clone());
        lifecycle.self_init.wake.notify_one();
        *self.migration.lock() = RollingMigration::start(&parts.membership, &lifecycle.seals, &self.unsealed);
    }

    fn stop(&self) {
        self.set_taken_over(false);
        *self.background.lock() = None;
        *self.autopilot.lock() = None;
        *self.snapshots.lock() = None;
        *self.clocks.lock() = None;
        *self.migration.lock() = None;
        self.unsealed.current_seal.drop_ceremonies();
    }

    fn is_removed(&self) -> bool {
        let Some(lifecycle) = self.lifecycle.upgrade() else { return false };
        lifecycle.parts.membership.consensus().is_some_and(|consensus| consensus.is_removed())
    }

    fn seal(&self) {
        let lifecycle = self.lifecycle.clone();
        // In its own task: the seal ends the one that follows the role.
        tokio::spawn(async move {
            if let Some(lifecycle) = lifecycle.upgrade() {
                lifecycle.seal().await;
            }
        });
    }
}

/// Opens all services over an open barrier. Their rules of admission are cleared after an error.
async fn open_services(
    parts: &ServerParts,
    barrier: Arc<Barrier>,
    devices: Vec<OpenedDevice>,
    (config, way): (&SealConfig, &WayIn),
) -> Result<Arc<Unsealed>> {
    let others = Announcer::of(&parts.membership);
    let clock = parts.clock.clone();
    let current_seal = CurrentSeal::new(config, way, parts.backend.clone(), others, &barrier, clock);
    current_seal.follow_stored().await?;
    let rules = parts.admission.source();
    let opened = Unsealed::open(parts, OpenInputs { barrier, current_seal, devices, rules }).await;
    if opened.is_err() {
        parts.admission.clear();
    }
    opened
}
