//! The requests of a node that has other members beside it: the state that they must see, and the way to the leader.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::routes::Access;
use keepfast_framework::rows::Runs;
use keepfast_framework::{Authorization, Error, Incoming, Operation, StateIndex, Status, Timestamp};
use keepfast_storage::{Consensus, Index, Member, StorageError};

use super::place::Site;
use super::port::{ClusterPort, NotForwarded};
use super::service::SETTLES_WITHIN;
use crate::metrics::standby;
use crate::mount::Mounts;
use crate::namespace::open::Found;
use crate::namespace::open::Namespaces;
use crate::parts::ServerParts;
use crate::request::route::{is_login, is_unauthenticated, takes_authorization};
use crate::request::{Response, ResponseHeaders, has_live_token};
use crate::sys::sealed::runs_without_leader;

/// The time in which a state that the caller names must be applied here.
const APPLIED_WITHIN: Duration = Duration::from_secs(1);
/// The time in which a leader must take a request.
const FORWARDED_WITHIN: Duration = Duration::from_secs(5);
/// The pause before a request is offered again.
const PAUSE: Duration = Duration::from_millis(50);
/// After this number of seconds a caller may send a request again that had no leader.
const RETRY_AFTER: u32 = 1;

/// A node of a cluster that handles a request.
pub(crate) struct ClusterNode<'a> {
    pub(crate) parts: &'a ServerParts,
    pub(crate) consensus: &'a Arc<dyn Consensus>,
    pub(crate) namespaces: &'a Arc<Namespaces>,
    pub(crate) cluster_id: &'a str,
}

/// How a request goes on once its state is known.
enum Next {
    Run(Site, Index),
    /// Whether the state here has the token of the request.
    Forward {
        is_proven: bool,
    },
    Refuse(Error),
}

