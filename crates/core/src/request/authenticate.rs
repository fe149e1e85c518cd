//! Authentication: the token and all its ancestors are valid, and its use is counted.

use std::sync::Arc;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Clock, Error, Incoming, Operation, QueryValue, Status, Timestamp};

use super::route::{Call, Routed};
use super::{Departure, Refused};
use crate::audit::PolicyResults;
use crate::cluster::place::{Placed, Site};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::mount::Mounts;
use crate::token::store::{USES_SPENT, Use};
use crate::token::{Token, Tokens};
use crate::unsealed::Unsealed;
use crate::wrapping::{self, Wrapper};

/// The caller of a request.
#[derive(Default)]
pub(crate) struct RequestCaller {
    /// The valid token; `None` for a request without one to a path that needs none.
    pub(crate) token: Option<Arc<Token>>,
    /// Whether this is the last use of the token, which is revoked after the request.
    pub(crate) last_use: bool,
    /// The decision of the caller's policies.
    pub(crate) policy_results: PolicyResults,
}

/// A routed request whose caller is known, or whose path needs no token.
pub(crate) struct Authenticated {
    routed: Routed,
    caller: RequestCaller,
}

impl Authenticated {
    /// The token of the caller.
    pub(super) fn token(&self) -> Option<&Arc<Token>> {
        self.caller.token.as_ref()
    }

    /// The parts, for the next stage.
    pub(super) fn into_parts(self) -> (Routed, RequestCaller) {
        (self.routed, self.caller)
    }
}

/// Authenticates callers.
pub(super) struct Authenticator {
    clock: Arc<dyn Clock>,
    mounts: Arc<Mounts>,
    tokens: Arc<Tokens>,
    identity: Arc<Identity>,
    wrapper: Arc<Wrapper>,
    metrics: Arc<Metrics>,
}

impl Authenticator {
    pub(super) fn new(unsealed: &Unsealed) -> Self {
        Authenticator {
            clock: unsealed.clock.clone(),
            mounts: unsealed.engines.mounts.clone(),
            tokens: unsealed.access.tokens.clone(),
            identity: unsealed.access.identity.clone(),
            wrapper: unsealed.access.wrapper.clone(),
            metrics: unsealed.observability.metrics.clone(),
        }
    }

    /// Authenticates the caller of a routed request, with a token that is valid at `now`. A request that the leader must
    /// run departs before a use of its token is counted.
    pub(super) async fn authenticate(
        &self,
        routed: Routed,
        now: Timestamp,
        site: Site,
    ) -> Result<Authenticated, Departure> {
        let is_unproven = routed.is_unauthenticated();
        match self.caller_of(&routed, now, site).await {
            Ok(Some(caller)) => Ok(Authenticated { routed, caller }),
            Ok(None) => {
                let mut incoming = routed.incoming;
                incoming.input.captures = Default::default();
                incoming.cluster.get_or_insert_default().is_unproven = is_unproven;
                Err(Departure::ToLeader(incoming))
            }
            Err(error) => Err(Box::new(Refused::new(routed, RequestCaller::default(), error)).into()),
        }
    }

