//! Dispatch: the handler runs and its outcome is settled, in one transaction.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::cx::LastStep;
use keepfast_framework::reply::Raw;
use keepfast_framework::{
    Authorization, Cx, Error, ErrorKind, Incoming, Input, Operation, Outcome, RawBody, Result, Status,
    UnauthedEndpoints, help,
};
use keepfast_storage::{Index, StorageError, Tx};
use serde::Serialize;

use super::Refused;
use super::audit::Audited;
use super::authenticate::RequestCaller;
use super::authorize::{Admission, AuthorizedParts};
use super::controlled::store_request;
use super::envelope::{Envelope, ResponseContent};
use super::route::{Call, Target};
use super::settle::{Settled, Settler};
use super::wrap::{wrap_envelope, wrap_raw};
use crate::audit::SerializedRequest;
use crate::metrics::routes::RouteOperation;
use crate::metrics::standby;
use crate::mount::permit::RequestPermit;
use crate::mount::{EngineHost, Mounted, Mounts};
use crate::namespace::changes;
use crate::policy::store::CompiledAcl;
use crate::settings::Settings;
use crate::token::Token;
use crate::unsealed::{Access, Unsealed};
use crate::wrapping::{TokenUse, USE_UNWRAP};

/// How often a request runs again after conflicts before it fails.
pub(super) const TRIES: usize = 64;

/// A request with its outcome: it has run, or was refused.
pub(crate) struct Handled(HandledParts);

/// The parts of a [`Handled`], for its audit entry.
pub(super) struct HandledParts {
    pub(super) incoming: Box<Incoming>,
    /// The mount that its path leads to, for the audit entry.
    pub(super) mounted: Option<Arc<Mounted>>,
    pub(super) caller: RequestCaller,
    pub(super) serialized: SerializedRequest,
    pub(super) outcome: Result<ResponseContent>,
    pub(super) last_step: Option<LastStep>,
    /// The index of its commit.
    pub(super) committed: Option<Index>,
}

/// A handler that has run.
struct Ran {
    content: ResponseContent,
    last_step: Option<LastStep>,
    committed: Option<Index>,
}

impl From<ResponseContent> for Ran {
    fn from(content: ResponseContent) -> Self {
        Ran { content, last_step: None, committed: None }
    }
}

impl Handled {
    /// The outcome of a refused request.
    pub(super) fn refused(refused: Refused) -> Self {
        let Refused { routed, caller, serialized, error } = refused;
        let mounted = routed.destination.mounted().cloned();
        let incoming = routed.incoming;
        let outcome = Err(error);
        Handled(HandledParts { incoming, mounted, caller, serialized, outcome, last_step: None, committed: None })
    }

    pub(super) fn into_parts(self) -> HandledParts {
        self.0
    }
}

/// The context of a call for core's own engines (`sys/`, `auth/token/`), in addition to that of every engine.
pub(crate) struct CoreCall {
    /// The unsealed server that authorized it.
    pub(crate) unsealed: Arc<Unsealed>,
    /// Lets the engine of a renewed lease or token run.
    pub(crate) permit: RequestPermit,
    /// The caller's token.
    pub(crate) token: Option<Arc<Token>>,
    /// The text of that token.
    pub(crate) id: Option<SecretString>,
    /// The `Authorization` header.
    pub(crate) authorization: Authorization,
    /// The ACL of the caller.
    pub(crate) compiled: Option<Arc<CompiledAcl>>,
    /// Properties of the request and its listener besides the input.
    pub(crate) facts: RequestFacts,
    /// The index of the commit of a stored request that the handler has run.
    pub(crate) ran: OnceLock<Index>,
}

impl CoreCall {
    /// The path of the namespace of the request in that of the token; empty if they are the same.
    pub(crate) fn within(&self) -> &str {
        let token = self.token.as_ref();
        token.and_then(|token| self.unsealed.access.namespace.relative_to(&token.record.namespace)).unwrap_or_default()
    }
}

