//! Decides whether the caller may. Nothing else makes an [`Authorized`], and no engine runs without one.

use std::sync::Arc;

use keepfast_framework::cx::{Caller, Request};
use keepfast_framework::routes::Access;
use keepfast_framework::{Cx, Error, Input, Operation, Result, Status};

use super::Refused;
use super::authenticate::{Authenticated, Known};
use super::route::Routed;
use crate::mount::permit::{ExistencePermit, RequestPermit};
use crate::policy::store::CompiledAcl;
use crate::policy::{AclRequest, Decision};
use crate::unsealed::Unsealed;

/// A request that may run.
pub(crate) struct Authorized {
    routed: Routed,
    known: Known,
    compiled: Option<Arc<CompiledAcl>>,
    decision: Decision,
    permit: RequestPermit,
}

/// An [`Authorized`] taken apart, for the stages behind it.
pub(super) struct AuthorizedParts {
    pub(super) routed: Routed,
    pub(super) known: Known,
    pub(super) compiled: Option<Arc<CompiledAcl>>,
    pub(super) decision: Decision,
    pub(super) permit: RequestPermit,
}

impl Authorized {
    /// The routed request.
    pub(crate) fn routed(&self) -> &Routed {
        &self.routed
    }

    /// Who asks.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    pub(super) fn into_parts(self) -> AuthorizedParts {
        let Authorized { routed, known, compiled, decision, permit } = self;
        AuthorizedParts { routed, known, compiled, decision, permit }
    }
}

impl Unsealed {
    /// Decides whether the caller may.
    pub(super) async fn authorize(&self, authenticated: Authenticated) -> Result<Authorized, Box<Refused>> {
        let (routed, mut known) = authenticated.into_parts();
        match self.judge(&routed, &mut known).await {
            Ok((decision, compiled)) => {
                Ok(Authorized { routed, known, compiled, decision, permit: RequestPermit::new() })
            }
            Err(error) => Err(Box::new(Refused::new(routed, known, error))),
        }
    }

    async fn judge(&self, routed: &Routed, known: &mut Known) -> Result<(Decision, Option<Arc<CompiledAcl>>)> {
        let compiled = match &known.token {
            None => None,
            Some(token) => Some(self.policies.acl_of(token, &self.identity).await?),
        };
        if let Some(compiled) = &compiled {
            known.verdict.identity_policies = compiled.identity_policies.clone();
        }
        if routed.is_open() {
            known.verdict.allowed = Some(true);
            return Ok((Decision { allowed: true, ..Decision::default() }, compiled));
        }
        let compiled = compiled.ok_or_else(Error::denied)?;
        let path = routed.judged_path();
        let parameters = || parameters_of(&routed.incoming);
        let declared = routed.info().and_then(|row| row.operation(routed.incoming.operation));
        let now = self.clock.now();
        let decide = |creates: bool| {
            compiled.acl.allow(&AclRequest {
                path: &path,
                operation: routed.incoming.operation,
                creates,
                parameters: &parameters,
                declared,
                wrap_ttl: routed.incoming.wrap_ttl,
                now,
            })
        };
        let mut decision = decide(false);
        let mut creates = false;
        // The engine is asked whether the thing exists only when that decides; who may do neither must not learn it.
        if routed.incoming.operation == Operation::Update && !decision.root {
            let creating = decide(true);
            if creating.allowed != decision.allowed && Box::pin(self.creates(routed, &compiled.caller)).await? {
                (decision, creates) = (creating, true);
            }
        }
        let is_help = routed.incoming.operation == Operation::Help;
        let sudo_missing = !is_help && routed.info().is_some_and(|row| row.access == Access::Sudo) && !decision.sudo;
        known.verdict.allowed = Some(decision.allowed && !sudo_missing);
        if !decision.allowed || sudo_missing {
            let reason = if decision.allowed { "the path needs sudo" } else { "no policy of the token allows it" };
            let refused = Error::new(Status::FORBIDDEN, "1 error occurred:\n\t* permission denied\n\n");
            return Err(refused.because(reason));
        }
        if self.audit.is_on() {
            known.verdict.granting = compiled.acl.granting(&path, routed.incoming.operation, creates, now);
        }
        if routed.mount.is_none() {
            let lists = routed.incoming.operation.lists();
            let path = routed.incoming.path.as_str();
            let path = if lists { format!("{}/", path.trim_end_matches('/')) } else { path.to_owned() };
            return Err(Error::new(
                Status::NOT_FOUND,
                format!("no handler for route {path:?}. route entry not found."),
            ));
        }
        match routed.unsupported() {
            Some(refusal) if routed.row.is_none() => Err(refusal),
            _ => Ok((decision, Some(compiled))),
        }
    }

    /// Whether an update creates the thing, as far as its engine can tell; its context cannot write.
    async fn creates(&self, routed: &Routed, caller: &Arc<Caller>) -> Result<bool> {
        let (Some((mounted, _)), Some(found)) = (&routed.mount, &routed.row) else { return Ok(false) };
        if !routed.info().is_some_and(|row| row.tells_existence) {
            return Ok(false);
        }
        let incoming = &routed.incoming;
        let request = Request {
            id: incoming.id.clone(),
            operation: incoming.operation,
            path: incoming.path.as_str().to_owned(),
            remote: incoming.remote.map(|a| a.ip()),
        };
        let mut cx = Cx::new(
            self.barrier.clone(),
            self.barrier.begin_read(),
            mounted.view.clone(),
            mounted.info.clone(),
            self.clock.clone(),
            caller.clone(),
            Arc::new(request),
        );
        let input =
            Input { captures: found.captures.clone(), query: incoming.query.clone(), body: incoming.body.clone() };
        let engine = mounted.engine(self).await?;
        Ok(engine.exists(&ExistencePermit::new(), found, &mut cx, &input).await? == Some(false))
    }
}

/// The fields of the body and the query, for rules that constrain them; none when they cannot be read.
fn parameters_of(incoming: &super::Incoming) -> Option<serde_json::Map<String, serde_json::Value>> {
    let mut out = serde_json::Map::new();
    for (name, value) in incoming.query.iter() {
        out.insert(name.to_owned(), value.to_json());
    }
    for (name, raw) in incoming.body.fields() {
        out.insert(name.to_owned(), serde_json::from_str(raw).ok()?);
    }
    Some(out)
}
