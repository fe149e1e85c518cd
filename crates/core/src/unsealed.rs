//! Everything that exists only while the server is unsealed, as plain fields. Sealing drops it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use keepfast_framework::engine::Registry;
use keepfast_framework::{Clock, Error, Result, Timestamp};
use keepfast_storage::{Barrier, ReadTx};

use crate::admission::RulesSource;
use crate::admission::stored::StoredRules;
use crate::audit::created::StoredDevices;
use crate::audit::target::OpenedDevice;
use crate::audit::{Broker, created};
use crate::follow::Follow;
use crate::identity::Identity;
use crate::layout::{AUDIT_STORAGE, IDENTITY_STORAGE, SYSTEM_STORAGE, TOKEN_STORAGE};
use crate::lease::{EndsOfMounts, Leases, Revoker};
use crate::lockout::{Lockout, UnknownNames};
use crate::metrics::Metrics;
use crate::mount::{EngineHost, EngineRecords, MountChanges, Mounts};
use crate::policy::store::Policies;
use crate::request::in_flight::InFlight;
use crate::seal::Custody;
use crate::services::EngineServices;
use crate::settings::Settings;
use crate::stamps::Stamps;
use crate::token::{TokenSecrets, Tokens};
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
    /// The audit devices that `sys/audit` has stored.
    pub(crate) stored_devices: Arc<StoredDevices>,
    /// Who is locked out after too many failed logins.
    pub(crate) lockout: Arc<Lockout>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// How many of the reads that the barrier's cache answered are recorded in the metrics.
    pub(crate) cache_hits_recorded: AtomicU64,
    /// The requests under way.
    pub(crate) in_flight: Arc<InFlight>,
    /// Keeps memory in step with what is committed.
    _follow: Arc<Follow>,
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
    /// Where the rules of admission are put in force.
    pub(crate) rules: RulesSource,
}

impl Unsealed {
    /// Opens everything. Its time does not grow with the number of tokens or leases. It only reads: whatever it awaits has
    /// no more than a [`ReadTx`], so a node that does not lead opens in the same way.
    ///
    /// Fails when storage fails, or when it lacks what [`crate::takeover`] writes: then the server stays sealed.
    pub(crate) async fn open(given: Ingredients) -> Result<Arc<Self>> {
        let Ingredients { barrier, settings, clock, engines, custody, devices, metrics, in_flight, rules } = given;
        let tx = &mut barrier.begin_read();
        let (system, salts, token_view) =
            (barrier.view(SYSTEM_STORAGE), barrier.view(AUDIT_STORAGE), barrier.view(TOKEN_STORAGE));
        let audit = Broker::open(tx, &salts, &settings.audit, devices, clock.clone(), metrics.clone()).await?;
        let follow = Follow::new(barrier.clone());
        let own_files = settings.own_files.clone();
        let stored_devices = Arc::new(StoredDevices::new(barrier.clone(), salts.clone(), own_files.clone()));
        follow.add("audit/device/", stored_devices.clone());
        created::open_all(&audit, tx, &salts, &own_files).await?;
        let secrets = TokenSecrets::load(tx, &token_view).await?;

        let mounts = Mounts::new(barrier.view(""), system.clone(), engines, settings.clone());
        let mounts = follow_mounts(mounts, &follow, tx).await?;
        let rules = Arc::new(StoredRules::new(system.clone(), rules));
        follow.add("sys/", rules.clone());
        rules.load(tx).await?;

        let entities = Arc::<Stamps>::default();
        follow.add("identity/entity/", entities.clone());
        let policies = Policies::new(&barrier, system.clone(), entities.clone(), clock.clone(), metrics.clone());
        follow.add("sys/policy/", policies.clone());

        let leases = Leases::new(&barrier, token_view.clone(), settings.home.clone(), clock.clone(), metrics.clone());
        follow.add("token/", leases.clone());
        follow.add("sys/mount/", Arc::new(EndsOfMounts(leases.clone())));
        leases.load(tx).await?;

        let cubbyhole = mounts.router().all().find(|m| m.traits.per_token).map(|m| m.view.clone());
        let cubbyhole = cubbyhole.ok_or_else(|| Error::internal("no mount stores what belongs to a token"))?;
        let tokens = Tokens::new(&barrier, token_view, &secrets, cubbyhole, leases.clone());
        follow.add("token/id/", tokens.clone());

        let lockout = Lockout::new(&barrier, system.clone());
        let lockout = follow_lockouts(lockout, &follow, tx, clock.now()).await?;
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
        let identity = Identity::new(barrier.view(IDENTITY_STORAGE), metrics.clone(), entities);
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
            stored_devices,
            lockout,
            metrics,
            cache_hits_recorded: AtomicU64::new(0),
            in_flight,
            _follow: follow,
        }))
    }
}

/// Reads the mounts, which follow what is committed from here on.
async fn follow_mounts(mounts: Mounts, follow: &Follow, tx: &mut ReadTx) -> Result<Arc<Mounts>> {
    let mounts = Arc::new(mounts);
    follow.add("sys/mount/", mounts.clone());
    follow.add("logical/", Arc::new(EngineRecords(mounts.clone())));
    follow.add("auth/", Arc::new(EngineRecords(mounts.clone())));
    mounts.load(tx).await?;
    Ok(mounts)
}

/// Reads the locks of users, which follow what is committed from here on.
async fn follow_lockouts(lockout: Lockout, follow: &Follow, tx: &mut ReadTx, now: Timestamp) -> Result<Arc<Lockout>> {
    let lockout = Arc::new(lockout);
    follow.add("sys/lockout/", lockout.clone());
    follow.add("sys/lockout-unknown/", Arc::new(UnknownNames(lockout.clone())));
    lockout.load(tx, now).await?;
    Ok(lockout)
}
