//! The request pipeline: the stages in their order.

use std::sync::Arc;

use keepfast_framework::{Error, Incoming, Timestamp};

use super::audit::RequestAuditor;
use super::authenticate::{Authenticator, RequestCaller};
use super::authorize::{Authorized, Authorizer};
use super::dispatch::{Dispatcher, Handled};
use super::in_flight::InFlightGuard;
use super::route::{Routed, route};
use super::{Departure, Refused, Response};
use crate::cluster::place::Site;
use crate::control_group::Approval;
use crate::namespace::Namespace;
use crate::token::finds_live_token;
use crate::unsealed::Unsealed;

/// Handles the requests of a namespace of an unsealed server.
pub(crate) struct Pipeline {
    unsealed: Arc<Unsealed>,
    authenticator: Authenticator,
    authorizer: Authorizer,
    auditor: RequestAuditor,
    dispatcher: Dispatcher,
}

impl Pipeline {
    /// The stages over the services of an unsealed server.
    pub(crate) fn new(unsealed: Arc<Unsealed>) -> Self {
        Pipeline {
            authenticator: Authenticator::new(&unsealed),
            authorizer: Authorizer::new(&unsealed),
            auditor: RequestAuditor::new(&unsealed),
            dispatcher: Dispatcher::new(&unsealed),
            unsealed,
        }
    }

    /// The server whose requests it handles.
    pub(crate) fn server(&self) -> &Arc<Unsealed> {
        &self.unsealed
    }

    /// The namespace whose requests it handles.
    pub(crate) fn namespace(&self) -> &Arc<Namespace> {
        &self.unsealed.access.namespace
    }

    /// Runs all stages of one request. At a standby a request that the leader must run is returned before it has any
    /// effect.
    pub(crate) async fn handle(&self, incoming: Box<Incoming>, site: Site) -> Result<Response, Box<Incoming>> {
        self.handle_with(incoming, site, None).await
    }

    /// Runs all stages of a request of this namespace that a control group has stored, on the node that may write.
    pub(crate) async fn handle_approved(&self, incoming: Box<Incoming>, approval: Approval) -> Result<Response, Error> {
        let handled = self.handle_with(incoming, Site::Leader, Some(Box::new(approval))).await;
        handled.map_err(|_| Error::internal("the leader forwards no request"))
    }

    async fn handle_with(
        &self,
        incoming: Box<Incoming>,
        site: Site,
        approval: Option<Box<Approval>>,
    ) -> Result<Response, Box<Incoming>> {
        let (observability, clock) = (&self.unsealed.observability, &self.unsealed.clock);
        let _counted = observability.metrics.in_flight();
        let started = clock.now();
        let in_flight_guard = observability.in_flight.begin(&incoming, started);
        let (response, is_login) = self.run_stages(incoming, started, (site, approval), &in_flight_guard).await;
        // The leader records what it handles.
        if response.is_ok() {
            let timing = if is_login { &observability.metrics.login } else { &observability.metrics.request };
            timing.record(clock.now().since(started));
        }
        response
    }

    /// Runs the stages. Also returns whether the request was a login.
    async fn run_stages(
        &self,
        incoming: Box<Incoming>,
        started: Timestamp,
        (site, approval): (Site, Option<Box<Approval>>),
        in_flight_guard: &InFlightGuard<'_>,
    ) -> (Result<Response, Box<Incoming>>, bool) {
        let routed = route(&self.unsealed.engines.mounts, incoming);
        let is_login = routed.destination.call().is_some_and(|call| call.row().login);
        let authorized = match authorize(self, routed, started, (site, approval), in_flight_guard).await {
            Ok(authorized) => Ok(authorized),
            Err(Departure::Refused(refused)) => Err(refused),
            Err(Departure::ToLeader(incoming)) => return (Err(incoming), is_login),
        };
        let authorized_at = self.unsealed.clock.now();
        self.unsealed.observability.metrics.check_token.record(authorized_at.since(started));
        let handled = match self.auditor.audit_request(authorized, authorized_at).await {
            Ok(audited) => self.dispatcher.dispatch(&self.unsealed, audited).await,
            Err(refused) => Handled::refused(*refused),
        };
        (Ok(self.auditor.audit_response(handled).await), is_login)
    }

    /// Refuses a request before any stage, with its audit entries.
    pub(crate) async fn refuse(&self, incoming: Box<Incoming>, error: Error) -> Response {
        let routed = route(&self.unsealed.engines.mounts, incoming);
        let refused = Box::new(Refused::new(routed, RequestCaller::default(), error));
        let refused = self.auditor.audit_refused(refused, self.unsealed.clock.now()).await;
        self.auditor.audit_response(Handled::refused(*refused)).await
    }

    /// Refuses a request whose namespace handles no requests, or does not exist: no mount is that of its path.
    pub(crate) async fn refuse_unresolved(&self, incoming: Box<Incoming>, error: Error) -> Response {
        let refused = Box::new(Refused::new(Routed::nowhere(incoming), RequestCaller::default(), error));
        let refused = self.auditor.audit_refused(refused, self.unsealed.clock.now()).await;
        self.auditor.audit_response(Handled::refused(*refused)).await
    }

    /// Audits a request that a quota has refused before it was read.
    pub(crate) async fn audit_refusal(&self, refused: Box<Incoming>) {
        self.auditor.audit_refusal(route(&self.unsealed.engines.mounts, refused)).await;
    }
}

/// Whether the token of a request is valid here, and may be used from its address. Counts no use of it.
pub(crate) async fn has_live_token(pipeline: &Pipeline, incoming: &Incoming) -> bool {
    let Some(token) = &incoming.token else { return false };
    let (tokens, remote) = (&pipeline.unsealed.access.tokens, incoming.remote.map(|address| address.ip()));
    finds_live_token(tokens, token, remote, pipeline.unsealed.clock.now()).await
}

/// Authenticates the caller of a routed request that has started at this time, then authorizes the request.
async fn authorize(
    pipeline: &Pipeline,
    routed: Routed,
    started: Timestamp,
    (site, approval): (Site, Option<Box<Approval>>),
    in_flight_guard: &InFlightGuard<'_>,
) -> Result<Authorized, Departure> {
    let authenticated = pipeline.authenticator.authenticate(routed, started, site, approval.is_some()).await?;
    if let Some(token) = authenticated.token() {
        in_flight_guard.set_caller(token.clone());
    }
    pipeline.authorizer.authorize(authenticated, started, site, approval).await
}
