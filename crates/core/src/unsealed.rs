//! The services that exist only while the server is unsealed, in groups: those of the root namespace, or of another one
//! ([`crate::namespace::open`]), which shares the services of the whole server. Sealing drops them.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, Weak};

use futures_util::future::BoxFuture;
use keepfast_framework::{Clock, Error, Incoming, Result};
use keepfast_storage::{Barrier, ReadTx, Role, View};
use tokio::sync::watch;

use crate::admission::RulesSource;
use crate::admission::stored::StoredRules;
use crate::audit::stored_devices::StoredDevices;
use crate::audit::target::OpenedDevice;
use crate::audit::{Broker, stored_devices};
use crate::cluster::restored;
use crate::control_group::{Approval, ApprovedResponse};
use crate::external_keys::ExternalKeys;
use crate::external_keys::record::CONFIG_FOLDER;
use crate::identity::{Changes, Identity, OidcState};
use crate::invalidation::{Invalidator, Owners, WatchedBarrier};
use crate::layout::{
    AUDIT_DEVICES, AUDIT_STORAGE, ENGINE_STORAGE, IDENTITY_STORAGE, LOCKS, MFA_ENFORCEMENTS, MOUNT_ENTRIES, NAMESPACES,
    OIDC, POLICIES, SYSTEM_STORAGE, TOKEN_STORAGE, TOKENS, UNKNOWN_LOCKS,
};
use crate::lease::quotas::{self, LeaseQuotas};
use crate::lease::{DeletedMounts, ExpiryWorker, IndexTidier, LeaseRevoker, Leases, PathRevoker, Renewer};
use crate::lockout::{Lockout, UnknownNames};
use crate::metrics::Metrics;
use crate::mount::table::MountStorage;
use crate::mount::{EngineHost, EngineRecords, MountChanges, Mounts};
use crate::namespace::directory::Directory;
use crate::namespace::{Namespace, NamespaceId};
use crate::parts::ServerParts;
use crate::policy::store::Policies;
use crate::request::in_flight::InFlight;
use crate::seal::CurrentSeal;
use crate::services::EngineServices;
use crate::settings::Settings;
use crate::token::{TokenSecrets, Tokens};
use crate::wrapping::Wrapper;

/// A namespace of the unsealed server: its services, by purpose.
pub(crate) struct Unsealed {
    /// The barrier, through which all storage is accessed.
    pub(crate) barrier: WatchedBarrier,
    /// The configuration.
    pub(crate) settings: Arc<Settings>,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// The seal, which changes the root key and the shares.
    pub(crate) current_seal: Arc<CurrentSeal>,
    /// Authentication and authorization.
    pub(crate) access: Arc<Access>,
    /// The mounts and their engines.
    pub(crate) engines: Engines,
    /// Leases and the expiry of tokens.
    pub(crate) leases: LeaseServices,
    /// Audit devices and metrics.
    pub(crate) observability: Arc<Observability>,
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
    /// The namespace of the policies, the identity and the lockout; tokens are those of all namespaces.
    pub(crate) namespace: Arc<Namespace>,
    /// The services of the namespace above; `None` for root.
    pub(crate) parent: Option<ParentNamespace>,
    /// All namespaces; set when the server begins to serve.
    pub(crate) namespaces: OnceLock<Weak<dyn NamespaceHost>>,
}

/// All namespaces, as the services of each see them.
pub(crate) trait NamespaceHost: Send + Sync {
    /// Opens a namespace, also one that handles no requests; `None` if it does not exist.
    fn open_any<'a>(&'a self, id: &'a NamespaceId) -> BoxFuture<'a, Result<Option<Arc<Unsealed>>>>;
    /// Opens a namespace that a request names; `None` if it does not exist or is being deleted. Fails with 503 when it is
    /// locked.
    fn usable<'a>(&'a self, id: &'a NamespaceId) -> BoxFuture<'a, Result<Option<Arc<Unsealed>>>>;
    /// The namespace of a header and a path, and the start of the path within it.
    fn locate<'a>(&'a self, header: &'a str, path: &'a str) -> BoxFuture<'a, Result<(Arc<Unsealed>, usize)>>;
    /// The open namespaces besides root.
    fn opened(&self) -> Vec<Arc<Unsealed>>;
    /// Opens all namespaces, for work on every record.
    fn open_all(&self) -> BoxFuture<'_, Result<()>>;
    /// Runs a stored request of a namespace that a control group has approved.
    fn run_approved<'a>(
        &'a self,
        id: &'a NamespaceId,
        incoming: Box<Incoming>,
        approval: Approval,
    ) -> BoxFuture<'a, Result<ApprovedResponse>>;
}

