//! Everything that exists only while the server is unsealed, as plain fields. Sealing drops it.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use keepfast_crypto::random;
use keepfast_framework::cx::{Caller, Request};
use keepfast_framework::engine::{Registered, Registry};
use keepfast_framework::services::Services;
use keepfast_framework::{Clock, Cx, Error, Mountable, Operation, Result};
use keepfast_storage::Barrier;

use crate::audit::target::OpenedDevice;
use crate::audit::{Broker, created};
use crate::identity::Identity;
use crate::lease::Leases;
use crate::lockout::Lockout;
use crate::metrics::Metrics;
use crate::mount::{Mounted, Mounts};
use crate::node::Node;
use crate::policy::store::Policies;
use crate::request::in_flight::InFlight;
use crate::seal::Custody;
use crate::services::EngineServices;
use crate::settings::Settings;
use crate::token::Tokens;

/// The unsealed server.
pub struct Unsealed {
    /// The only way to storage.
    pub barrier: Arc<Barrier>,
    /// What the operator decided.
    pub settings: Arc<Settings>,
    /// The only source of time.
    pub clock: Arc<dyn Clock>,
    /// How the root key is kept, and what changes it.
    pub custody: Custody,
    /// Which engine answers where.
    pub mounts: Arc<Mounts>,
    /// What policies say.
    pub policies: Arc<Policies>,
    /// Who is known by a token.
    pub tokens: Arc<Tokens>,
    /// What engines gave out for a time.
    pub leases: Arc<Leases>,
    /// What engines may ask for.
    pub services: Arc<dyn Services>,
    /// Who is behind a login.
    pub identity: Identity,
    /// What is recorded.
    pub audit: Broker,
    /// Who is locked out after too many failed logins.
    pub lockout: Lockout,
    /// The node, for sealing.
    pub node: Weak<Node>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How many of the reads that the barrier's cache answered the metrics know of.
    pub cache_hits_told: AtomicU64,
    /// The requests under way.
    pub in_flight: Arc<InFlight>,
}

/// What [`Unsealed::open`] is given.
pub struct Ingredients {
    /// Already opened with the root key.
    pub barrier: Arc<Barrier>,
    /// What the operator decided.
    pub settings: Arc<Settings>,
    /// The only source of time.
    pub clock: Arc<dyn Clock>,
    /// The engines that the server was built with.
    pub engines: Arc<Registry>,
    /// The unseal key that opened the root key.
    pub custody: Custody,
    /// The opened audit devices, in the order of the settings.
    pub devices: Vec<OpenedDevice>,
    /// The node that unseals.
    pub node: Weak<Node>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The requests under way.
    pub in_flight: Arc<InFlight>,
}

impl Unsealed {
    /// Opens everything. Its time does not grow with the number of tokens or leases.
    ///
    /// # Errors
    /// When storage fails: then the server stays sealed.
    pub async fn open(given: Ingredients) -> Result<Arc<Self>> {
        let Ingredients { barrier, settings, clock, engines, custody, devices, node, metrics, in_flight } = given;
        let system = barrier.view("sys/");
        let identity_view = barrier.view("identity/");
        let salts = barrier.view("audit/");
        let audit = Broker::open(&barrier, &salts, &settings.audit, devices, clock.clone(), metrics.clone()).await?;
        created::open_all(&audit, &mut barrier.begin_read(), &salts, &settings.own_files).await?;
        let mounts = Arc::new(Mounts::open(&barrier, system.clone(), engines, settings.clone()).await?);
        let policies = Policies::open(&barrier, system.clone(), &identity_view, clock.clone(), metrics.clone()).await?;
        let cubbyhole = mounts.router().at("cubbyhole/").map(|m| m.view.clone());
        let cubbyhole = cubbyhole.ok_or_else(|| Error::internal("there is no cubbyhole mount"))?;
        let leases =
            Leases::open(&barrier, barrier.view("token/"), settings.home.clone(), clock.clone(), metrics.clone())
                .await?;
        let tokens = Tokens::open(&barrier, barrier.view("token/"), cubbyhole, leases.clone()).await?;
        let lockout = Lockout::open(&barrier, system.clone(), clock.now()).await?;
        let services =
            EngineServices { system, leases: leases.clone(), mounts: mounts.clone(), settings: settings.clone() };
        let services = Arc::new(services);
        let identity = Identity::new(identity_view, metrics.clone());
        Ok(Arc::new(Unsealed {
            barrier,
            settings,
            clock,
            custody,
            mounts,
            policies,
            tokens,
            leases,
            services,
            identity,
            audit,
            lockout,
            node,
            metrics,
            cache_hits_told: AtomicU64::new(0),
            in_flight,
        }))
    }

    /// Opens the engine of a mount, in a transaction of its own.
    ///
    /// # Errors
    /// What the engine's opening fails with.
    pub async fn open_engine(&self, mounted: &Mounted) -> Result<Arc<dyn Mountable>> {
        let entry = &mounted.entry;
        let registered: &Registered = self
            .mounts
            .registry()
            .find(entry.kind(), &entry.engine, &entry.options())
            .ok_or_else(|| Error::internal(format!("engine type {:?} is not in this server", entry.engine)))?;
        loop {
            let mut cx = self.context(mounted, Operation::Update, String::new());
            let engine = registered.open(&mut cx).await?;
            match cx.commit().await {
                Ok(()) => return Ok(engine),
                Err(keepfast_storage::StorageError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A context for work of the server itself on a mount: nobody calls.
    pub fn context(&self, mounted: &Mounted, operation: Operation, path: String) -> Cx {
        let request = Request { id: random::request_id(), operation, path, remote: None };
        Cx::new(
            self.barrier.clone(),
            self.barrier.begin(),
            mounted.view.clone(),
            mounted.info.clone(),
            self.clock.clone(),
            Arc::new(Caller::default()),
            Arc::new(request),
        )
        .with_services(self.services.clone())
    }
}
