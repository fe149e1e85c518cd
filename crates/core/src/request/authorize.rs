//! Authorization by policies. Only this file creates an [`Authorized`], and no engine runs for a request without one.

use std::sync::Arc;

use keepfast_framework::cx::Caller;
use keepfast_framework::routes::Access as RowAccess;
use keepfast_framework::rows::{NamespaceScope, OperationInfo, Runs};
use keepfast_framework::{Error, Incoming, Operation, RawBody, Result, Status, Timestamp};

use super::authenticate::{Authenticated, RequestCaller};
use super::route::{Call, Routed, Target};
use super::{Departure, Refused};
use crate::audit::Broker;
use crate::cluster::place::Site;
use crate::control_group::{Approval, needs_approvals};
use crate::mount::EngineHost;
use crate::mount::permit::{ExistencePermit, RequestPermit};
use crate::policy::control_group::RequiredApprovals;
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
    admission: Admission,
}

/// How an authorized request goes on.
pub(super) enum Admission {
    /// Its handler runs. Its transaction spends the approval that a control group requires.
    Run { permit: RequestPermit, approval: Option<Box<Approval>> },
    /// A control group stores it until it is approved.
    Store { required: Box<RequiredApprovals>, creates: bool },
}

/// The parts of an [`Authorized`], for the stages after it.
pub(super) struct AuthorizedParts {
    pub(super) routed: Routed<Target>,
    pub(super) caller: RequestCaller,
    pub(super) compiled: Option<Arc<CompiledAcl>>,
    pub(super) decision: Decision,
    pub(super) admission: Admission,
}

impl AuthorizedParts {
    /// The approval that the transaction of the request spends.
    pub(super) fn approval(&self) -> Option<&Approval> {
        match &self.admission {
            Admission::Run { approval, .. } => approval.as_deref(),
            Admission::Store { .. } => None,
        }
    }
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
        let Authorized { routed, caller, compiled, decision, admission } = self;
        AuthorizedParts { routed, caller, compiled, decision, admission }
    }
}

/// The decision of the policies on a request.
struct Evaluated {
    decision: Decision,
    compiled: Option<Arc<CompiledAcl>>,
    /// Whether the request creates its object, as far as the decision depends on it.
    creates: bool,
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

    /// Authorizes a request by the current policies, with the rules that depend on time as of `now`, or refuses it. At a
    /// standby a request that must be stored departs to the leader.
    pub(super) async fn authorize(
        &self,
        authenticated: Authenticated,
        now: Timestamp,
        site: Site,
        approval: Option<Box<Approval>>,
    ) -> Result<Authorized, Departure> {
        let (routed, mut caller) = authenticated.into_parts();
        let evaluated = match self.evaluate(&routed, now, &mut caller).await {
            Ok(allowed) => allowed,
            Err(error) => return Err(Box::new(Refused::new(routed, caller, error)).into()),
        };
        if let Some(error) = self.scope_refusal(&routed) {
            return Err(Box::new(Refused::new(routed, caller, error)).into());
        }
        let admission = match &evaluated.decision.required {
            None => Admission::Run { permit: RequestPermit::new(), approval },
            Some(required) => {
                let stores = approval.is_none();
                match Box::pin(self.admit(&routed, now, &caller, (&evaluated, required), approval)).await {
                    Ok(_) if stores && site != Site::Leader && acts_on_own_node(&routed) => {
                        let error = Error::invalid("a control group can store this request at the leader only");
                        return Err(Box::new(Refused::new(routed, caller, error)).into());
                    }
                    Ok(_) if stores && site != Site::Leader => return Err(Departure::ToLeader(routed.for_leader())),
                    Ok(admission) => admission,
                    Err(error) => return Err(Box::new(Refused::new(routed, caller, error)).into()),
                }
            }
        };
        let Evaluated { decision, compiled, .. } = evaluated;
        match routed.into_target() {
            Ok(routed) => Ok(Authorized { routed, caller, compiled, decision, admission }),
            Err(no_target) => {
                let (routed, error) = *no_target;
                Err(Box::new(Refused::new(routed, caller, error)).into())
            }
        }
    }

    /// Admits a request that a control group controls: to run with an approval that satisfies the current factors, else to
    /// be stored.
    async fn admit(
        &self,
        routed: &Routed,
        now: Timestamp,
        caller: &RequestCaller,
        (evaluated, required): (&Evaluated, &RequiredApprovals),
        approval: Option<Box<Approval>>,
    ) -> Result<Admission> {
        if let Some(approval) = approval {
            let identity = &caller.access(&self.access).identity;
            return match approval.satisfies(&required.factors, identity, now).await? {
                true => Ok(Admission::Run { permit: RequestPermit::new(), approval: Some(approval) }),
                false => Err(needs_approvals()),
            };
        }
        let incoming = &routed.incoming;
        // A stored unwrap could run a stored unwrap, and so on.
        if routed.destination.row().is_some_and(|row| row.takes_wrapping_token) {
            return Err(Error::invalid("a control group cannot store a request with a wrapping token"));
        }
        if !incoming.input.body.bytes().is_empty() || matches!(incoming.input.body.unparsed(), RawBody::File(_)) {
            return Err(Error::invalid("a control group cannot store a body that is not JSON"));
        }
        // Both `create` and `update` are allowed where the decision does not depend on the existence of the object.
        let creates = match &evaluated.compiled {
            Some(compiled) if incoming.operation == Operation::Update && !evaluated.creates => {
                self.creates(routed, &compiled.caller).await?
            }
            _ => evaluated.creates,
        };
        Ok(Admission::Store { required: Box::new(required.clone()), creates })
    }

    /// The refusal of a row that the namespace does not have, for callers that may use its path.
    fn scope_refusal(&self, routed: &Routed) -> Option<Error> {
        let row = routed.destination.call().map(Call::row).filter(|_| !self.access.namespace.id.is_root())?;
        match row.namespace_scope {
            NamespaceScope::AbsentInNamespaces => Some(Error::unsupported_path()),
            scope => scope.refusal().map(Error::invalid),
        }
    }

    async fn evaluate(&self, routed: &Routed, now: Timestamp, request_caller: &mut RequestCaller) -> Result<Evaluated> {
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
            let decision = Decision { allowed: true, ..Decision::default() };
            return Ok(Evaluated { decision, compiled, creates: false });
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
            let differs = creating.allowed != decision.allowed || creating.required != decision.required;
            if differs && Box::pin(self.creates(routed, &compiled.caller)).await? {
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
        Ok(Evaluated { decision, compiled: Some(compiled), creates })
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

/// Whether a request acts on the node that receives it, so that the leader does not run it for another one.
fn acts_on_own_node(routed: &Routed) -> bool {
    routed.destination.call().is_some_and(|call| call.row().runs(routed.incoming.operation) == Runs::OwnNode)
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