/// Properties of a request besides its parameters, for core's own engines.
pub(crate) struct RequestFacts {
    /// Whether the response is to be wrapped.
    pub(crate) wraps: bool,
    /// Whether authentication has spent the last use of the caller's token.
    pub(crate) last_use: bool,
    /// The operations that the listener allows without a token.
    pub(crate) open: UnauthedEndpoints,
    /// Whether its `Accept` header has a format of Prometheus.
    pub(crate) accepts_prometheus: bool,
    /// The body of a row that takes bytes.
    pub(crate) body: RawBody,
}

/// Runs the handlers of authorized requests.
pub(super) struct Dispatcher {
    host: Arc<EngineHost>,
    mounts: Arc<Mounts>,
    access: Arc<Access>,
    settings: Arc<Settings>,
    settler: Settler,
}

impl Dispatcher {
    pub(super) fn new(unsealed: &Unsealed) -> Self {
        Dispatcher {
            host: unsealed.engines.host.clone(),
            mounts: unsealed.engines.mounts.clone(),
            access: unsealed.access.clone(),
            settings: unsealed.settings.clone(),
            settler: Settler::new(unsealed),
        }
    }

    /// Runs an audited request; `unsealed` is for core's own engines.
    pub(super) async fn dispatch(&self, unsealed: &Arc<Unsealed>, audited: Audited) -> Handled {
        let (parts, serialized) = audited.into_parts();
        let (outcome, last_step, committed) = match self.run(unsealed, &parts).await {
            Ok(Ran { content, last_step, committed }) => (Ok(content), last_step, committed),
            Err(error) => (Err(error), None, None),
        };
        let mounted = Some(parts.routed.destination.mounted().clone());
        let (incoming, caller) = (parts.routed.incoming, parts.caller);
        Handled(HandledParts { incoming, mounted, caller, serialized, outcome, last_step, committed })
    }

    async fn run(&self, unsealed: &Arc<Unsealed>, parts: &AuthorizedParts) -> Result<Ran> {
        let routed = &parts.routed;
        let version = &self.settings.version;
        let call = match &routed.destination {
            Target::Row(call) => call,
            Target::RowHelp(mounted, row) => {
                let text = help::row(version, &mounted.table.rows()[*row], routed.path_within());
                return Ok(json_document(&text)?.into());
            }
            Target::MountHelp(mounted) => return Ok(json_document(&help::root(version, &mounted.table))?.into()),
            Target::UnsupportedOperation(..) => return Err(routed.reword(Error::unsupported_operation())),
            Target::UnsupportedPath(_) => return Err(routed.reword(Error::unsupported_path())),
        };
        let permit = match &parts.admission {
            Admission::Run { permit, .. } => permit,
            Admission::Store { required, creates } => {
                let storing = store_request(unsealed, parts, &call.mounted, required, *creates);
                let (envelope, committed) = Box::pin(storing).await?;
                return Ok(Ran { committed, ..ResponseContent::Envelope(envelope).into() });
            }
        };
        let input = &routed.incoming.input;
        let limited = parts.decision.limit.map(|limit| Box::new(with_limit(input, limit)));
        let input = limited.as_deref().unwrap_or(input);
        let started = self.host.clock.now();
        let mut creates = false;
        standby::runs(&call.mounted, call.row);
        let outcome = self.attempts(unsealed, (parts, permit), call, input, &mut creates).await;
        if let Some(operation) = RouteOperation::of(routed.incoming.operation, creates) {
            call.mounted.timings.record(operation, self.host.clock.now().since(started));
        }
        outcome
    }

    /// Runs the handler, and again after conflicts; sets `creates` if it created an object.
    async fn attempts(
        &self,
        unsealed: &Arc<Unsealed>,
        (parts, permit): (&AuthorizedParts, &RequestPermit),
        call: &Call,
        input: &Input,
        creates: &mut bool,
    ) -> Result<Ran> {
        for _ in 0..TRIES {
            match self.attempt(unsealed, (parts, permit), call, input, creates).await {
                Err(error) if error.is_conflict() && !call.row().once => {}
                other => return other.map_err(|error| parts.routed.reword(error)),
            }
        }
        Err(Error::internal(StorageError::Conflict))
    }

