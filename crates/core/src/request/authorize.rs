//! Authorization by policies. Only this file creates an [`Authorized`], and no engine runs for a request without one.

use std::sync::Arc;

use keepfast_framework::cx::Caller;
use keepfast_framework::routes::Access as RowAccess;
use keepfast_framework::rows::{NamespaceScope, OperationInfo};
use keepfast_framework::{Error, Incoming, Operation, Result, Status, Timestamp};

use super::Refused;
use super::authenticate::{Authenticated, RequestCaller};
use super::route::{Call, Routed, Target};
use crate::audit::Broker;
use crate::mount::EngineHost;
use crate::mount::permit::{ExistencePermit, RequestPermit};
use crate::policy::nested::repeats_a_field;
use crate::policy::store::CompiledAcl;
use crate::policy::{AclRequest, Decision};
use crate::unsealed::{Access, Unsealed};

/// The error of a request that the policies of its token do not allow.
pub(super) const PERMISSION_DENIED: &str = "1 error occurred:\n\t* permission denied\n\n";

/// An authorized request.
pub(crate) struct Authorized {
    routed: Routed<Target>,
    caller: RequestCaller,
    compiled: Option<Arc<CompiledAcl>>,
    decision: Decision,
    permit: RequestPermit,
}

/// The parts of an [`Authorized`], for the stages after it.
pub(super) struct AuthorizedParts {
    pub(super) routed: Routed<Target>,
    pub(super) caller: RequestCaller,
    pub(super) compiled: Option<Arc<CompiledAcl>>,
    pub(super) decision: Decision,
    pub(super) permit: RequestPermit,
}

impl Authorized {
    /// The routed request.
    pub(crate) fn routed(&self) -> &Routed<Target> {
        &self.routed
    }

    /// The caller.
    pub(crate) fn caller(&self) -> &RequestCaller {
        &self.caller
    }

    pub(super) fn into_parts(self) -> AuthorizedParts {
        let Authorized { routed, caller, compiled, decision, permit } = self;
        AuthorizedParts { routed, caller, compiled, decision, permit }
    }
}

/// Authorizes requests.
pub(super) struct Authorizer {
    host: Arc<EngineHost>,
    access: Arc<Access>,
    audit: Arc<Broker>,
}

impl Authorizer {
    pub(super) fn new(unsealed: &Unsealed) -> Self {
        Authorizer {
            host: unsealed.engines.host.clone(),
            access: unsealed.access.clone(),
            audit: unsealed.observability.audit.clone(),
        }
    }

    /// Authorizes a request by the current policies, with the rules that depend on time as of `now`, or refuses it.
    pub(super) async fn authorize(
        &self,
        authenticated: Authenticated,
        now: Timestamp,
    ) -> Result<Authorized, Box<Refused>> {
        let (routed, mut caller) = authenticated.into_parts();
        let (decision, compiled) = match self.evaluate(&routed, now, &mut caller).await {
            Ok(allowed) => allowed,
            Err(error) => return Err(Box::new(Refused::new(routed, caller, error))),
        };
        if let Some(error) = self.scope_refusal(&routed) {
            return Err(Box::new(Refused::new(routed, caller, error)));
        }
        match routed.into_target() {
            Ok(routed) => Ok(Authorized { routed, caller, compiled, decision, permit: RequestPermit::new() }),
            Err(no_target) => {
                let (routed, error) = *no_target;
                Err(Box::new(Refused::new(routed, caller, error)))
            }
        }
    }

    /// The refusal of a row that the namespace does not have, for callers that may use its path.
    fn scope_refusal(&self, routed: &Routed) -> Option<Error> {
        let row = routed.destination.call().map(Call::row).filter(|_| !self.access.namespace.id.is_root())?;
        match row.namespace_scope {
            NamespaceScope::AbsentInNamespaces => Some(Error::unsupported_path()),
            scope => scope.refusal().map(Error::invalid),
        }
    }

    async fn evaluate(
        &self,
        routed: &Routed,
        now: Timestamp,
        request_caller: &mut RequestCaller,
    ) -> Result<(Decision, Option<Arc<CompiledAcl>>)> {
        let compiled = match &request_caller.token {
            None => None,
            Some(token) => {
                let access = request_caller.access(&self.access);
                Some(access.policies.acl_of(token, &access.identity).await?)
            }
        };
        let path = &*request_caller.policy_path(routed.policy_path());
        let policy_results = &mut request_caller.policy_results;
        if let Some(compiled) = &compiled {
            policy_results.identity_policies = compiled.identity_policies.clone();
        }
        if routed.is_unauthenticated() {
            policy_results.allowed = Some(true);
            return Ok((Decision { allowed: true, ..Decision::default() }, compiled));
        }
        let compiled = compiled.ok_or_else(Error::denied)?;
        let declared = routed.destination.call().map(Call::operation);
        let parameters = || parameters_of(&routed.incoming, declared.and_then(OperationInfo::nested));
        let decide = |creates: bool| {
            compiled.acl.allow(&AclRequest {
                path,
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
        // The engine checks whether the object exists only if the decision depends on it: a caller without `create` and
        // `update` must not learn it.
        if routed.incoming.operation == Operation::Update && !decision.root {
            let creating = decide(true);
            if creating.allowed != decision.allowed && Box::pin(self.creates(routed, &compiled.caller)).await? {
                (decision, creates) = (creating, true);
            }
        }
        let is_help = routed.incoming.operation == Operation::Help;
        let sudo_missing = !is_help && routed.access == RowAccess::Sudo && !decision.sudo;
        policy_results.allowed = Some(decision.allowed && !sudo_missing);
        if !decision.allowed || sudo_missing {
            let reason = if decision.allowed { "the path needs sudo" } else { "no policy of the token allows it" };
            let refused = Error::new(Status::FORBIDDEN, PERMISSION_DENIED);
            return Err(refused.because(reason));
        }
        if self.audit.is_on() {
            policy_results.granting = compiled.acl.granting(path, routed.incoming.operation, creates, now);
        }
        Ok((decision, Some(compiled)))
    }

    /// Whether an update creates the object, as far as its engine knows; the context cannot write.
    async fn creates(&self, routed: &Routed, caller: &Arc<Caller>) -> Result<bool> {
        let Some(call) = routed.destination.call().filter(|call| call.row().has_existence_check) else {
            return Ok(false);
        };
        let tx = self.host.barrier.begin_read().refusing_writes();
        let mut cx = self.host.request_context(&call.mounted, call.request.clone(), tx, caller.clone());
        let engine = call.mounted.engine(&self.host).await?;
        let input = &routed.incoming.input;
        Ok(engine.exists(&ExistencePermit::new(), call.row, &mut cx, input).await? == Some(false))
    }
}

/// The fields of the body and the query, for rules that constrain them; none when they cannot be read, or when the object
/// in the parameter `nested` has two values for a field.
fn parameters_of(incoming: &Incoming, nested: Option<&str>) -> Option<serde_json::Map<String, serde_json::Value>> {
    let mut out = serde_json::Map::new();
    for (name, value) in incoming.input.query.iter() {
        out.insert(name.to_owned(), value.to_json());
    }
    for (name, raw) in incoming.input.body.fields() {
        if nested == Some(name) && repeats_a_field(raw) {
            return None;
        }
        out.insert(name.to_owned(), serde_json::from_str(raw).ok()?);
    }
    Some(out)
}
