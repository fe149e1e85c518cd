//! The open namespaces: the services of a namespace are opened at its first use, and shared by all its requests.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use keepfast_framework::reply::{Raw, RawFile};
use keepfast_framework::rows::{NamespaceScope, RunsIn};
use keepfast_framework::{Error, Incoming, Outcome, Page, QueryValue, Result, Status};
use keepfast_storage::{Consensus, Role};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::directory::not_found;
use super::record::NamespaceRecord;
use super::{Namespace, NamespaceId, split_suffix};
use crate::control_group::{Approval, ApprovedResponse};
use crate::invalidation::Owners;
use crate::layout::{MOUNT_ENTRIES, POLICIES, SYSTEM_STORAGE};
use crate::lease::DeletedMounts;
use crate::lockout::Lockout;
use crate::mount::table::MountStorage;
use crate::mount::{EngineHost, MountChanges, Mounts};
use crate::parts::ServerParts;
use crate::policy::store::Policies;
use crate::request::route::namespaces_of;
use crate::request::{Pipeline, Response};
use crate::services::EngineServices;
use crate::unsealed::{
    Access, Engines, NamespaceHost, ParentNamespace, Unsealed, lease_services, register_external_keys,
    register_identity, register_lockout, register_mounts, wrapper,
};

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
        let host: Arc<dyn NamespaceHost> = namespaces.clone();
        let _ = access.namespaces.set(Arc::downgrade(&host));
        namespaces
    }

    /// The root namespace.
    pub(crate) fn root(&self) -> &Arc<Pipeline> {
        &self.root
    }

    /// Opens a namespace that a request names; `None` if it does not exist or is being deleted.
    ///
    /// # Errors
    /// 503 when it is locked, itself or one above it; when storage fails.
    pub(crate) async fn usable(&self, id: &NamespaceId) -> Result<Option<Arc<Pipeline>>> {
        let Some(found) = self.open_any(id).await? else { return Ok(None) };
        match self.refusal(found.namespace()).await? {
            Some(refusal) if refusal.status() == Status::UNAVAILABLE => Err(refusal),
            Some(_) => Ok(None),
            None => Ok(Some(found)),
        }
    }

    /// Opens a namespace, also one that handles no requests; `None` if it does not exist.
    ///
    /// # Errors
    /// When storage fails.
    // recursion: bounded by the depth of a namespace
    pub(crate) fn open_any<'a>(&'a self, id: &'a NamespaceId) -> BoxFuture<'a, Result<Option<Arc<Pipeline>>>> {
        // Boxed: it is a part of the future of every request, and rarely runs.
        Box::pin(self.opened_or_new(id))
    }

    // recursion: bounded by the depth of a namespace
    async fn opened_or_new(&self, id: &NamespaceId) -> Result<Option<Arc<Pipeline>>> {
        if id.is_root() {
            return Ok(Some(self.root.clone()));
        }
        let Some(record) = self.root.server().observability.directory.record(id).await? else {
            Box::pin(self.close(id)).await;
            return Ok(None);
        };
        if let Some(open) = self.open.lock().get(id).cloned() {
            return Ok(Some(open));
        }
        let Some(parent) = self.open_any(&record.parent).await? else { return Ok(None) };
        let _alone = self.opening.lock().await;
        if let Some(open) = self.open.lock().get(id).cloned() {
            return Ok(Some(open));
        }
        self.open_below(&parent, &record).await.map(Some)
    }

    async fn open_below(&self, parent: &Pipeline, record: &NamespaceRecord) -> Result<Arc<Pipeline>> {
        let invalidator = parent.server().barrier.invalidator();
        let namespace = parent.namespace().child(record.id.clone(), &record.name);
        let owners = invalidator.add_namespace(&record.id);
        let services = Box::pin(services(self, parent.server(), namespace, &owners)).await;
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
    pub(crate) async fn close(&self, id: &NamespaceId) {
        // No opening adds owners meanwhile.
        let _alone = self.opening.lock().await;
        if self.open.lock().remove(id).is_some() {
            self.root.server().barrier.invalidator().remove_namespace(id);
        }
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
                false => Err(unavailable(self, incoming).unwrap_or_else(not_found)),
            };
        }
        Box::pin(find_below(self, incoming)).await
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

