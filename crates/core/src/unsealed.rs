//! Everything that exists only while the server is unsealed, as plain fields. Sealing drops it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use keepfast_framework::engine::Registry;
use keepfast_framework::{Clock, Error, Result};
use keepfast_storage::Barrier;

use crate::audit::target::OpenedDevice;
use crate::audit::{Broker, created};
use crate::identity::Identity;
use crate::layout::{AUDIT_STORAGE, IDENTITY_STORAGE, SYSTEM_STORAGE, TOKEN_STORAGE};
use crate::lease::{Leases, Revoker};
use crate::lockout::Lockout;
use crate::metrics::Metrics;
use crate::mount::{EngineHost, MountChanges, Mounts};
use crate::policy::store::Policies;
use crate::request::in_flight::InFlight;
use crate::seal::Custody;
use crate::services::EngineServices;
use crate::settings::Settings;
use crate::stamps::Stamps;
use crate::token::Tokens;
use crate::wrapping::Wrapper;

/// The unsealed server.
pub(crate) struct Unsealed {
    /// The only way to storage.
    pub(crate) barrier: Arc<Barrier>,
    /// What the operator decided.
    pub(crate) settings: Arc<Settings>,
    /// The only source of time.
    pub(crate) clock: Arc<dyn Clock>,
    /// How the root key is kept, and what changes it.
    pub(crate) custody: Custody,
    /// Which engine answers where.
    pub(crate) mounts: Arc<Mounts>,
    /// What policies say.
    pub(crate) policies: Arc<Policies>,
    /// Who is known by a token.
    pub(crate) tokens: Arc<Tokens>,
    /// What engines gave out for a time.
    pub(crate) leases: Arc<Leases>,
    /// What engines run on.
    pub(crate) host: Arc<EngineHost>,
    /// Ends, renews and tidies leases.
    pub(crate) revoker: Arc<Revoker>,
    /// Mounts, unmounts, moves and tunes engines.
    pub(crate) mount_changes: MountChanges,
    /// Wraps answers.
    pub(crate) wrapper: Wrapper,
    /// Who is behind a login.
    pub(crate) identity: Identity,
    /// What is recorded.
    pub(crate) audit: Broker,
    /// Who is locked out after too many failed logins.
    pub(crate) lockout: Lockout,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// How many of the reads that the barrier's cache answered are recorded in the metrics.
    pub(crate) cache_hits_recorded: AtomicU64,
    /// The requests under way.
    pub(crate) in_flight: Arc<InFlight>,
}

/// What [`Unsealed::open`] is given.
pub(crate) struct Ingredients {
    /// Already opened with the root key.
    pub(crate) barrier: Arc<Barrier>,
    /// What the operator decided.
    pub(crate) settings: Arc<Settings>,
    /// The only source of time.
    pub(crate) clock: Arc<dyn Clock>,
    /// The engines that the server was built with.
    pub(crate) engines: Arc<Registry>,
    /// The unseal key that opened the root key.
    pub(crate) custody: Custody,
    /// The opened audit devices, in the order of the settings.
    pub(crate) devices: Vec<OpenedDevice>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// The requests under way.
    pub(crate) in_flight: Arc<InFlight>,
}

impl Unsealed {
    /// Opens everything. Its time does not grow with the number of tokens or leases.
    ///
    /// Fails when storage fails: then the server stays sealed.
    pub(crate) async fn open(given: Ingredients) -> Result<Arc<Self>> {
        let Ingredients { barrier, settings, clock, engines, custody, devices, metrics, in_flight } = given;
        let system = barrier.view(SYSTEM_STORAGE);
        let identity_view = barrier.view(IDENTITY_STORAGE);
        let salts = barrier.view(AUDIT_STORAGE);
        let audit = Broker::open(&barrier, &salts, &settings.audit, devices, clock.clone(), metrics.clone()).await?;
        created::open_all(&audit, &mut barrier.begin_read(), &salts, &settings.own_files).await?;
        let mounts = Arc::new(Mounts::open(&barrier, system.clone(), engines, settings.clone()).await?);
        let entity_stamps = Arc::<Stamps>::default();
        let identity = (&identity_view, entity_stamps.clone());
        let policies = Policies::open(&barrier, system.clone(), identity, clock.clone(), metrics.clone()).await?;
        let cubbyhole = mounts.router().all().find(|m| m.traits.per_token).map(|m| m.view.clone());
        let cubbyhole = cubbyhole.ok_or_else(|| Error::internal("no mount stores what belongs to a token"))?;
        let leases =
            Leases::open(&barrier, barrier.view(TOKEN_STORAGE), settings.home.clone(), clock.clone(), metrics.clone())
                .await?;
        let tokens = Tokens::open(&barrier, barrier.view(TOKEN_STORAGE), cubbyhole, leases.clone()).await?;
        let lockout = Lockout::open(&barrier, system.clone(), clock.now()).await?;
        let services =
            EngineServices { system, leases: leases.clone(), mounts: mounts.clone(), settings: settings.clone() };
        let registry = mounts.registry().clone();
        let host =
            EngineHost { barrier: barrier.clone(), clock: clock.clone(), services: Arc::new(services), registry };
        let host = Arc::new(host);
        let revoker = Arc::new(Revoker {
            host: host.clone(),
            mounts: mounts.clone(),
            leases: leases.clone(),
            tokens: tokens.clone(),
            metrics: metrics.clone(),
        });
        let mount_changes = MountChanges { host: host.clone(), mounts: mounts.clone(), revoker: revoker.clone() };
        let wrapper = Wrapper {
            clock: clock.clone(),
            max_ttl: settings.max_lease_ttl,
            tokens: tokens.clone(),
            metrics: metrics.clone(),
        };
        let identity = Identity::new(identity_view, metrics.clone(), entity_stamps);
        Ok(Arc::new(Unsealed {
            barrier,
            settings,
            clock,
            custody,
            mounts,
            policies,
            tokens,
            leases,
            host,
            revoker,
            mount_changes,
            wrapper,
            identity,
            audit,
            lockout,
            metrics,
            cache_hits_recorded: AtomicU64::new(0),
            in_flight,
        }))
    }
}