    /// One run of the handler, settled and committed.
    async fn attempt(
        &self,
        unsealed: &Arc<Unsealed>,
        (parts, permit): (&AuthorizedParts, &RequestPermit),
        call: &Call,
        input: &Input,
        creates: &mut bool,
    ) -> Result<Ran> {
        let mounted = &call.mounted;
        let operation = call.request.operation;
        let engine = match mounted.opened() {
            Some(engine) => engine,
            None => Box::pin(mounted.engine(&self.host)).await?,
        };
        let mut cx = self.context(unsealed, (parts, permit), call);
        if let Some(approval) = parts.approval() {
            // First, so that a checkpoint commits it as well.
            Box::pin(approval.spend(&self.access.wrapper, cx.store().0)).await?;
        }
        if mounted.traits.per_token {
            Box::pin(self.conflict_with_revocation(&mut cx, parts)).await?;
        }
        let mut outcome = called(engine.call(permit, call.row, operation, &mut cx, input), parts, call, input).await?;
        let ran = cx.core::<CoreCall>().and_then(|core| core.ran.get().copied());
        let context = cx.into_parts();
        // A checkpoint has committed a part of the transaction before the engine acted on an external system.
        if context.checkpointed && matches!(outcome, Outcome::Leased { .. }) {
            return Err(Error::internal("a lease must be offered before the handler acts"));
        }
        let mut tx = context.tx;
        *creates = call.row().has_existence_check && tx.creates();
        if !parts.decision.keys_filters.is_empty() {
            self.filter_keys(parts, &mut outcome)?;
        }
        if reads_wrapped_response(parts, mounted) {
            Box::pin(self.spend_wrapping_token(&mut tx, parts)).await?;
        }
        let Settled { content, intent } = self.settler.settle(&mut tx, parts, mounted, outcome).await?;
        if !context.checkpointed && tx.is_dirty() {
            Box::pin(self.mounts.conflict_with_unmount(&mut tx, mounted)).await?;
        }
        let wraps = parts.routed.incoming.wrap_ttl.is_some();
        let mut envelope = match content {
            ResponseContent::Envelope(envelope) => envelope,
            content => {
                let content = match content {
                    ResponseContent::Raw(raw) if wraps => {
                        Box::pin(wrap_raw(&self.access.wrapper, &mut tx, parts, raw)).await?
                    }
                    content => content,
                };
                self.before_write(unsealed, &mut tx, (mounted, context.checkpointed)).await?;
                let committed = tx.commit().await?.max(ran);
                context.after_commit.into_iter().for_each(|action| action());
                return Ok(Ran { content, last_step: context.last_step, committed });
            }
        };
        if reads_wrapped_response(parts, mounted) {
            envelope.warnings.push(USE_UNWRAP.to_owned());
        }
        add_warnings(&mut envelope, context.warnings, call, input);
        if envelope.wrap_ttl(parts.routed.incoming.wrap_ttl).is_some() {
            Box::pin(wrap_envelope(&self.access.wrapper, &mut tx, parts, &mut envelope)).await?;
        }
        self.before_write(unsealed, &mut tx, (mounted, context.checkpointed)).await?;
        let committed = match tx.commit().await {
            Err(error) if context.checkpointed && error.may_run_again() => {
                return Err(Error::internal("a conflict after a checkpoint"));
            }
            other => other?,
        };
        if let Some(intent) = intent {
            intent.keep();
        }
        context.after_commit.into_iter().for_each(|action| action());
        Ok(Ran { content: ResponseContent::Envelope(envelope), last_step: context.last_step, committed })
    }

