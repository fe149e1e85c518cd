//! The open namespaces: the services of a namespace are opened at its first use, and shared by all its requests.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use keepfast_framework::rows::RunsIn;
use keepfast_framework::{Error, Incoming, Page, Result, Status};
use keepfast_storage::{Consensus, Role};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::record::NamespaceRecord;
use super::{Namespace, NamespaceId, split_suffix};
use crate::invalidation::Owners;
use crate::layout::{POLICIES, SYSTEM_STORAGE};
use crate::lockout::Lockout;
use crate::mount::table::MountStorage;
use crate::mount::{EngineHost, MountChanges, Mounts};
use crate::parts::ServerParts;
use crate::policy::store::Policies;
use crate::request::Pipeline;
use crate::services::EngineServices;
use crate::unsealed::{
    Access, Engines, ParentNamespace, Unsealed, lease_services, register_external_keys, register_identity,
    register_lockout, register_mounts,
};
use crate::wrapping::Wrapper;

/// The number of namespaces per read.
const PAGE: usize = 100;
/// The path within a locked namespace that unlocks it.
const UNLOCK: &str = "sys/namespaces/api-lock/unlock";

/// The namespace of a request.
pub(crate) struct Found {
    /// Handles its requests.
    pub(crate) pipeline: Arc<Pipeline>,
    /// The start of the path within the namespace.
    pub(crate) start: usize,
}

/// All namespaces of an unsealed server.
pub(crate) struct Namespaces {
    root: Arc<Pipeline>,
    /// The cluster and the role of this node, for the services of each namespace.
    cluster: Option<Arc<dyn Consensus>>,
    roles: Option<watch::Receiver<Role>>,
    open: Mutex<HashMap<NamespaceId, Arc<Pipeline>>>,
    /// Only one namespace is opened at a time.
    opening: tokio::sync::Mutex<()>,
}

impl Namespaces {
    /// The namespaces of an unsealed server, of which only root is open.
    pub(crate) fn new(root: Arc<Unsealed>, parts: &ServerParts) -> Arc<Self> {
        let access = root.access.clone();
        let (cluster, roles) = (parts.membership.consensus().cloned(), parts.membership.roles());
        let (open, opening) = (Mutex::default(), tokio::sync::Mutex::new(()));
        let namespaces = Arc::new(Namespaces { root: Arc::new(Pipeline::new(root)), cluster, roles, open, opening });
        let _ = access.namespaces.set(Arc::downgrade(&namespaces));
        namespaces
    }

    /// Whether there may be a namespace besides root.
    pub(crate) fn has_any(&self) -> bool {
        self.root.server().observability.directory.has_any()
    }

    /// The root namespace.
    pub(crate) fn root(&self) -> &Arc<Pipeline> {
        &self.root
    }

    /// The open namespaces besides root.
    pub(crate) fn opened(&self) -> Vec<Arc<Pipeline>> {
        self.open.lock().values().cloned().collect()
    }

    /// Opens a namespace; `None` if it does not exist, is being deleted or is locked, itself or one above it.
    pub(crate) async fn open(&self, id: &NamespaceId) -> Result<Option<Arc<Pipeline>>> {
        let found = self.open_any(id).await?;
        Ok(match found {
            Some(found) if self.refusal(found.namespace()).await?.is_none() => Some(found),
            _ => None,
        })
    }

