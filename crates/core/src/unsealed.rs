//! The services that exist only while the server is unsealed, in groups. Sealing drops them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use keepfast_framework::{Clock, Error, Result};
use keepfast_storage::{Barrier, ReadTx, View};

use crate::admission::RulesSource;
use crate::admission::stored::StoredRules;
use crate::audit::stored_devices::StoredDevices;
use crate::audit::target::OpenedDevice;
use crate::audit::{Broker, stored_devices};
use crate::cluster::restored;
use crate::external_keys::ExternalKeys;
use crate::external_keys::record::CONFIG_FOLDER;
use crate::identity::{Changes, Identity, OidcState};
use crate::invalidation::{Invalidator, WatchedBarrier};
use crate::layout::{
    AUDIT_DEVICES, AUDIT_STORAGE, ENGINE_STORAGE, IDENTITY_STORAGE, LOCKS, MOUNT_ENTRIES, OIDC, POLICIES,
    SYSTEM_STORAGE, TOKEN_STORAGE, TOKENS, UNKNOWN_LOCKS,
};
use crate::lease::{DeletedMounts, ExpiryWorker, IndexTidier, LeaseRevoker, Leases, PathRevoker, Renewer};
use crate::lockout::{Lockout, UnknownNames};
use crate::metrics::Metrics;
use crate::mount::{EngineHost, EngineRecords, MountChanges, Mounts};
use crate::parts::ServerParts;
use crate::policy::store::Policies;
use crate::request::in_flight::InFlight;
use crate::seal::CurrentSeal;
use crate::services::EngineServices;
use crate::settings::Settings;
use crate::token::{TokenSecrets, Tokens};
use crate::wrapping::Wrapper;

/// The unsealed server: its services, by purpose.
pub(crate) struct Unsealed {
    /// The barrier, through which all storage is accessed.
    pub(crate) barrier: WatchedBarrier,
    /// The configuration.
    pub(crate) settings: Arc<Settings>,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// The seal, which changes the root key and the shares.
    pub(crate) current_seal: CurrentSeal,
    /// Authentication and authorization.
    pub(crate) access: Access,
    /// The mounts and their engines.
    pub(crate) engines: Engines,
    /// Leases and the expiry of tokens.
    pub(crate) leases: LeaseServices,
    /// Audit devices and metrics.
    pub(crate) observability: Observability,
}

/// Authentication and authorization.
pub(crate) struct Access {
    /// Policies, and the ACLs that are compiled from them.
    pub(crate) policies: Arc<Policies>,
    /// Tokens.
    pub(crate) tokens: Arc<Tokens>,
    /// Entities, aliases and groups.
    pub(crate) identity: Arc<Identity>,
    /// User lockout after failed logins.
    pub(crate) lockout: Arc<Lockout>,
    /// Response wrapping.
    pub(crate) wrapper: Arc<Wrapper>,
}

/// The mounts and their engines.
pub(crate) struct Engines {
    /// The host of the engines.
    pub(crate) host: Arc<EngineHost>,
    /// The mounts and the router.
    pub(crate) mounts: Arc<Mounts>,
    /// Mounts, unmounts, moves and tunes engines.
    pub(crate) changes: MountChanges,
    /// The keys of other systems that mounts may use.
    pub(crate) external_keys: Arc<ExternalKeys>,
}

/// Leases and the expiry of tokens.
pub(crate) struct LeaseServices {
    /// The records of leases, and the expiry queue.
    pub(crate) store: Arc<Leases>,
    /// Renews leases.
    pub(crate) renewer: Renewer,
    /// Revokes leases and tokens on request.
    pub(crate) revoker: Arc<PathRevoker>,
    /// Revokes expired leases and tokens.
    pub(crate) expiry: Arc<ExpiryWorker>,
    /// Tidies the index of tokens and leases.
    pub(crate) tidier: IndexTidier,
}

/// Audit devices and metrics.
pub(crate) struct Observability {
    /// The audit devices.
    pub(crate) audit: Arc<Broker>,
    /// The audit devices that `sys/audit` has stored.
    pub(crate) stored_devices: Arc<StoredDevices>,
    /// The metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// The requests in flight.
    pub(crate) in_flight: Arc<InFlight>,
    /// The number of cache reads of the barrier that the metrics have recorded.
    pub(crate) cache_hits_recorded: AtomicU64,
}

