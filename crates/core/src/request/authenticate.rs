//! Authentication: the token and all its ancestors are valid, and its use is counted.

use std::borrow::Cow;
use std::sync::Arc;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::rows::NamespaceScope;
use keepfast_framework::{Clock, Error, Incoming, Operation, QueryValue, Status, Timestamp};

use super::authorize::PERMISSION_DENIED;
use super::route::{Call, Routed};
use super::{Departure, Refused};
use crate::audit::PolicyResults;
use crate::cluster::place::{Placed, Site};
use crate::metrics::Metrics;
use crate::mount::Mounts;
use crate::namespace::{NamespaceId, split_suffix};
use crate::token::Token;
use crate::token::store::{OTHER_NAMESPACE, USES_SPENT, Use};
use crate::unsealed::{Access, Unsealed};
use crate::wrapping;

/// The caller of a request.
#[derive(Default)]
pub(crate) struct RequestCaller {
    /// The valid token; `None` for a request without one to a path that needs none.
    pub(crate) token: Option<Arc<Token>>,
    /// Whether this is the last use of the token, which is revoked after the request.
    pub(crate) last_use: bool,
    /// The decision of the caller's policies.
    pub(crate) policy_results: PolicyResults,
    /// The namespace of the token, if it is not that of the request but one above.
    pub(crate) above: Option<Box<NamespaceAbove>>,
}

/// The namespace of a token above that of its request.
pub(crate) struct NamespaceAbove {
    /// Its policies and its identity.
    pub(crate) access: Arc<Access>,
    /// The path of the namespace of the request in it.
    pub(crate) path: String,
}

impl RequestCaller {
    /// The path of a request as the policies of the token see it: relative to the namespace of the token.
    pub(crate) fn policy_path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match &self.above {
            None => Cow::Borrowed(path),
            Some(above) => Cow::Owned(format!("{}{path}", above.path)),
        }
    }

    /// The services of the namespace of the token, where `own` is that of the request.
    pub(super) fn access<'a>(&'a self, own: &'a Arc<Access>) -> &'a Arc<Access> {
        self.above.as_ref().map_or(own, |above| &above.access)
    }
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
    access: Arc<Access>,
    metrics: Arc<Metrics>,
}

impl Authenticator {
    pub(super) fn new(unsealed: &Unsealed) -> Self {
        Authenticator {
            clock: unsealed.clock.clone(),
            mounts: unsealed.engines.mounts.clone(),
            access: unsealed.access.clone(),
            metrics: unsealed.observability.metrics.clone(),
        }
    }

    /// Authenticates the caller of a routed request, with a token that is valid at `now`. A request that the leader must
    /// run departs before a use of its token is counted. `is_approved` is a request that was stored when it counted its use.
    pub(super) async fn authenticate(
        &self,
        routed: Routed,
        now: Timestamp,
        site: Site,
        is_approved: bool,
    ) -> Result<Authenticated, Departure> {
        match self.caller_of(&routed, now, site, is_approved).await {
            Ok(Some(caller)) => Ok(Authenticated { routed, caller }),
            Ok(None) => Err(Departure::ToLeader(routed.for_leader())),
            Err(error) => Err(Box::new(Refused::new(routed, RequestCaller::default(), error)).into()),
        }
    }