    /// The caller; `None` when the leader must run the request.
    async fn caller_of(&self, routed: &Routed, now: Timestamp, site: Site) -> Result<Option<RequestCaller>, Error> {
        let Some(namespace) = &routed.namespace else {
            return Err(Error::new(Status::NOT_FOUND, "namespace not found"));
        };
        if matches!(routed.incoming.operation, Operation::Update | Operation::Patch)
            && routed.incoming.path.as_str().ends_with('/')
        {
            return Err(Error::invalid("cannot write to a path ending in '/'"));
        }
        let incoming = &routed.incoming;
        let withheld = Error::new(Status::TOO_LARGE, "http: request body too large without a valid token");
        if incoming.body_withheld && routed.is_unauthenticated() {
            return Err(withheld);
        }
        let row = routed.destination.row();
        if row.is_some_and(|row| row.token_in_body) && has_bad_token_field(incoming) {
            return Err(Error::new(Status::FORBIDDEN, "invalid token"));
        }
        if !incoming.body_withheld && row.is_some_and(|row| row.takes_wrapping_token) {
            self.check_wrapping_token(incoming).await?;
        }
        let found = match &incoming.token {
            None => Err("the request has no token"),
            Some(token) => {
                let remote = incoming.remote.map(|a| a.ip());
                let found = self.tokens.find(token.expose(), namespace, remote, now).await?;
                self.metrics.tokens.lookup.record(self.clock.now().since(now));
                match found {
                    Ok(token) if !self.identity.allows_tokens_of(&token.record.entity_id).await? => {
                        Err("the entity of the token is disabled or deleted")
                    }
                    Ok(token) if self.origin_exists(&token) => Ok(token),
                    Ok(_) => Err("the auth mount of the token is gone"),
                    Err(reason) => Err(reason),
                }
            }
        };
        if routed.is_unauthenticated() {
            let caller = RequestCaller { token: found.ok(), ..RequestCaller::default() };
            return Ok((!forwards(site, routed, None)).then_some(caller));
        }
        let token = found.map_err(|reason| Error::denied().because(reason))?;
        // The token has become valid since the edge checked it.
        if incoming.body_withheld {
            return Err(withheld);
        }
        if forwards(site, routed, Some(&token)) {
            return Ok(None);
        }
        let mut caller = RequestCaller { token: Some(token.clone()), ..RequestCaller::default() };
        if token.record.num_uses > 0
            && let Some(key) = &token.key
        {
            match Box::pin(self.tokens.count_use(key)).await? {
                Use::Granted => {}
                Use::Last => caller.last_use = true,
                Use::Refused => return Err(Error::denied().because(USES_SPENT)),
            }
        }
        Ok(Some(caller))
    }

    /// Validates the wrapping token of `sys/wrapping/*` before anything else, so that the error reports a used token: it
    /// shows that another caller has read the response.
    async fn check_wrapping_token(&self, incoming: &Incoming) -> Result<(), Error> {
        if incoming.operation.lists() || incoming.operation == Operation::Help {
            return Ok(());
        }
        let refused = |why: &str| Err(Error::new(Status::FORBIDDEN, format!("error validating wrapping token: {why}")));
        let of_body =
            incoming.input.body.field("token").filter(|token| *token != "null").map(serde_json::from_str::<String>);
        // As with OpenBao only a GET takes the token from the query.
        let of_query = incoming.input.query.get("token").filter(|_| incoming.operation == Operation::Read);
        let of_query = of_query.filter(|value| **value != QueryValue::One(String::new()));
        let token = match (of_body, of_query, &incoming.token) {
            (Some(Ok(text)), ..) if text.is_empty() => return refused("empty token in request body"),
            (Some(Ok(text)), ..) => SecretString::new(text),
            (Some(Err(_)), ..) => return refused("could not decode token in request body"),
            (None, Some(QueryValue::One(text)), _) => SecretString::new(text.clone()),
            (None, Some(QueryValue::Repeated { .. }), _) => return refused("could not decode token in request body"),
            (None, None, Some(own)) => own.clone(),
            (None, None, None) => return refused("token is empty"),
        };
        let found = self.wrapper.wrapping_token(token.expose()).await?;
        found.map(drop).ok_or_else(wrapping::invalid)
    }

    /// Whether the auth method that issued a token is still mounted. An unmount revokes its tokens at once, batch tokens
    /// too, which have no record that could be deleted.
    fn origin_exists(&self, token: &Token) -> bool {
        let origin = &token.record.origin;
        let (Some(mount), Some(accessor)) = (&origin.mount, &origin.accessor) else { return true };
        self.mounts.router().at(mount).is_some_and(|m| m.entry.accessor == *accessor)
    }
}

/// Whether the leader must run a request. `token` is the one whose use it counts.
fn forwards(site: Site, routed: &Routed, token: Option<&Token>) -> bool {
    let row = routed.destination.call().map(Call::row);
    site.forwards(&Placed {
        row,
        operation: routed.incoming.operation,
        is_wrapped: row.is_some() && routed.incoming.wrap_ttl.is_some(),
        counts_use: token.is_some_and(|token| token.record.num_uses > 0 && token.key.is_some()),
    })
}

/// Whether `token` in the body is no JSON string, which OpenBao refuses before it authenticates.
fn has_bad_token_field(incoming: &Incoming) -> bool {
    incoming.input.body.field("token").is_some_and(|token| !token.starts_with('"'))
}
