//! The request pipeline: the stages in their order.

use std::sync::Arc;

use keepfast_framework::{Incoming, Timestamp};

use super::audit::RequestAuditor;
use super::authenticate::Authenticator;
use super::authorize::{Authorized, Authorizer};
use super::dispatch::{Dispatcher, Handled};
use super::in_flight::InFlightGuard;
use super::route::{Routed, route};
use super::{Refused, Response};
use crate::unsealed::Unsealed;

/// Handles the requests of an unsealed server.
pub(crate) struct Pipeline {
    unsealed: Arc<Unsealed>,
    authenticator: Authenticator,
    authorizer: Authorizer,
    recorder: RequestAuditor,
    dispatcher: Dispatcher,
}

impl Pipeline {
    /// The stages over the services of an unsealed server.
    pub(crate) fn new(unsealed: Arc<Unsealed>) -> Self {
        Pipeline {
            authenticator: Authenticator::new(&unsealed),
            authorizer: Authorizer::new(&unsealed),
            recorder: RequestAuditor::new(&unsealed),
            dispatcher: Dispatcher::new(&unsealed),
            unsealed,
        }
    }

    /// The server whose requests it handles.
    pub(crate) fn server(&self) -> &Arc<Unsealed> {
        &self.unsealed
    }

    /// Runs all stages of one request.
    pub(crate) async fn handle(&self, incoming: Box<Incoming>) -> Response {
        let (observability, clock) = (&self.unsealed.observability, &self.unsealed.clock);
        let _counted = observability.metrics.in_flight();
        let started = clock.now();
        let listed = observability.in_flight.begin(&incoming, started);
        let (response, is_login) = self.travel(incoming, started, &listed).await;
        let timing = if is_login { &observability.metrics.login } else { &observability.metrics.request };
        timing.record(clock.now().since(started));
        response
    }

    /// Runs the stages; also returns whether the request was a login.
    async fn travel(
        &self,
        incoming: Box<Incoming>,
        started: Timestamp,
        listed: &InFlightGuard<'_>,
    ) -> (Response, bool) {
        let routed = route(&self.unsealed.engines.mounts, incoming);
        let is_login = routed.destination.call().is_some_and(|call| call.row().login);
        let admitted = self.admit(routed, started, listed).await;
        let admitted_at = self.unsealed.clock.now();
        self.unsealed.observability.metrics.check_token.record(admitted_at.since(started));
        let answered = match self.recorder.record_request(admitted, admitted_at).await {
            Ok(recorded) => self.dispatcher.dispatch(&self.unsealed, recorded).await,
            Err(refused) => Handled::refused(*refused),
        };
        (self.recorder.record_response(answered).await, is_login)
    }

    /// Authenticates the caller of a routed request that has started at this time, then authorizes the request.
    async fn admit(
        &self,
        routed: Routed,
        started: Timestamp,
        listed: &InFlightGuard<'_>,
    ) -> Result<Authorized, Box<Refused>> {
        let authenticated = self.authenticator.authenticate(routed, started).await?;
        if let Some(token) = authenticated.token() {
            listed.set_caller(token.clone());
        }
        self.authorizer.authorize(authenticated, started).await
    }

    /// Audits a request that a quota has refused before it was read.
    pub(crate) async fn record_refusal(&self, refused: Box<Incoming>) {
        self.recorder.record_refusal(route(&self.unsealed.engines.mounts, refused)).await;
    }
}