/// Opens the services of a namespace below another one. Only reads.
async fn services(
    namespaces: &Namespaces,
    above: &Unsealed,
    namespace: Arc<Namespace>,
    owners: &Owners,
) -> Result<Arc<Unsealed>> {
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
    owners.add(SYSTEM_STORAGE, MOUNT_ENTRIES, Arc::new(DeletedMounts(leases.clone())));
    let mounts = register_mounts(Mounts::new(id.clone(), storage, registry, settings.clone()), owners, tx).await?;
    let policies = Policies::new(id.clone(), barrier, system.clone(), clock.clone(), metrics.clone());
    owners.add(SYSTEM_STORAGE, POLICIES, policies.clone());
    let below = (&*namespace, Some(above.access.identity.clone()));
    let identity = register_identity(barrier, below, namespaces.roles.clone(), metrics, owners);
    let lockout = Lockout::new(id.clone(), barrier, system.clone(), namespaces.cluster.clone());
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
    let wrapper = wrapper(id.clone(), (settings, clock), tokens, metrics);
    let leases = lease_services(id, &host, &mounts, leases.clone(), tokens, metrics);
    let (revoker, directory) = (leases.revoker.clone(), observability.directory.clone());
    let deleting = tokio::sync::Mutex::default();
    let changes = MountChanges { host: host.clone(), mounts: mounts.clone(), revoker, directory, deleting };
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

/// The namespace of a header and a path, also one that handles no requests.
///
/// # Errors
/// 404 when the namespace of the header does not exist; when storage fails.
pub(crate) async fn locate(namespaces: &Namespaces, header: &str, path: &str) -> Result<Found> {
    let mut at = namespaces.root.clone();
    for name in segments(header)? {
        at = child(namespaces, &at, name).await?.ok_or_else(not_found)?;
    }
    let mut start = 0;
    while let Some((name, _)) = path[start..].split_once('/') {
        if at.server().engines.mounts.router().find(&path[start..]).is_some() {
            break;
        }
        let Some(child) = child(namespaces, &at, name).await? else { break };
        start += name.len() + 1;
        at = child;
    }
    Ok(Found { pipeline: at, start })
}

async fn find_below(namespaces: &Namespaces, incoming: &Incoming) -> Result<Found> {
    for id in namespaces.root.server().observability.directory.take_deleted() {
        namespaces.close(&id).await;
    }
    let path = incoming.path.as_str();
    let Found { pipeline: mut at, mut start } = match locate(namespaces, &incoming.namespace, path).await {
        Err(error) if error.status() == Status::NOT_FOUND => {
            return Err(unavailable(namespaces, incoming).unwrap_or(error));
        }
        found => found?,
    };
    // The name of a namespace is no path within it, and a text of an error has the whole path.
    if !path[start..].contains('/') && start < path.len() && child(namespaces, &at, &path[start..]).await?.is_some() {
        Found { pipeline: at, start } = locate(namespaces, &incoming.namespace, "").await?;
    }
    let (scope, runs_in) = namespaces_of(&at.server().engines.mounts, incoming.operation, &path[start..]);
    match scope {
        NamespaceScope::NodeWide => return Ok(Found { pipeline: namespaces.root.clone(), start }),
        NamespaceScope::NotInNamespaces if !at.namespace().id.is_root() => {
            let scope = if start > 0 { NamespaceScope::RootOnly } else { NamespaceScope::NotInNamespaces };
            return Err(Error::invalid(scope.refusal().unwrap_or_default()));
        }
        _ => {}
    }
    if let Some(refusal) = namespaces.refusal(at.namespace()).await?
        && !(refusal.status() == Status::UNAVAILABLE && path[start..] == *UNLOCK)
    {
        return Err(refusal);
    }
    let at = match moved(namespaces, &at, incoming, (runs_in, &path[start..])).await? {
        Some(other) => other,
        None => at,
    };
    Ok(Found { pipeline: at, start })
}

/// The namespace in which a request runs, if its row runs in another one than `at`: see [`RunsIn`].
async fn moved(
    namespaces: &Namespaces,
    at: &Pipeline,
    incoming: &Incoming,
    (runs_in, path): (RunsIn, &str),
) -> Result<Option<Arc<Pipeline>>> {
    if runs_in == RunsIn::Request {
        return Ok(None);
    }
    let caller = incoming.token.as_ref().map(|token| token.expose().as_str());
    let in_body = |field: &str| {
        let raw = incoming.input.body.field(field).map(serde_json::from_str::<String>);
        raw.or_else(|| match incoming.input.query.get(field)? {
            QueryValue::One(text) => Some(Ok(text.clone())),
            QueryValue::Repeated { .. } => None,
        })
    };
    let is_given = |field: &str| in_body(field).is_some_and(|text| text.is_ok_and(|text| !text.is_empty()));
    let below = match runs_in {
        RunsIn::Request => return Ok(None),
        RunsIn::CallerWithout(field) if is_given(field) => return Ok(None),
        RunsIn::Caller | RunsIn::CallerWithout(_) => return of_caller(namespaces, at, caller).await,
        RunsIn::Token(field) if !is_given(field) => return of_caller(namespaces, at, caller).await,
        RunsIn::Token(field) => in_body(field).and_then(Result::ok),
        RunsIn::Id(field) => in_body(field).and_then(Result::ok).or_else(|| Some(path.to_owned())),
    };
    let Some(id) = below.as_deref().and_then(|id| NamespaceId::parse(split_suffix(id).1?)) else { return Ok(None) };
    let found = namespaces.usable(&id).await?;
    Ok(found.filter(|found| found.namespace().relative_to(&at.namespace().id).is_some()))
}

/// The namespace of the caller's token.
async fn of_caller(namespaces: &Namespaces, at: &Pipeline, caller: Option<&str>) -> Result<Option<Arc<Pipeline>>> {
    let Some(caller) = caller else { return Ok(None) };
    let id = split_suffix(caller).1.and_then(NamespaceId::parse).unwrap_or_default();
    if id == at.namespace().id {
        return Ok(None);
    }
    namespaces.usable(&id).await
}

/// The refusal of a row of the node, which no namespace has, whether it exists or not.
fn unavailable(namespaces: &Namespaces, incoming: &Incoming) -> Option<Error> {
    let (scope, _) =
        namespaces_of(&namespaces.root.server().engines.mounts, incoming.operation, incoming.path.as_str());
    scope.refusal().filter(|_| scope == NamespaceScope::NotInNamespaces).map(Error::invalid)
}

async fn child(namespaces: &Namespaces, at: &Pipeline, name: &str) -> Result<Option<Arc<Pipeline>>> {
    let directory = &namespaces.root.server().observability.directory;
    match directory.child(&at.namespace().id, name).await? {
        Some(record) => namespaces.open_any(&record.id).await,
        None => Ok(None),
    }
}

impl NamespaceHost for Namespaces {
    fn open_any<'a>(&'a self, id: &'a NamespaceId) -> BoxFuture<'a, Result<Option<Arc<Unsealed>>>> {
        Box::pin(async move { Ok(Namespaces::open_any(self, id).await?.map(|found| found.server().clone())) })
    }

    fn usable<'a>(&'a self, id: &'a NamespaceId) -> BoxFuture<'a, Result<Option<Arc<Unsealed>>>> {
        Box::pin(async move { Ok(Namespaces::usable(self, id).await?.map(|found| found.server().clone())) })
    }

    fn locate<'a>(&'a self, header: &'a str, path: &'a str) -> BoxFuture<'a, Result<(Arc<Unsealed>, usize)>> {
        Box::pin(async move {
            let Found { pipeline, start } = locate(self, header, path).await?;
            Ok((pipeline.server().clone(), start))
        })
    }

    fn opened(&self) -> Vec<Arc<Unsealed>> {
        self.open.lock().values().map(|open| open.server().clone()).collect()
    }

    fn open_all(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(every_namespace_opened(self))
    }

    fn run_approved<'a>(
        &'a self,
        id: &'a NamespaceId,
        incoming: Box<Incoming>,
        approval: Approval,
    ) -> BoxFuture<'a, Result<ApprovedResponse>> {
        Box::pin(async move {
            let pipeline = Namespaces::usable(self, id).await?.ok_or_else(not_found)?;
            let response = pipeline.handle_approved(incoming, approval).await?;
            Ok(ApprovedResponse { committed: response.committed(), outcome: outcome_of(response) })
        })
    }
}