    /// Makes the writes of a request conflict with the deletion of its namespace.
    /// A checkpoint has written an intent, which the deletion revokes.
    async fn before_write(
        &self,
        unsealed: &Unsealed,
        tx: &mut Tx,
        (mounted, checkpointed): (&Mounted, bool),
    ) -> Result<()> {
        match checkpointed || self.access.namespace.id.is_root() || !tx.is_dirty() {
            true => Ok(()),
            false => Box::pin(changes::before_write(unsealed, tx, mounted)).await,
        }
    }

    /// Makes a write to the storage of a token (the cubbyhole) conflict with the revocation of the token, which deletes that
    /// storage: a write after it would remain.
    async fn conflict_with_revocation(&self, cx: &mut Cx, parts: &AuthorizedParts) -> Result<()> {
        let operation = parts.routed.incoming.operation;
        let key = parts.caller.token.as_ref().and_then(|t| t.key.as_ref());
        if let Some(key) = key.filter(|_| matches!(operation, Operation::Update | Operation::Patch)) {
            self.access.tokens.record(cx.store().0, key).await?.ok_or_else(Error::denied)?;
            let token = parts.caller.token.as_ref().filter(|_| parts.caller.above.is_some());
            if let Some(token) = token {
                let namespace = &self.access.namespace.id;
                self.access.tokens.note_elsewhere(cx.store().0, &token.store, namespace).await?;
            }
        }
        Ok(())
    }

    /// Revokes the wrapping token that reads its response, or refuses the request because another one has read the response.
    async fn spend_wrapping_token(&self, tx: &mut Tx, parts: &AuthorizedParts) -> Result<()> {
        let caller = &parts.caller;
        match caller.token.as_ref().and_then(|token| token.key.as_ref().map(|key| (token, key))) {
            Some((token, key)) if caller.last_use => {
                self.access.wrapper.take(tx, key, token, TokenUse::Authentication).await
            }
            _ => Err(Error::denied()),
        }
    }

    fn context(
        &self,
        unsealed: &Arc<Unsealed>,
        (parts, permit): (&AuthorizedParts, &RequestPermit),
        call: &Call,
    ) -> Cx {
        let (incoming, mounted, once) = (&parts.routed.incoming, &call.mounted, call.row().once);
        let reads = incoming.operation == Operation::Read || incoming.operation.lists();
        let spends = parts.approval().is_some() || reads_wrapped_response(parts, mounted);
        let read_only = reads && !once && incoming.wrap_ttl.is_none() && !spends;
        let barrier = &self.host.barrier;
        let tx = if read_only { barrier.begin_read().refusing_writes() } else { barrier.begin() };

        let caller = parts.compiled.as_ref().map_or_else(Arc::default, |c| c.caller.clone());
        let cx = self.host.request_context(mounted, call.request.clone(), tx, caller);
        let mut cx = cx.with_services(self.host.services.clone());
        if once {
            cx = cx.once().with_lessor(Arc::new(self.settler.lease_issuer(parts, mounted)));
        }
        if mounted.traits.in_core {
            cx = cx.with_core(Arc::new(CoreCall {
                unsealed: unsealed.clone(),
                permit: permit.clone(),
                token: parts.caller.token.clone(),
                id: incoming.token.clone(),
                authorization: incoming.authorization.clone(),
                compiled: parts.compiled.clone(),
                facts: RequestFacts {
                    wraps: incoming.wrap_ttl.is_some(),
                    last_use: parts.caller.last_use,
                    open: incoming.open,
                    accepts_prometheus: incoming.accepts_prometheus,
                    body: incoming.input.body.unparsed().clone(),
                },
                ran: OnceLock::new(),
            }));
        }
        cx
    }

    /// Removes the names that the list filters of the policies exclude.
    fn filter_keys(&self, parts: &AuthorizedParts, outcome: &mut Outcome) -> Result<()> {
        let (Some(compiled), Some(data)) = (&parts.compiled, outcome.data_mut()) else { return Ok(()) };
        let mut value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(data.get())?;
        let path = parts.caller.policy_path(parts.routed.policy_path());
        let now = self.host.clock.now();
        let lists_name = |name: &str| compiled.acl.lists_name(&parts.decision, &path, name, now);
        if let Some(serde_json::Value::Array(keys)) = value.get_mut("keys") {
            keys.retain(|k| k.as_str().is_some_and(lists_name));
        }
        if let Some(serde_json::Value::Object(info)) = value.get_mut("key_info") {
            info.retain(|name, _| lists_name(name));
        }
        *data = serde_json::value::to_raw_value(&value)?;
        Ok(())
    }
}