    /// Opens a namespace, also one that handles no requests; `None` if it does not exist.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn open_any(&self, id: &NamespaceId) -> Result<Option<Arc<Pipeline>>> {
        if id.is_root() {
            return Ok(Some(self.root.clone()));
        }
        let Some(record) = self.root.server().observability.directory.record(id).await? else {
            self.close(id);
            return Ok(None);
        };
        if let Some(open) = self.opened_one(id) {
            return Ok(Some(open));
        }
        let Some(parent) = Box::pin(self.open_any(&record.parent)).await? else { return Ok(None) };
        let _alone = self.opening.lock().await;
        if let Some(open) = self.opened_one(id) {
            return Ok(Some(open));
        }
        self.open_below(&parent, &record).await.map(Some)
    }

    /// Opens all namespaces, for work on every record. New ones are opened when they are used.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn open_all(&self) -> Result<()> {
        let directory = &self.root.server().observability.directory;
        let mut page = Page::first(PAGE);
        loop {
            let ids = directory.ids(&page).await?;
            for id in &ids {
                self.open_any(id).await?;
            }
            match ids.last() {
                Some(last) if ids.len() == PAGE => page.after = Some(last.as_str().to_owned()),
                _ => return Ok(()),
            }
        }
    }

    /// A namespace besides root, if it is open.
    pub(crate) fn opened_one(&self, id: &NamespaceId) -> Option<Arc<Pipeline>> {
        self.open.lock().get(id).cloned()
    }

    async fn open_below(&self, parent: &Pipeline, record: &NamespaceRecord) -> Result<Arc<Pipeline>> {
        let invalidator = parent.server().barrier.invalidator();
        let namespace = parent.namespace().child(record.id.clone(), &record.name);
        let owners = invalidator.add_namespace(&record.id);
        let services = self.services(parent.server(), namespace, &owners).await;
        match services {
            Ok(services) => {
                let pipeline = Arc::new(Pipeline::new(services));
                self.open.lock().insert(record.id.clone(), pipeline.clone());
                Ok(pipeline)
            }
            Err(error) => {
                invalidator.remove_namespace(&record.id);
                Err(error)
            }
        }
    }

    /// Drops the services of a namespace that does not exist any more.
    pub(crate) fn close(&self, id: &NamespaceId) {
        let closed = self.open.lock().remove(id);
        if closed.is_some() {
            self.root.server().barrier.invalidator().remove_namespace(id);
        }
    }

    /// Opens the services of a namespace below another one. Only reads.
    async fn services(&self, above: &Unsealed, namespace: Arc<Namespace>, owners: &Owners) -> Result<Arc<Unsealed>> {
        let (barrier, id) = (&*above.barrier, &namespace.id);
        let (settings, clock, observability) = (&above.settings, &above.clock, above.observability.clone());
        let (metrics, tokens, leases) = (&observability.metrics, &above.access.tokens, &above.leases.store);
        let tx = &mut barrier.begin_read();
        let all = barrier.view(namespace.storage());
        let system = all.sub(SYSTEM_STORAGE);
        let cubbyhole = Some(tokens.cubbyhole_of(id));
        let path = namespace.path.clone();
        let storage = MountStorage { namespace: path, all, entries: system.clone(), cubbyhole };
        let registry = above.engines.mounts.registry().clone();
        let mounts = register_mounts(Mounts::new(id.clone(), storage, registry, settings.clone()), owners, tx).await?;
        let policies = Policies::new(barrier, system.clone(), clock.clone(), metrics.clone());
        owners.add(SYSTEM_STORAGE, POLICIES, policies.clone());
        let identity = register_identity(barrier, &namespace, self.roles.clone(), metrics, owners);
        let lockout = Lockout::new(id.clone(), barrier, system.clone(), self.cluster.clone());
        let lockout = register_lockout(lockout, owners, tx, clock).await?;
        let external_keys = register_external_keys(barrier, &system, settings, clock, owners);
        let services = Arc::new(EngineServices {
            system,
            leases: leases.clone(),
            mounts: mounts.clone(),
            settings: settings.clone(),
            external_keys: external_keys.clone(),
        });
        let registry = mounts.registry().clone();
        let host = Arc::new(EngineHost { barrier: barrier.clone(), clock: clock.clone(), services, registry });
        let wrapper = Arc::new(Wrapper {
            namespace: id.clone(),
            clock: clock.clone(),
            max_ttl: settings.max_lease_ttl,
            tokens: tokens.clone(),
            metrics: metrics.clone(),
        });
        let leases = lease_services(id, &host, &mounts, leases.clone(), tokens, metrics);
        let (revoker, directory) = (leases.revoker.clone(), observability.directory.clone());
        let changes = MountChanges { host: host.clone(), mounts: mounts.clone(), revoker, directory };
        let parent = ParentNamespace { access: above.access.clone(), mounts: above.engines.mounts.clone() };
        let namespaces = above.access.namespaces.get().cloned().map_or_else(OnceLock::new, OnceLock::from);
        let access = Access {
            policies,
            tokens: tokens.clone(),
            identity,
            lockout,
            wrapper,
            namespace,
            parent: Some(parent),
            namespaces,
        };
        Ok(Arc::new(Unsealed {
            barrier: above.barrier.share(),
            settings: settings.clone(),
            clock: clock.clone(),
            current_seal: above.current_seal.clone(),
            access: Arc::new(access),
            engines: Engines { host, mounts, changes, external_keys },
            leases,
            observability,
        }))
    }

    /// The namespace of a request, whose header becomes the path of the namespace, and whose path the rest within it.
    ///
    /// # Errors
    /// See [`find`](Self::find).
    pub(crate) async fn resolve(&self, incoming: &mut Incoming) -> Result<Arc<Pipeline>> {
        let Found { pipeline, start } = self.find(incoming).await?;
        if start > 0 {
            incoming.path = incoming.path.after(start);
        }
        if !incoming.namespace.is_empty() || start > 0 {
            pipeline.namespace().path.trim_end_matches('/').clone_into(&mut incoming.namespace);
        }
        Ok(pipeline)
    }

    /// The namespace of a request, from its header and then its path. Mounts come before namespaces, and exclude them.
    ///
    /// # Errors
    /// 404 when the namespace of the header does not exist or is being deleted, 503 when it is locked, or one above it.
    pub(crate) async fn find(&self, incoming: &Incoming) -> Result<Found> {
        let directory = &self.root.server().observability.directory;
        if !directory.has_any() {
            return match incoming.namespace.is_empty() || segments(&incoming.namespace)?.is_empty() {
                true => Ok(Found { pipeline: self.root.clone(), start: 0 }),
                false => Err(not_found()),
            };
        }
        Box::pin(self.find_below(incoming)).await
    }

    /// The namespace of a header and a path, also one that handles no requests.
    ///
    /// # Errors
    /// 404 when the namespace of the header does not exist; when storage fails.
    pub(crate) async fn locate(&self, header: &str, path: &str) -> Result<Found> {
        let mut at = self.root.clone();
        for name in segments(header)? {
            at = self.child(&at, name).await?.ok_or_else(not_found)?;
        }
        let mut start = 0;
        while let Some((name, _)) = path[start..].split_once('/') {
            if at.server().engines.mounts.router().find(&path[start..]).is_some() {
                break;
            }
            let Some(child) = self.child(&at, name).await? else { break };
            start += name.len() + 1;
            at = child;
        }
        Ok(Found { pipeline: at, start })
    }

    async fn find_below(&self, incoming: &Incoming) -> Result<Found> {
        let path = incoming.path.as_str();
        let Found { pipeline: at, start } = self.locate(&incoming.namespace, path).await?;
        if let Some(refusal) = self.refusal(at.namespace()).await?
            && !(refusal.status() == Status::UNAVAILABLE && path[start..] == *UNLOCK)
        {
            return Err(refusal);
        }
        let at = match self.moved(&at, incoming, &path[start..]).await? {
            Some(other) => other,
            None => at,
        };
        Ok(Found { pipeline: at, start })
    }

    /// The namespace in which a request runs, if its row runs in another one than `at`: see [`RunsIn`].
    async fn moved(&self, at: &Pipeline, incoming: &Incoming, path: &str) -> Result<Option<Arc<Pipeline>>> {
        let runs_in = at.runs_in(incoming.operation, path);
        let caller = incoming.token.as_ref().map(|token| token.expose().as_str());
        let in_body = |field| incoming.input.body.field(field).map(|raw| serde_json::from_str::<String>(raw));
        let is_given = |field| in_body(field).is_some_and(|text| text.is_ok_and(|text| !text.is_empty()));
        let below = match runs_in {
            RunsIn::Request => return Ok(None),
            RunsIn::CallerWithout(field) if is_given(field) => return Ok(None),
            RunsIn::Caller | RunsIn::CallerWithout(_) => return self.of_caller(at, caller).await,
            RunsIn::Token(field) if !is_given(field) => return self.of_caller(at, caller).await,
            RunsIn::Token(field) => in_body(field).and_then(Result::ok),
            RunsIn::Id(field) => in_body(field).and_then(Result::ok).or_else(|| Some(path.to_owned())),
        };
        let Some(id) = below.as_deref().and_then(|id| NamespaceId::parse(split_suffix(id).1?)) else { return Ok(None) };
        let found = self.open(&id).await?;
        Ok(found.filter(|found| found.namespace().relative_to(&at.namespace().id).is_some()))
    }

    /// The namespace of the caller's token.
    async fn of_caller(&self, at: &Pipeline, caller: Option<&str>) -> Result<Option<Arc<Pipeline>>> {
        let Some(caller) = caller else { return Ok(None) };
        let id = split_suffix(caller).1.and_then(NamespaceId::parse).unwrap_or_default();
        if id == at.namespace().id { Ok(None) } else { self.open(&id).await }
    }

    async fn child(&self, at: &Pipeline, name: &str) -> Result<Option<Arc<Pipeline>>> {
        let directory = &self.root.server().observability.directory;
        match directory.child(&at.namespace().id, name).await? {
            Some(record) => self.open_any(&record.id).await,
            None => Ok(None),
        }
    }

    /// Why a namespace handles no requests, if it does not.
    async fn refusal(&self, namespace: &Namespace) -> Result<Option<Error>> {
        let directory = &self.root.server().observability.directory;
        let (mut at, mut locked) = (namespace, None);
        while let Some(parent) = &at.parent {
            match directory.record(&at.id).await? {
                Some(record) if record.deleting => return Ok(Some(not_found())),
                Some(record) if record.lock.is_some() => locked = Some(&at.path),
                Some(_) => {}
                None => return Ok(Some(not_found())),
            }
            at = parent;
        }
        Ok(locked.map(|path| super::changes::locked(path)))
    }
}

/// The names in the header of a request, cleaned as OpenBao does; none for root.
///
/// # Errors
/// 404 for a path above root.
fn segments(header: &str) -> Result<Vec<&str>> {
    let mut names = Vec::new();
    for name in header.trim().split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop().ok_or_else(not_found)?),
            _ => names.push(name),
        }
    }
    if names == ["root"] {
        names.clear();
    }
    Ok(names)
}

fn not_found() -> Error {
    Error::new(Status::NOT_FOUND, "namespace not found")
}
