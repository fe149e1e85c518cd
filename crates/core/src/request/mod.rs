//! The journey of a request, one stage a file.
//!
//! [`Incoming`] → [`route::Routed`] → [`authenticate::Authenticated`] → [`authorize::Authorized`] → [`record::Recorded`]
//! → [`dispatch::Answered`] → [`Response`]. Each stage is a type that only its own file can make, so that reading that
//! file tells what it proves. A refusal can leave at the first three and is recorded like the rest.

pub(crate) mod authenticate;
pub(crate) mod authorize;
pub(crate) mod dispatch;
pub(crate) mod envelope;
pub(crate) mod in_flight;
pub(crate) mod record;
mod refused;
pub(crate) mod route;
pub(crate) mod settle;
pub(crate) mod wiped;

use std::sync::Arc;

use keepfast_framework::{Incoming, Timestamp};

pub use record::Response;

use crate::unsealed::Unsealed;
use in_flight::UnderWay;
use refused::Refused;

impl Unsealed {
    /// The whole journey of one request.
    pub(crate) async fn handle(self: &Arc<Self>, incoming: Box<Incoming>) -> Response {
        let _under_way = self.metrics.in_flight();
        let begun = self.clock.now();
        let registered = self.in_flight.begin(&incoming, begun);
        let (response, is_login) = self.travel(incoming, begun, &registered).await;
        let timing = if is_login { &self.metrics.login } else { &self.metrics.request };
        timing.record(self.clock.now().since(begun));
        response
    }

    /// The journey itself, and whether it was a login.
    async fn travel(
        self: &Arc<Self>,
        incoming: Box<Incoming>,
        begun: Timestamp,
        under_way: &UnderWay<'_>,
    ) -> (Response, bool) {
        let routed = self.route(incoming);
        let is_login = routed.destination.call().is_some_and(|call| call.row().login);
        let admitted = self.admit(routed, under_way).await;
        self.metrics.check_token.record(self.clock.now().since(begun));
        let answered = match self.record_request(admitted).await {
            Ok(recorded) => self.dispatch(recorded).await,
            Err(refused) => dispatch::Answered::refused(*refused),
        };
        (self.record_response(answered).await, is_login)
    }

    /// Finds the caller of a routed request, then whether the caller may.
    async fn admit(
        &self,
        routed: route::Routed,
        under_way: &UnderWay<'_>,
    ) -> Result<authorize::Authorized, Box<Refused>> {
        let authenticated = self.authenticate(routed).await?;
        if let Some(token) = authenticated.token() {
            under_way.set_caller(token.clone());
        }
        self.authorize(authenticated).await
    }
}
