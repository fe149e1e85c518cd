//! Finds out who asks: the token is alive here, and its use is counted.

use std::sync::Arc;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Error, Incoming, Operation, QueryValue, Status};

use super::Refused;
use super::route::Routed;
use crate::audit::Verdict;
use crate::token::Token;
use crate::token::store::{USES_SPENT, Use};
use crate::unsealed::Unsealed;
use crate::wrapping;

/// The caller of a request.
#[derive(Default)]
pub(crate) struct RequestCaller {
    /// The token, alive; `None` without one, where none is needed.
    pub(crate) token: Option<Arc<Token>>,
    /// Whether this was the token's last use: it ends with this request.
    pub(crate) last_use: bool,
    /// What the policies of the caller said.
    pub(crate) verdict: Verdict,
}

/// A routed request whose caller is known, or needs not to be.
pub(crate) struct Authenticated {
    routed: Routed,
    caller: RequestCaller,
}

impl Authenticated {
    /// The token of the caller.
    pub(super) fn token(&self) -> Option<&Arc<Token>> {
        self.caller.token.as_ref()
    }

    /// Takes it apart, for the next stage.
    pub(super) fn into_parts(self) -> (Routed, RequestCaller) {
        (self.routed, self.caller)
    }
}

impl Unsealed {
    /// Finds the caller of a routed request.
    pub(super) async fn authenticate(&self, routed: Routed) -> Result<Authenticated, Box<Refused>> {
        match self.caller_of(&routed).await {
            Ok(caller) => Ok(Authenticated { routed, caller }),
            Err(error) => Err(Box::new(Refused::new(routed, RequestCaller::default(), error))),
        }
    }

    async fn caller_of(&self, routed: &Routed) -> Result<RequestCaller, Error> {
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
        if incoming.body_withheld && routed.is_open() {
            return Err(withheld);
        }
        let row = routed.destination.row();
        if row.is_some_and(|row| row.token_in_body) && names_no_token(incoming) {
            return Err(Error::new(Status::FORBIDDEN, "invalid token"));
        }
        if !incoming.body_withheld && row.is_some_and(|row| row.takes_wrapping_token) {
            self.check_wrapping_token(incoming).await?;
        }
        let found = match &incoming.token {
            None => Err("the request has no token"),
            Some(token) => {
                let remote = incoming.remote.map(|a| a.ip());
                let now = self.clock.now();
                let found = self.tokens.find(token.expose(), namespace, remote, now).await?;
                self.metrics.tokens.lookup.record(self.clock.now().since(now));
                match found {
                    Ok(token) if self.origin_stands(&token) => Ok(token),
                    Ok(_) => Err("the auth mount of the token is gone"),
                    Err(reason) => Err(reason),
                }
            }
        };
        if routed.is_open() {
            return Ok(RequestCaller { token: found.ok(), ..RequestCaller::default() });
        }
        let token = found.map_err(|reason| Error::denied().because(reason))?;
        // The token has become valid since the edge looked.
        if incoming.body_withheld {
            return Err(withheld);
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
        Ok(caller)
    }

    /// Checks the wrapping token that a request is about before anything else, so that a spent one is reported as such, which
    /// is how wrapping shows that somebody else has read the answer.
    async fn check_wrapping_token(&self, incoming: &Incoming) -> Result<(), Error> {
        if incoming.operation.lists() || incoming.operation == Operation::Help {
            return Ok(());
        }
        let refused = |why: &str| Err(Error::new(Status::FORBIDDEN, format!("error validating wrapping token: {why}")));
        let named =
            incoming.input.body.field("token").filter(|token| *token != "null").map(serde_json::from_str::<String>);
        // As with OpenBao only a GET takes the token from the query.
        let of_query = incoming.input.query.get("token").filter(|_| incoming.operation == Operation::Read);
        let of_query = of_query.filter(|value| **value != QueryValue::One(String::new()));
        let token = match (named, of_query, &incoming.token) {
            (Some(Ok(named)), ..) if named.is_empty() => return refused("empty token in request body"),
            (Some(Ok(named)), ..) => SecretString::new(named),
            (Some(Err(_)), ..) => return refused("could not decode token in request body"),
            (None, Some(QueryValue::One(named)), _) => SecretString::new(named.clone()),
            (None, Some(QueryValue::Repeated { .. }), _) => return refused("could not decode token in request body"),
            (None, None, Some(own)) => own.clone(),
            (None, None, None) => return refused("token is empty"),
        };
        let found = self.wrapper.wrapping_token(token.expose()).await?;
        found.map(drop).ok_or_else(wrapping::invalid)
    }

    /// Whether the auth method that logged a token in is still mounted where it was. A mount that is taken away ends its
    /// tokens at once: batch tokens too, which no record of theirs can end.
    fn origin_stands(&self, token: &Token) -> bool {
        let origin = &token.record.origin;
        let (Some(mount), Some(accessor)) = (&origin.mount, &origin.accessor) else { return true };
        self.mounts.router().at(mount).is_some_and(|m| m.entry.accessor == *accessor)
    }
}

/// Whether `token` in the body is no JSON string, which OpenBao refuses before it authenticates.
fn names_no_token(incoming: &Incoming) -> bool {
    incoming.input.body.field("token").is_some_and(|token| !token.starts_with('"'))
}