/// The inputs of [`Unsealed::open`] in addition to the parts of the server.
pub(crate) struct OpenInputs {
    /// The barrier, opened with the root key.
    pub(crate) barrier: Arc<Barrier>,
    /// The seal that unwrapped the root key.
    pub(crate) current_seal: CurrentSeal,
    /// The opened audit devices, in the order of the settings.
    pub(crate) devices: Vec<OpenedDevice>,
    /// The source of the rules of admission.
    pub(crate) rules: RulesSource,
}

impl Unsealed {
    /// Opens all services. Its time does not depend on the number of tokens or leases. It only reads: each await gets a
    /// [`ReadTx`], so a standby opens in the same way.
    ///
    /// Fails when storage fails, or when it lacks records that [`crate::takeover`] writes: then the server stays
    /// sealed.
    pub(crate) async fn open(parts: &ServerParts, inputs: OpenInputs) -> Result<Arc<Self>> {
        let OpenInputs { barrier, current_seal, devices, rules } = inputs;
        let (settings, clock, metrics) = (&parts.settings, &parts.clock, &parts.metrics);
        let tx = &mut barrier.begin_read();
        let (system, salts, token_view) =
            (barrier.view(SYSTEM_STORAGE), barrier.view(AUDIT_STORAGE), barrier.view(TOKEN_STORAGE));
        let audit = Broker::open(tx, &salts, &settings.audit, devices, clock.clone(), metrics.clone()).await?;
        let invalidator = Invalidator::new(barrier.clone());
        let stored_devices = Arc::new(StoredDevices::new(barrier.clone(), salts.clone(), settings.clone()));
        invalidator.add(AUDIT_STORAGE, AUDIT_DEVICES, stored_devices.clone());
        stored_devices::open_all(&audit, tx, &salts, settings).await?;
        let secrets = TokenSecrets::load(tx, &token_view).await?;

        let mounts = Mounts::new(barrier.view(""), system.clone(), parts.engines.clone(), settings.clone());
        let mounts = register_mounts(mounts, &invalidator, tx).await?;
        let rules = Arc::new(StoredRules::new(system.clone(), rules));
        invalidator.add(SYSTEM_STORAGE, "", rules.clone());
        rules.load(tx).await?;

        let policies = Policies::new(&barrier, system.clone(), clock.clone(), metrics.clone());
        invalidator.add(SYSTEM_STORAGE, POLICIES, policies.clone());
        let identity = register_identity(&barrier, parts, &invalidator);

        let directory = parts.node_directory().map(|own| own.directory);
        let leases = Leases::new(&barrier, token_view.clone(), directory, clock.clone(), metrics.clone());
        invalidator.add(TOKEN_STORAGE, "", leases.clone());
        invalidator.add(SYSTEM_STORAGE, MOUNT_ENTRIES, Arc::new(DeletedMounts(leases.clone())));
        leases.load(tx).await?;
        if restored::holds_leases(&*parts.backend).await? {
            leases.expect_quarantine();
        }

        let cubbyhole = mounts.router().all().find(|m| m.traits.per_token).map(|m| m.view.clone());
        let cubbyhole = cubbyhole.ok_or_else(|| Error::internal("no mount stores what belongs to a token"))?;
        let tokens = Tokens::new(&barrier, token_view, &secrets, cubbyhole, leases.clone());
        invalidator.add(TOKEN_STORAGE, TOKENS, tokens.clone());

        let lockout = Lockout::new(&barrier, system.clone(), parts.membership.consensus().cloned());
        let lockout = register_lockout(lockout, &invalidator, tx, clock).await?;
        let external_keys = register_external_keys(&barrier, &system, settings, clock, &invalidator);
        let services = EngineServices {
            system,
            leases: leases.clone(),
            mounts: mounts.clone(),
            settings: settings.clone(),
            external_keys: external_keys.clone(),
        };
        let host = Arc::new(EngineHost {
            barrier,
            clock: clock.clone(),
            services: Arc::new(services),
            registry: mounts.registry().clone(),
        });
        let wrapper = Arc::new(Wrapper {
            clock: clock.clone(),
            max_ttl: settings.max_lease_ttl,
            tokens: tokens.clone(),
            metrics: metrics.clone(),
        });
        let leases = lease_services(&host, &mounts, leases, &tokens, metrics);
        let changes = MountChanges { host: host.clone(), mounts: mounts.clone(), revoker: leases.revoker.clone() };
        Ok(Arc::new(Unsealed {
            barrier: WatchedBarrier::new(invalidator),
            settings: settings.clone(),
            clock: clock.clone(),
            current_seal,
            access: Access { policies, tokens, identity, lockout, wrapper },
            engines: Engines { host, mounts, changes, external_keys },
            leases,
            observability: Observability {
                audit: Arc::new(audit),
                stored_devices,
                metrics: metrics.clone(),
                in_flight: parts.in_flight.clone(),
                cache_hits_recorded: AtomicU64::new(0),
            },
        }))
    }
}