impl ClusterNode<'_> {
    /// Handles a request of a caller: here or at the leader.
    pub(crate) async fn handle(&self, incoming: Box<Incoming>) -> Response {
        let next = self.next(&incoming).await;
        match next {
            Next::Refuse(error) => self.refuse(incoming, error).await,
            // The edge did not receive the body: the stages refuse the request.
            Next::Forward { is_proven } if !incoming.body_withheld => {
                let mut incoming = incoming;
                // The state here may have a token that was revoked, but no text proves one.
                let is_proven = is_proven || has_proven_caller(self.namespaces, &incoming).await;
                incoming.cluster.get_or_insert_default().is_unproven = !is_proven;
                self.forward(incoming).await
            }
            Next::Forward { .. } => self.run(incoming, Site::Leader, Index(0)).await,
            Next::Run(site, settled) => self.run(incoming, site, settled).await,
        }
    }

    /// Waits until the state is here that the request must see: all commits that were acknowledged before, and those
    /// up to the index that the caller names.
    async fn next(&self, incoming: &Incoming) -> Next {
        let part = incoming.cluster.as_deref();
        if let Some(index) = part.and_then(|part| part.index.as_ref()) {
            if index.cluster != self.cluster_id {
                return Next::Refuse(Error::invalid("the index of \"X-Vault-Index\" is of another cluster"));
            }
            if self.consensus.applied(Index(index.value), APPLIED_WITHIN).await.is_err() {
                return match part.is_some_and(|part| part.forward_when_behind) && !self.parts.is_active() {
                    true => Next::Forward { is_proven: false },
                    false => {
                        let text = "required index state not present";
                        Next::Refuse(Error::new(Status::PRECONDITION_FAILED, text))
                    }
                };
            }
        }
        if self.is_surely_forwarded(incoming).await {
            return Next::Forward { is_proven: true };
        }
        let settled = self.consensus.settled(SETTLES_WITHIN).await;
        // Read afterwards: the role may have changed meanwhile.
        let leads = self.parts.is_active();
        match settled {
            Ok(settled) if leads && self.parts.membership.taken_over.is_set() => Next::Run(Site::Leader, settled),
            // What writes waits for the takeover.
            Ok(settled) if leads => Next::Run(Site::Standby { forwards_all: false }, settled),
            Ok(settled) => {
                let is_for_leader = part.is_some_and(|part| part.forward);
                let is_off = self.parts.membership.clocks.skew().is_some();
                let forwards_all = is_for_leader || is_off || self.parts.settings.disable_standby_reads;
                Next::Run(Site::Standby { forwards_all }, settled)
            }
            // The leader has the state.
            Err(StorageError::Behind(_)) if !leads => Next::Forward { is_proven: false },
            Err(StorageError::NoLeader) if runs_without_leader(incoming.path.as_str()) => {
                Next::Run(Site::Leader, Index(0))
            }
            Err(error) => Next::Refuse(error.into()),
        }
    }

    /// Whether another node leads and runs a write whatever the state is, so that this node need not wait for it: the
    /// row that it leads to is one of the leader, and the state here has its token. The leader checks both again.
    async fn is_surely_forwarded(&self, incoming: &Incoming) -> bool {
        let writes = matches!(incoming.operation, Operation::Update | Operation::Patch | Operation::Delete);
        if !writes || incoming.token.is_none() || incoming.body_withheld || self.parts.is_active() {
            return false;
        }
        if !matches!(self.leader(), Some(Leader::Other(_))) {
            return false;
        }
        let is_of_leader = {
            let Ok(Found { pipeline, start }) = self.namespaces.find(incoming).await else { return false };
            let router = pipeline.server().engines.mounts.router();
            let found = router.find(&incoming.path.as_str()[start..]).and_then(|(mounted, within)| {
                let row = &mounted.table.rows()[mounted.table.find(incoming.operation, within)?.row];
                Some(row.access != Access::Unauthenticated && row.runs(incoming.operation) == Runs::Leader)
            });
            found.unwrap_or(false)
        };
        is_of_leader && has_live_token(self.namespaces.root(), incoming).await
    }

    async fn run(&self, incoming: Box<Incoming>, site: Site, settled: Index) -> Response {
        match standby::of_request(handle_here(self.namespaces, incoming, site)).await {
            Ok(response) => self.with_index(response, settled),
            Err(incoming) => self.forward(incoming).await,
        }
    }

    /// Passes a request to the leader. Another leader gets it if nothing was done with it.
    async fn forward(&self, mut incoming: Box<Incoming>) -> Response {
        // A member of an older version cannot read a request with them.
        let has_authorization = !matches!(incoming.authorization, Authorization::None);
        if has_authorization || !incoming.mfa.is_empty() {
            let found = self.namespaces.find(&incoming).await;
            let has = |property: fn(&Mounts, Operation, &str) -> bool| {
                found.as_ref().is_ok_and(|Found { pipeline, start }| {
                    let path = &incoming.path.as_str()[*start..];
                    property(&pipeline.server().engines.mounts, incoming.operation, path)
                })
            };
            let (takes_authorization, is_login) = (has(takes_authorization), has(is_login));
            if !takes_authorization {
                incoming.authorization = Authorization::None;
            }
            if !is_login {
                incoming.mfa.clear();
            }
        }
        let Some(port) = self.parts.membership.port() else {
            return self.refuse(incoming, StorageError::NoLeader.into()).await;
        };
        let until = self.parts.clock.now().after(FORWARDED_WITHIN);
        loop {
            match self.leader() {
                Some(Leader::Own) => {
                    if self.parts.membership.taken_over.wait(&*self.parts.clock).await {
                        return self.run_as_leader(incoming).await;
                    }
                    if self.parts.is_active() {
                        return self.refuse(incoming, StorageError::NoLeader.into()).await;
                    }
                }
                Some(Leader::Other(leader)) => {
                    if let Some(target) = incoming.cluster.as_ref().and_then(|part| part.redirect.as_deref()) {
                        return Response::redirect(format!("{}{target}", leader.api_addr.trim_end_matches('/')));
                    }
                    incoming = match self.offer(port, &leader, incoming).await {
                        Ok(response) => return response,
                        Err(incoming) => incoming,
                    };
                }
                None => {}
            }
            if self.parts.clock.now() >= until {
                self.parts.metrics.cluster.forward.fail();
                return self.refuse(incoming, StorageError::NoLeader.into()).await;
            }
            wait(self.parts, until).await;
        }
    }

    /// Runs a request of a node that has become the leader. Writes nothing if it no longer leads.
    async fn run_as_leader(&self, incoming: Box<Incoming>) -> Response {
        match self.consensus.settled(SETTLES_WITHIN).await {
            Ok(settled) => match handle_here(self.namespaces, incoming, Site::Leader).await {
                Ok(response) => self.with_index(response, settled),
                // A leader runs every request.
                Err(incoming) => self.refuse(incoming, StorageError::NoLeader.into()).await,
            },
            Err(error) => self.refuse(incoming, error.into()).await,
        }
    }

    /// Offers a request to a leader. Returns the request if nothing was done with it.
    async fn offer(
        &self,
        port: &Arc<dyn ClusterPort>,
        leader: &Member,
        incoming: Box<Incoming>,
    ) -> Result<Response, Box<Incoming>> {
        let forward = &self.parts.metrics.cluster.forward;
        let (refused, error) = match forward.timed(&*self.parts.clock, port.forward(leader, incoming)).await {
            Ok(response) => return Ok(self.with_index(Response::forwarded(response), Index(0))),
            Err(NotForwarded::Elsewhere(incoming)) => return Err(incoming),
            Err(NotForwarded::Busy(incoming)) => {
                let text = "too many requests without a valid token wait for the leader; send the request again";
                (incoming, Error::new(Status::UNAVAILABLE, text))
            }
            Err(NotForwarded::TooLong(incoming)) => {
                (incoming, Error::new(Status::TOO_LARGE, "the request is too long for the leader"))
            }
            Err(NotForwarded::Lost(incoming)) => {
                forward.fail();
                let text = "the connection to the leader was lost; the outcome of the request is not known";
                // Without a `Retry-After`: the request may have taken effect.
                return Ok(refused(self.namespaces, incoming, Error::new(Status::UNAVAILABLE, text)).await);
            }
        };
        forward.fail();
        Ok(self.refuse(refused, error).await)
    }

    /// The leader, if it is known.
    fn leader(&self) -> Option<Leader> {
        if self.parts.is_active() {
            return Some(Leader::Own);
        }
        let own = self.consensus.identity();
        // A node that is about to lead has not applied all entries yet.
        let other = self.consensus.leader().filter(|leader| leader.node != own.node);
        other.map(|leader| Leader::Other(Box::new(leader)))
    }

    /// Refuses a request that has no leader or no state, with its audit entries.
    async fn refuse(&self, incoming: Box<Incoming>, error: Error) -> Response {
        let is_temporary = error.status() == Status::UNAVAILABLE;
        let response = refused(self.namespaces, incoming, error).await;
        match is_temporary {
            true => {
                response.with_headers(ResponseHeaders { retry_after: Some(RETRY_AFTER), ..ResponseHeaders::default() })
            }
            false => response,
        }
    }

    /// Adds the index of a state that has the effects of the request, as OpenBao does to successful responses.
    fn with_index(&self, response: Response, settled: Index) -> Response {
        let is_success = (200..300).contains(&response.status().0) && response.is_json();
        if !is_success {
            return response;
        }
        let value = response.committed().unwrap_or(settled).max(settled).0;
        let index = StateIndex::encode(self.cluster_id, value);
        response.with_headers(ResponseHeaders { index: Some(index), ..ResponseHeaders::default() })
    }
}