/// The namespace above another one, whose tokens and policies are also valid there.
#[derive(Clone)]
pub(crate) struct ParentNamespace {
    /// Its authentication and authorization.
    pub(crate) access: Arc<Access>,
    /// Its mounts.
    pub(crate) mounts: Arc<Mounts>,
}

impl Access {
    /// The services of the namespace of this id, if it is this one or above it, and the path of this namespace in it.
    pub(crate) fn of_namespace(self: &Arc<Self>, id: &NamespaceId) -> Option<(Arc<Access>, &str)> {
        let path = self.namespace.relative_to(id)?;
        let mut at = self;
        while at.namespace.id != *id {
            at = &at.parent.as_ref()?.access;
        }
        Some((at.clone(), path))
    }

    /// All namespaces.
    ///
    /// # Errors
    /// 503 when the server is being sealed.
    pub(crate) fn namespaces(&self) -> Result<Arc<dyn NamespaceHost>> {
        self.namespaces.get().and_then(Weak::upgrade).ok_or_else(Error::sealed)
    }

    /// Whether a namespace is this one or below it: ids of it may be used here.
    ///
    /// # Errors
    /// 503 when it is locked; when storage fails.
    pub(crate) async fn reaches(&self, id: &NamespaceId) -> Result<bool> {
        if *id == self.namespace.id {
            return Ok(true);
        }
        let found = self.namespaces()?.usable(id).await?;
        Ok(found.is_some_and(|found| found.access.namespace.relative_to(&self.namespace.id).is_some()))
    }
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
    /// The records of namespaces.
    pub(crate) directory: Arc<Directory>,
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
        let (system, token_view) = (barrier.view(SYSTEM_STORAGE), barrier.view(TOKEN_STORAGE));
        let invalidator = Invalidator::new(barrier.clone());
        let owners = invalidator.owners();
        let (audit, stored_devices) = register_audit(&barrier, parts, devices, owners, tx).await?;
        let secrets = TokenSecrets::load(tx, &token_view).await?;

        let storage =
            MountStorage { namespace: Arc::from(""), all: barrier.view(""), entries: system.clone(), cubbyhole: None };
        let mounts = Mounts::new(NamespaceId::root(), storage, parts.engines.clone(), settings.clone());
        let mounts = register_mounts(mounts, owners, tx).await?;
        let directory = Arc::new(Directory::new(&barrier));
        owners.add(NAMESPACES, "", directory.clone());
        directory.load(tx).await?;
        let rules = Arc::new(StoredRules::new(system.clone(), rules));
        owners.add(SYSTEM_STORAGE, "", rules.clone());
        rules.load(tx).await?;

        let policies = Policies::new(NamespaceId::root(), &barrier, system.clone(), clock.clone(), metrics.clone());
        owners.add(SYSTEM_STORAGE, POLICIES, policies.clone());
        let identity =
            register_identity(&barrier, (&Namespace::root(), None), parts.membership.roles(), metrics, owners);

