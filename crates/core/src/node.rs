//! The composition root: assembles one server. Besides tests only `lib.rs` and `dev.rs` import it.

use std::sync::Arc;

use keepfast_framework::engine::{Registered, Registry};
use keepfast_framework::{Clock, Error, Incoming, Result};
use keepfast_storage::{Backend, StorageError};

use crate::admission::Admission;
use crate::cluster::forward::ClusterNode;
use crate::cluster::join::joiner::known_seal;
use crate::cluster::join::retry;
use crate::cluster::membership::Membership;
use crate::cluster::place::Site;
use crate::identity::IdentityEngine;
use crate::lifecycle::{Lifecycle, reopened};
use crate::metrics::Metrics;
use crate::metrics::storage::Timed;
use crate::monitoring::Monitoring;
use crate::namespace::open::Namespaces;
use crate::parts::ServerParts;
use crate::preliminaries::Preliminaries;
use crate::request::Response;
use crate::seal::access::replace;
use crate::seal::{SealSet, Seals};
use crate::self_init::gate::{Phase, SelfInit};
use crate::self_init::{SelfInitPlan, run};
use crate::settings::Settings;
use crate::sys::{System, sealed};
use crate::token::TokenAuth;
use crate::unseal::by_seals;

/// One server: uninitialised, sealed or unsealed.
pub struct Node {
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// Handles the requests that do not need an unsealed server.
    system: System,
    monitoring: Monitoring,
}

/// The configuration of a server. The seals and the stanzas that initialize it are apart, so that no request can reach
/// them.
pub struct NodeSettings {
    settings: Settings,
    seals: SealSet,
    self_init: Arc<SelfInitPlan>,
}

impl From<Settings> for NodeSettings {
    /// A server whose root key is under shares.
    fn from(settings: Settings) -> Self {
        (settings, SealSet::default()).into()
    }
}

impl From<(Settings, SealSet)> for NodeSettings {
    fn from((settings, seals): (Settings, SealSet)) -> Self {
        (settings, seals, Arc::default()).into()
    }
}

impl From<(Settings, SealSet, Arc<SelfInitPlan>)> for NodeSettings {
    fn from((settings, seals, self_init): (Settings, SealSet, Arc<SelfInitPlan>)) -> Self {
        NodeSettings { settings, seals, self_init }
    }
}

/// Whether a server handles requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServingState {
    /// Sealed, or uninitialised.
    pub is_sealed: bool,
    /// Unseals itself by the seals of its configuration.
    pub has_seals: bool,
    /// Unsealed, with leases under quarantine.
    pub has_quarantine: bool,
}

impl Node {
    /// A server on this storage, sealed or uninitialised. No seal is called before [`start`](Self::start).
    pub fn new(
        backend: Arc<dyn Backend>,
        engines: Registry,
        clock: Arc<dyn Clock>,
        settings: impl Into<NodeSettings>,
    ) -> Arc<Self> {
        let NodeSettings { settings, seals, self_init } = settings.into();
        let metrics = Arc::<Metrics>::default();
        let backend: Arc<dyn Backend> = Arc::new(Timed::new(backend, clock.clone(), metrics.clone()));
        let admission = Arc::new(Admission::new(clock.clone(), metrics.clone()));
        let self_init = SelfInit::new(self_init);
        let lifecycle = Arc::new_cyclic(|lifecycle| {
            let this = lifecycle.clone();
            let system = Registered::with_table(sealed::table(), move |_cx| {
                let system = System::new(this.clone());
                Box::pin(async move { Ok(system) })
            });
            let token = Registered::with(|_cx| Box::pin(async { Ok(TokenAuth) }));
            let identity = Registered::with(|_cx| Box::pin(async { Ok(IdentityEngine) }));
            let engines = Arc::new(engines.preceded_by(vec![system, token, identity]));
            let settings = Arc::new(settings);
            let in_flight = Arc::default();
            let membership = Membership::new(&*backend, &settings);
            let parts = ServerParts { backend, membership, clock, settings, engines, admission, metrics, in_flight };
            Lifecycle::new(parts, Seals::new(seals), self_init, lifecycle.clone())
        });
        let system = System::new(Arc::downgrade(&lifecycle));
        let monitoring = Monitoring::new(lifecycle.clone());
        Arc::new(Node { lifecycle, system, monitoring })
    }

    /// Begins to join the cluster of the configuration, if it names leaders (`retry_join`), until one has responded or the
    /// storage is initialised; to unseal by the seals of the configuration, now and whenever the server seals itself; and to
    /// initialise itself by the stanzas of the configuration, if it has any.
    pub fn start(&self) {
        retry::start_configured(&self.lifecycle);
        by_seals::start(&self.lifecycle);
        run::start(&self.lifecycle);
    }