/// Whether a request for the leader has the proof of a caller: a token that is valid here, for a path that needs one.
async fn has_proven_caller(namespaces: &Namespaces, incoming: &Incoming) -> bool {
    let Ok(Found { pipeline, start }) = namespaces.find(incoming).await else { return false };
    let path = &incoming.path.as_str()[start..];
    !is_unauthenticated(&pipeline.server().engines.mounts, incoming.operation, path)
        && has_live_token(&pipeline, incoming).await
}

/// Runs the stages in the namespace of the request.
async fn handle_here(
    namespaces: &Namespaces,
    mut incoming: Box<Incoming>,
    site: Site,
) -> Result<Response, Box<Incoming>> {
    match namespaces.resolve(&mut incoming).await {
        Ok(pipeline) => pipeline.handle(incoming, site).await,
        Err(error) => Ok(namespaces.root().refuse_unresolved(incoming, error).await),
    }
}

/// Refuses a request with its audit entries: those of the mount of its path in the root namespace, else without a mount.
async fn refused(namespaces: &Namespaces, incoming: Box<Incoming>, error: Error) -> Response {
    match incoming.namespace.is_empty() {
        true => namespaces.root().refuse(incoming, error).await,
        false => namespaces.root().refuse_unresolved(incoming, error).await,
    }
}

/// Waits until the role changes, or for a short time.
async fn wait(parts: &ServerParts, until: Timestamp) {
    let clock = &parts.clock;
    let pause = clock.sleep_until(clock.now().after(PAUSE).min(until));
    match parts.membership.roles() {
        Some(mut roles) => {
            roles.mark_unchanged();
            tokio::select! {
                () = pause => {}
                Ok(()) = roles.changed() => {}
            }
        }
        None => pause.await,
    }
}

/// The leader of the cluster.
enum Leader {
    /// This node.
    Own,
    /// Another member.
    Other(Box<Member>),
}