        let leases = register_leases(&barrier, parts, &directory, owners, tx).await?;
        let tokens = register_tokens(&barrier, &secrets, &mounts, &leases, owners)?;
        let cluster = parts.membership.consensus().cloned();
        let lockout = Lockout::new(NamespaceId::root(), &barrier, system.clone(), cluster);
        let lockout = register_lockout(lockout, owners, tx, clock).await?;
        let external_keys = register_external_keys(&barrier, &system, settings, clock, owners);
        let services = Arc::new(EngineServices {
            system,
            leases: leases.clone(),
            mounts: mounts.clone(),
            settings: settings.clone(),
            external_keys: external_keys.clone(),
        });
        let registry = mounts.registry().clone();
        let host = Arc::new(EngineHost { barrier, clock: clock.clone(), services, registry });
        let wrapper = wrapper(NamespaceId::root(), (settings, clock), &tokens, metrics);
        let leases = lease_services(&NamespaceId::root(), &host, &mounts, leases, &tokens, metrics);
        let revoker = leases.revoker.clone();
        let changes = MountChanges {
            host: host.clone(),
            mounts: mounts.clone(),
            revoker,
            directory: directory.clone(),
            deleting: tokio::sync::Mutex::default(),
        };
        Ok(Arc::new(Unsealed {
            barrier: WatchedBarrier::new(invalidator),
            settings: settings.clone(),
            clock: clock.clone(),
            current_seal: Arc::new(current_seal),
            access: Arc::new(Access {
                policies,
                tokens,
                identity,
                lockout,
                wrapper,
                namespace: Namespace::root(),
                parent: None,
                namespaces: OnceLock::new(),
            }),
            engines: Engines { host, mounts, changes, external_keys },
            leases,
            observability: Arc::new(Observability {
                audit: Arc::new(audit),
                stored_devices,
                metrics: metrics.clone(),
                in_flight: parts.in_flight.clone(),
                cache_hits_recorded: AtomicU64::new(0),
                directory,
            }),
        }))
    }
}

/// Creates what wraps the responses of a namespace.
pub(crate) fn wrapper(
    namespace: NamespaceId,
    (settings, clock): (&Settings, &Arc<dyn Clock>),
    tokens: &Arc<Tokens>,
    metrics: &Arc<Metrics>,
) -> Arc<Wrapper> {
    Arc::new(Wrapper {
        namespace,
        clock: clock.clone(),
        max_ttl: settings.max_lease_ttl,
        tokens: tokens.clone(),
        metrics: metrics.clone(),
    })
}

/// Opens the audit devices; those that the API has stored follow commits from now on.
async fn register_audit(
    barrier: &Arc<Barrier>,
    parts: &ServerParts,
    devices: Vec<OpenedDevice>,
    owners: &Owners,
    tx: &mut ReadTx,
) -> Result<(Broker, Arc<StoredDevices>)> {
    let (settings, salts) = (&parts.settings, barrier.view(AUDIT_STORAGE));
    let (clock, metrics) = (parts.clock.clone(), parts.metrics.clone());
    let audit = Broker::open(tx, &salts, &settings.audit, devices, clock, metrics).await?;
    let stored_devices = Arc::new(StoredDevices::new(barrier.clone(), salts.clone(), settings.clone()));
    owners.add(AUDIT_STORAGE, AUDIT_DEVICES, stored_devices.clone());
    stored_devices::open_all(&audit, tx, &salts, settings).await?;
    Ok((audit, stored_devices))
}

/// Creates the leases of all namespaces with their quotas, which follow commits from now on.
async fn register_leases(
    barrier: &Arc<Barrier>,
    parts: &ServerParts,
    directory: &Arc<Directory>,
    owners: &Owners,
    tx: &mut ReadTx,
) -> Result<Arc<Leases>> {
    let quotas = LeaseQuotas::new(barrier, barrier.view(SYSTEM_STORAGE), directory.clone());
    owners.add(SYSTEM_STORAGE, quotas::FOLDER, quotas.clone());
    quotas.load(tx).await?;
    let (view, data_directory) = (barrier.view(TOKEN_STORAGE), parts.node_directory().map(|own| own.directory));
    let leases = Leases::new(barrier, view, data_directory, parts.clock.clone(), parts.metrics.clone(), quotas);
    owners.add(TOKEN_STORAGE, "", leases.clone());
    owners.add(SYSTEM_STORAGE, MOUNT_ENTRIES, Arc::new(DeletedMounts(leases.clone())));
    leases.load(tx).await?;
    if restored::holds_leases(&*parts.backend).await? {
        leases.expect_quarantine();
    }
    Ok(leases)
}