/// Opens all namespaces, for work on every record. New ones are opened when they are used.
///
/// # Errors
/// When storage fails.
async fn every_namespace_opened(namespaces: &Namespaces) -> Result<()> {
    let directory = &namespaces.root.server().observability.directory;
    let mut page = Page::first(PAGE);
    loop {
        let ids = directory.ids(&page).await?;
        for id in &ids {
            Namespaces::open_any(namespaces, id).await?;
        }
        match ids.last() {
            Some(last) if ids.len() == PAGE => page.after = Some(last.as_str().to_owned()),
            _ => return Ok(()),
        }
    }
}

/// A response as the outcome of the handler that has run its request.
fn outcome_of(response: Response) -> Outcome {
    let (status, headers) = (response.status(), response.headers().map(|headers| headers.further.clone()));
    let content_type = match response.content_type() {
        std::borrow::Cow::Borrowed(content_type) => content_type,
        std::borrow::Cow::Owned(_) => "application/json",
    };
    if let Some(file) = response.file() {
        return Outcome::File(RawFile { content_type, file: file.clone() });
    }
    let (body, headers) = (response.into_body().to_vec(), headers.unwrap_or_default());
    Outcome::Raw(Raw { status, content_type, body, headers })
}

/// The names in the header of a request; none for root.
///
/// # Errors
/// 400 for empty and relative segments: a path has one spelling in rules of proxies and in the audit log.
fn segments(header: &str) -> Result<Vec<&str>> {
    let header = header.trim().trim_matches('/');
    if matches!(header, "" | "root") {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = header.split('/').collect();
    match names.iter().any(|name| matches!(*name, "" | "." | "..")) {
        true => Err(Error::invalid("the namespace has an empty or a relative segment")),
        false => Ok(names),
    }
}