    /// The caller; `None` when the leader must run the request.
    async fn caller_of(
        &self,
        routed: &Routed,
        now: Timestamp,
        site: Site,
        is_approved: bool,
    ) -> Result<Option<RequestCaller>, Error> {
        if matches!(routed.incoming.operation, Operation::Update | Operation::Patch)
            && routed.incoming.path.as_str().ends_with('/')
        {
            return Err(Error::invalid("cannot write to a path ending in '/'"));
        }
        let incoming = &routed.incoming;
        self.check_namespace_scope(routed)?;
        let withheld = Error::new(Status::TOO_LARGE, "http: request body too large without a valid token");
        if incoming.body_withheld && routed.is_unauthenticated() {
            return Err(withheld);
        }
        let row = routed.destination.row();
        if row.is_some_and(|row| row.token_in_body) && has_bad_token_field(incoming) {
            return Err(Error::new(Status::FORBIDDEN, "invalid token"));
        }
        if !incoming.body_withheld && row.is_some_and(|row| row.takes_wrapping_token) {
            Box::pin(self.check_wrapping_token(incoming)).await?;
        }
        let found = match &incoming.token {
            None => Err("the request has no token"),
            Some(token) => {
                let remote = incoming.remote.map(|a| a.ip());
                let found = self.access.tokens.find(token.expose(), &self.access.namespace, remote, now).await?;
                self.metrics.tokens.lookup.record(self.clock.now().since(now));
                match found {
                    Ok(token) if !self.is_of_enabled_entity(&token).await? => {
                        Err("the entity of the token is disabled or deleted")
                    }
                    Ok(token) if self.origin_exists(&token) => Ok(token),
                    Ok(_) => Err("the auth mount of the token is gone"),
                    Err(reason) => Err(reason),
                }
            }
        };
        if routed.is_unauthenticated() {
            let caller = self.caller(found.ok());
            return Ok((!forwards(site, routed, None)).then_some(caller));
        }
        let token = match found {
            Ok(token) => token,
            // A token that is valid elsewhere is refused as if its policies did it.
            Err(reason) if reason == OTHER_NAMESPACE && Box::pin(self.is_of_namespace(incoming)).await? => {
                return Err(Error::new(Status::FORBIDDEN, PERMISSION_DENIED).because(reason));
            }
            Err(reason) => return Err(Error::denied().because(reason)),
        };
        // The token has become valid since the edge checked it.
        if incoming.body_withheld {
            return Err(withheld);
        }
        if forwards(site, routed, Some(&token)) {
            return Ok(None);
        }
        let mut caller = self.caller(Some(token.clone()));
        // The run of a stored request spends the use of its wrapping token.
        if token.record.num_uses > 0
            && !is_approved
            && !token.record.control_group
            && let Some(key) = &token.key
        {
            match Box::pin(self.access.tokens.count_use(key)).await? {
                Use::Granted => {}
                Use::Last => caller.last_use = true,
                Use::Refused => return Err(Error::denied().because(USES_SPENT)),
            }
        }
        Ok(Some(caller))
    }

    /// Refuses a row that a namespace besides root does not have, for every caller.
    fn check_namespace_scope(&self, routed: &Routed) -> Result<(), Error> {
        let row = routed.destination.row().filter(|_| !self.access.namespace.id.is_root());
        let scope = row.map_or(NamespaceScope::Everywhere, |row| row.namespace_scope);
        match scope.refusal().filter(|_| scope.precedes_authentication()) {
            Some(text) => Err(Error::invalid(text)),
            None => Ok(()),
        }
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
        let found = self.access.wrapper.wrapping_token(token.expose()).await?.ok_or_else(wrapping::invalid)?;
        match self.access.reaches(&found.record.namespace).await? {
            true => Ok(()),
            false => Err(wrapping::invalid()),
        }
    }

    /// Whether the auth method that issued a token is still mounted. An unmount revokes its tokens at once, batch tokens
    /// too, which have no record that could be deleted.
    fn origin_exists(&self, token: &Token) -> bool {
        let origin = &token.record.origin;
        let (Some(mount), Some(accessor)) = (&origin.mount, &origin.accessor) else { return true };
        let (mut mounts, mut at) = (&self.mounts, &self.access);
        while at.namespace.id != token.record.namespace {
            let Some(parent) = &at.parent else { return false };
            (mounts, at) = (&parent.mounts, &parent.access);
        }
        mounts.router().at(mount).is_some_and(|m| m.entry.accessor == *accessor)
    }

    /// Whether the entity of a token, in the namespace of the token, may use it.
    async fn is_of_enabled_entity(&self, token: &Token) -> Result<bool, Error> {
        let record = &token.record;
        if record.namespace == self.access.namespace.id {
            return self.access.identity.allows_tokens_of(&record.entity_id).await;
        }
        match self.access.of_namespace(&record.namespace) {
            Some((access, _)) => access.identity.allows_tokens_of(&record.entity_id).await,
            None => Ok(false),
        }
    }

    /// Whether the token of a request is of a namespace that exists.
    async fn is_of_namespace(&self, incoming: &Incoming) -> Result<bool, Error> {
        let suffix = incoming.token.as_ref().and_then(|token| split_suffix(token.expose()).1);
        let id = suffix.and_then(NamespaceId::parse).unwrap_or_default();
        Ok(self.access.namespaces()?.open_any(&id).await?.is_some())
    }

    /// The caller with this token.
    fn caller(&self, token: Option<Arc<Token>>) -> RequestCaller {
        let foreign = token.as_ref().filter(|token| token.record.namespace != self.access.namespace.id);
        let above = foreign.and_then(|token| self.access.of_namespace(&token.record.namespace));
        let above = above.map(|(access, path)| Box::new(NamespaceAbove { access, path: path.to_owned() }));
        RequestCaller { token, above, ..RequestCaller::default() }
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