/// Creates the records of identity, whose cache follows commits from now on.
fn register_identity(barrier: &Arc<Barrier>, parts: &ServerParts, invalidator: &Invalidator) -> Arc<Identity> {
    let changes = Arc::<Changes>::default();
    invalidator.add(IDENTITY_STORAGE, "", changes.clone());
    let identity = Identity::new(barrier.clone(), barrier.view(IDENTITY_STORAGE), parts.metrics.clone(), changes);
    let identity = identity.with_oidc(OidcState::new(parts.membership.roles()));
    invalidator.add(IDENTITY_STORAGE, OIDC, identity.oidc.clone());
    Arc::new(identity)
}

/// Creates the external keys, whose connections follow commits from now on.
fn register_external_keys(
    barrier: &Arc<Barrier>,
    system: &View,
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    invalidator: &Invalidator,
) -> Arc<ExternalKeys> {
    let plugins = settings.external_keys.clone();
    let external_keys = Arc::new(ExternalKeys::new(barrier.clone(), system.clone(), plugins, clock.clone()));
    invalidator.add(SYSTEM_STORAGE, CONFIG_FOLDER, external_keys.clone());
    external_keys
}

/// Creates the services that renew and revoke leases.
fn lease_services(
    host: &Arc<EngineHost>,
    mounts: &Arc<Mounts>,
    store: Arc<Leases>,
    tokens: &Arc<Tokens>,
    metrics: &Arc<Metrics>,
) -> LeaseServices {
    let revoker = Arc::new(LeaseRevoker { host: host.clone(), leases: store.clone(), metrics: metrics.clone() });
    let expiry = Arc::new(ExpiryWorker {
        revoker: revoker.clone(),
        mounts: mounts.clone(),
        leases: store.clone(),
        tokens: tokens.clone(),
        metrics: metrics.clone(),
        barrier: host.barrier.clone(),
        clock: host.clock.clone(),
    });
    let by_path = PathRevoker {
        revoker,
        mounts: mounts.clone(),
        leases: store.clone(),
        tokens: tokens.clone(),
        metrics: metrics.clone(),
        clock: host.clock.clone(),
    };
    LeaseServices {
        renewer: Renewer {
            host: host.clone(),
            mounts: mounts.clone(),
            leases: store.clone(),
            metrics: metrics.clone(),
        },
        revoker: Arc::new(by_path),
        tidier: IndexTidier {
            expiry: expiry.clone(),
            leases: store.clone(),
            tokens: tokens.clone(),
            barrier: host.barrier.clone(),
        },
        expiry,
        store,
    }
}

/// Reads the mounts, which follow commits from now on.
async fn register_mounts(mounts: Mounts, invalidator: &Invalidator, tx: &mut ReadTx) -> Result<Arc<Mounts>> {
    let mounts = Arc::new(mounts);
    invalidator.add(SYSTEM_STORAGE, MOUNT_ENTRIES, mounts.clone());
    for storage in ENGINE_STORAGE {
        invalidator.add(storage, "", Arc::new(EngineRecords(mounts.clone())));
    }
    mounts.load(tx).await?;
    Ok(mounts)
}

/// Reads the locks of users, which follow commits from now on.
async fn register_lockout(
    lockout: Lockout,
    invalidator: &Invalidator,
    tx: &mut ReadTx,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Lockout>> {
    let lockout = Arc::new(lockout);
    invalidator.add(SYSTEM_STORAGE, LOCKS, lockout.clone());
    let unknown_names = UnknownNames { lockout: lockout.clone(), clock: clock.clone() };
    invalidator.add(SYSTEM_STORAGE, UNKNOWN_LOCKS, Arc::new(unknown_names));
    lockout.load(tx, clock.now()).await?;
    Ok(lockout)
}