/// Creates the tokens of all namespaces, which follow commits from now on.
fn register_tokens(
    barrier: &Arc<Barrier>,
    secrets: &TokenSecrets,
    mounts: &Mounts,
    leases: &Arc<Leases>,
    owners: &Owners,
) -> Result<Arc<Tokens>> {
    let cubbyhole = mounts.router().all().find(|m| m.traits.per_token).map(|m| m.view.clone());
    let cubbyhole = cubbyhole.ok_or_else(|| Error::internal("no mount stores what belongs to a token"))?;
    let tokens = Tokens::new(barrier, barrier.view(TOKEN_STORAGE), secrets, cubbyhole, leases.clone());
    owners.add(TOKEN_STORAGE, TOKENS, tokens.clone());
    Ok(tokens)
}

/// Creates the records of identity of a namespace, whose cache follows commits from now on.
pub(crate) fn register_identity(
    barrier: &Arc<Barrier>,
    (namespace, parent): (&Namespace, Option<Arc<Identity>>),
    roles: Option<watch::Receiver<Role>>,
    metrics: &Arc<Metrics>,
    owners: &Owners,
) -> Arc<Identity> {
    let changes = Arc::<Changes>::default();
    owners.add(IDENTITY_STORAGE, "", changes.clone());
    let view = barrier.view(format!("{}{IDENTITY_STORAGE}", namespace.storage()));
    let identity = Identity::new(namespace.id.clone(), barrier.clone(), view, metrics.clone(), changes);
    let identity = identity.with_oidc(OidcState::new(roles)).below(parent);
    owners.add(IDENTITY_STORAGE, OIDC, identity.oidc.clone());
    owners.add(IDENTITY_STORAGE, MFA_ENFORCEMENTS, identity.mfa.clone());
    Arc::new(identity)
}

/// Creates the external keys, whose connections follow commits from now on.
pub(crate) fn register_external_keys(
    barrier: &Arc<Barrier>,
    system: &View,
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    owners: &Owners,
) -> Arc<ExternalKeys> {
    let plugins = settings.external_keys.clone();
    let external_keys = Arc::new(ExternalKeys::new(barrier.clone(), system.clone(), plugins, clock.clone()));
    owners.add(SYSTEM_STORAGE, CONFIG_FOLDER, external_keys.clone());
    external_keys
}

/// Creates the services that renew and revoke the leases of a namespace.
pub(crate) fn lease_services(
    namespace: &NamespaceId,
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
        namespace: namespace.clone(),
        revoker,
        mounts: mounts.clone(),
        leases: store.clone(),
        tokens: tokens.clone(),
        metrics: metrics.clone(),
        clock: host.clock.clone(),
    };
    LeaseServices {
        renewer: Renewer {
            namespace: namespace.clone(),
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
pub(crate) async fn register_mounts(mounts: Mounts, owners: &Owners, tx: &mut ReadTx) -> Result<Arc<Mounts>> {
    let mounts = Arc::new(mounts);
    owners.add(SYSTEM_STORAGE, MOUNT_ENTRIES, mounts.clone());
    for storage in ENGINE_STORAGE {
        owners.add(storage, "", Arc::new(EngineRecords(mounts.clone())));
    }
    mounts.load(tx).await?;
    Ok(mounts)
}

/// Reads the locks of users, which follow commits from now on.
pub(crate) async fn register_lockout(
    lockout: Lockout,
    owners: &Owners,
    tx: &mut ReadTx,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Lockout>> {
    let lockout = Arc::new(lockout);
    owners.add(SYSTEM_STORAGE, LOCKS, lockout.clone());
    let unknown_names = UnknownNames { lockout: lockout.clone(), clock: clock.clone() };
    owners.add(SYSTEM_STORAGE, UNKNOWN_LOCKS, Arc::new(unknown_names));
    lockout.load(tx, clock.now()).await?;
    Ok(lockout)
}