    /// Handles one request.
    pub async fn handle(&self, incoming: Box<Incoming>) -> Response {
        // Rare steps are boxed: a future has the size of its largest await, and is moved as a whole with each request.
        if sealed::is_served_sealed(incoming.path.as_str())
            && let Some(response) = Box::pin(sealed::answer(&self.system, &incoming)).await
        {
            return response;
        }
        let namespaces = match self.lifecycle.namespaces() {
            Some(namespaces) => namespaces,
            None => match Box::pin(reopened(&self.lifecycle)).await {
                Ok(Some(namespaces)) => namespaces,
                Ok(None) => return Response::failed(&Error::sealed()),
                Err(error) => return Response::failed(&error),
            },
        };
        if self.lifecycle.self_init.phase() != Phase::Off
            && let Some(error) = Box::pin(self.lifecycle.self_init.refusal(&namespaces.root().server().barrier)).await
        {
            return Response::failed(&error);
        }
        if sealed::ends_in_served_sealed(incoming.path.as_str())
            && let Some(response) = Box::pin(served_sealed_by_path(self, &namespaces, &incoming)).await
        {
            return response;
        }
        if incoming.cluster.is_some() || self.lifecycle.parts.membership.with_others().is_some() {
            return Box::pin(handle_in_cluster(&self.lifecycle, &namespaces, incoming)).await;
        }
        handle_alone(&namespaces, incoming).await
    }

    /// The serving state of the server.
    pub fn state(&self) -> ServingState {
        let unsealed = self.lifecycle.unsealed();
        let has_quarantine = unsealed.as_ref().is_some_and(|unsealed| unsealed.leases.store.is_quarantined());
        let has_seals = self.lifecycle.seals.enabled().next().is_some();
        ServingState { is_sealed: unsealed.is_none(), has_seals, has_quarantine }
    }

    /// Whether the storage is initialised, or about to get the records of a cluster.
    ///
    /// # Errors
    /// When storage fails or the record of the seal is damaged.
    pub async fn is_initialized(&self) -> Result<bool> {
        Ok(known_seal(&self.lifecycle).await?.is_some())
    }

    /// The rules that apply before a request is read.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.lifecycle.parts.admission
    }

    /// What the edge needs before it has read a request.
    pub fn preliminaries(&self) -> Preliminaries<'_> {
        Preliminaries::new(&self.lifecycle)
    }

    /// The metrics and the requests in flight.
    pub fn monitoring(&self) -> &Monitoring {
        &self.monitoring
    }

    /// Seals the server before the process ends.
    pub async fn shutdown(&self) {
        self.lifecycle.seal().await;
    }

    /// Reopens the targets of the audit devices, replaces the seals by those of the configuration, if it was read again,
    /// and tries them: their credentials may have changed. A self-initialization that failed goes on, with these stanzas if
    /// there are any.
    pub fn reload(&self, seals: Option<SealSet>, self_init: Option<Arc<SelfInitPlan>>) {
        if let Some(seals) = seals {
            replace(&self.lifecycle.seals, seals);
        }
        self.lifecycle.self_init.begin_attempt(self_init);
        self.lifecycle.seals.begin_round();
        self.lifecycle.seals.check_slots();
        if let Some(unsealed) = self.lifecycle.unsealed() {
            unsealed.observability.audit.reopen();
        }
    }
}

/// Responds to a row that works on a sealed server, with a namespace before it in the path.
async fn served_sealed_by_path(node: &Node, namespaces: &Namespaces, incoming: &Incoming) -> Option<Response> {
    let found = namespaces.find(incoming).await.ok().filter(|found| found.start > 0)?;
    let mut incoming = incoming.clone();
    incoming.path = incoming.path.after(found.start);
    sealed::answer(&node.system, &incoming).await
}

/// Handles a request of a node without other members.
async fn handle_alone(namespaces: &Namespaces, mut incoming: Box<Incoming>) -> Response {
    let pipeline = match namespaces.resolve(&mut incoming).await {
        Ok(pipeline) => pipeline,
        Err(error) => return namespaces.root().refuse_unresolved(incoming, error).await,
    };
    match pipeline.handle(incoming, Site::Leader).await {
        Ok(response) => response,
        Err(_) => Response::failed(&StorageError::NoLeader.into()),
    }
}

/// Handles a request of a node that has other members beside it, or with headers for such a node.
async fn handle_in_cluster(lifecycle: &Lifecycle, namespaces: &Arc<Namespaces>, incoming: Box<Incoming>) -> Response {
    let parts = &lifecycle.parts;
    if let (Some(consensus), Some(cluster_id)) = (parts.membership.consensus(), lifecycle.cluster_id()) {
        let cluster_id = &cluster_id;
        return ClusterNode { parts, consensus, namespaces, cluster_id }.handle(incoming).await;
    }
    // A storage that is not replicated issues no index.
    if incoming.cluster.as_ref().is_some_and(|part| part.index.is_some()) {
        return namespaces.root().refuse(incoming, Error::invalid("failed to decode \"X-Vault-Index\"")).await;
    }
    handle_alone(namespaces, incoming).await
}