/// The outcome of a handler. One that panics fails its own request, which is audited like any other.
async fn called(
    handler: impl Future<Output = Result<Outcome>>,
    parts: &AuthorizedParts,
    call: &Call,
    input: &Input,
) -> Result<Outcome> {
    let called = AssertUnwindSafe(handler).catch_unwind().await;
    let called = called.unwrap_or_else(|_| Err(Error::internal("the handler panicked")));
    called.or_else(|error| allow_empty_list(error, parts, call, input))
}

/// Whether a wrapping token reads its response from `cubbyhole/response`, the deprecated alternative to
/// `sys/wrapping/unwrap`.
fn reads_wrapped_response(parts: &AuthorizedParts, mounted: &Mounted) -> bool {
    mounted.traits.per_token && parts.caller.token.as_ref().is_some_and(|token| token.record.wrapping)
}

/// The input with the page limit of a policy, which replaces a larger or missing one.
fn with_limit(input: &Input, limit: u64) -> Input {
    // A body wins over the query, so a limit in it must go as well.
    let (mut query, body) = (input.query.clone(), input.body.clone().without("limit"));
    query.set("limit", limit.to_string());
    Input { captures: input.captures.clone(), query, body }
}

fn json_document<T: Serialize>(document: &T) -> Result<ResponseContent> {
    let body = serde_json::to_vec(document)?;
    Ok(ResponseContent::Raw(Raw { status: Status::OK, content_type: "application/json", body, headers: Vec::new() }))
}

/// Adds the warnings of the handler, and one of ignored and one of replaced parameters.
fn add_warnings(envelope: &mut Envelope, warnings: Vec<String>, call: &Call, input: &Input) {
    let is_empty = envelope.is_empty() && warnings.is_empty();
    envelope.warnings.extend(warnings);
    // The response of a rewrap belongs to another endpoint.
    if envelope.wrap.is_some() {
        return;
    }
    // A request that starts background work gets no warning of parameters, as on OpenBao.
    if is_empty || envelope.status.is_some_and(|status| status.sent.0 == 202 || status.sent.0 >= 400) {
        return;
    }
    if call.operation().takes_whole_body() {
        return;
    }
    let unknown = unknown_parameters(call, input);
    if !unknown.is_empty() {
        envelope.warnings.push(format!("Endpoint ignored these unrecognized parameters: [{}]", unknown.join(" ")));
    }
    let replaced = input.replaced();
    if !replaced.is_empty() {
        envelope.warnings.push(format!(
            "Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [{}]",
            replaced.join(" ")
        ));
    }
}

/// The parameters that the endpoint does not have.
fn unknown_parameters<'i>(call: &Call, input: &'i Input) -> Vec<&'i str> {
    input.unknown(|name| call.operation().knows(name))
}

/// As on OpenBao an empty list with warnings is 200, and not 404.
fn allow_empty_list(error: Error, parts: &AuthorizedParts, call: &Call, input: &Input) -> Result<Outcome> {
    let lists = call.request.operation.lists();
    let is_empty = error.kind() == ErrorKind::NotFound && error.warnings().is_empty() && error.reason().is_none();
    match (lists && is_empty, parts.routed.incoming.wrap_ttl.is_some_and(|ttl| !ttl.is_zero())) {
        (true, _) if !unknown_parameters(call, input).is_empty() => {}
        // There is no response to wrap.
        (true, true) => return Err(Error::unsupported_path().without_frame()),
        _ => return Err(error),
    }
    Ok(Outcome::of(serde_json::value::to_raw_value(&serde_json::json!({}))?))
}
