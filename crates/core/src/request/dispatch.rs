//! Runs the handler and settles what its answer obliges us to, in one transaction.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::cx::{Caller, LastStep};
use keepfast_framework::reply::Raw;
use keepfast_framework::{
    Cx, Error, ErrorKind, Incoming, Input, Login, LoginAttempt, OpenCeremonies, Operation, Outcome, Result, Status,
    help,
};
use keepfast_storage::{StorageError, Tx};
use serde::Serialize;

use super::Refused;
use super::authenticate::RequestCaller;
use super::authorize::AuthorizedParts;
use super::envelope::{Answer, Envelope};
use super::record::Recorded;
use super::route::{Call, Target};
use crate::audit::Said;
use crate::metrics::routes::RouteOperation;
use crate::mount::Mounted;
use crate::mount::permit::RequestPermit;
use crate::policy::store::CompiledAcl;
use crate::token::Token;
use crate::unsealed::Unsealed;
use crate::wrapping::{USE_UNWRAP, UseOf};

/// How often a request runs again after conflicts before it fails.
const TRIES: usize = 64;

/// A request that has run, or was refused, with its outcome.
pub(crate) struct Answered(AnsweredParts);

/// An [`Answered`] taken apart, for its record.
pub(super) struct AnsweredParts {
    pub(super) incoming: Box<Incoming>,
    /// The mount that its path leads to, for the audit entry.
    pub(super) mounted: Option<Arc<Mounted>>,
    pub(super) caller: RequestCaller,
    pub(super) said: Said,
    pub(super) outcome: Result<Answer>,
    pub(super) last_step: Option<LastStep>,
}

impl Answered {
    /// The outcome of a refused request.
    pub(super) fn refused(refused: Refused) -> Self {
        let Refused { routed, caller, said, error } = refused;
        let mounted = routed.destination.mounted().cloned();
        let incoming = routed.incoming;
        Answered(AnsweredParts { incoming, mounted, caller, said, outcome: Err(error), last_step: None })
    }

    pub(super) fn into_parts(self) -> AnsweredParts {
        self.0
    }
}

/// What core's own engines know of a call beyond what every engine may.
pub(crate) struct CoreCall {
    /// The unsealed server that authorized it.
    pub(crate) unsealed: Arc<Unsealed>,
    /// Lets the engine of a renewed lease or token run.
    pub(crate) permit: RequestPermit,
    /// The caller's token.
    pub(crate) token: Option<Arc<Token>>,
    /// Whether authentication has spent its last use.
    pub(crate) last_use: bool,
    /// Its text.
    pub(crate) id: Option<SecretString>,
    /// What the caller may do.
    pub(crate) compiled: Option<Arc<CompiledAcl>>,
    /// Whether the answer is to be wrapped.
    pub(crate) wraps: bool,
    /// What the listener lets in without a token.
    pub(crate) open: OpenCeremonies,
    /// Whether the request's `Accept` names a form that Prometheus reads.
    pub(crate) accepts_prometheus: bool,
}

impl Unsealed {
    /// Runs a recorded request.
    pub(super) async fn dispatch(self: &Arc<Self>, recorded: Recorded) -> Answered {
        let (parts, said) = recorded.into_parts();
        let (outcome, last_step) = match self.run(&parts).await {
            Ok((answer, last_step)) => (Ok(answer), last_step),
            Err(error) => (Err(error), None),
        };
        let mounted = Some(parts.routed.destination.mounted().clone());
        let (incoming, caller) = (parts.routed.incoming, parts.caller);
        Answered(AnsweredParts { incoming, mounted, caller, said, outcome, last_step })
    }

    async fn run(self: &Arc<Self>, parts: &AuthorizedParts) -> Result<(Answer, Option<LastStep>)> {
        let routed = &parts.routed;
        let version = &self.settings.version;
        let call = match &routed.destination {
            Target::Row(call) => call,
            Target::RowHelp(mounted, row) => {
                let text = help::row(version, &mounted.table.rows()[*row], routed.path_within());
                return Ok((json_document(&text)?, None));
            }
            Target::MountHelp(mounted) => return Ok((json_document(&help::root(version, &mounted.table))?, None)),
            Target::UnsupportedOperation(..) => return Err(routed.worded(Error::unsupported_operation())),
            Target::UnsupportedPath(_) => return Err(routed.worded(Error::unsupported_path())),
        };
        let input = &routed.incoming.input;
        let limited = parts.decision.limit.map(|limit| Box::new(with_limit(input, limit)));
        let input = limited.as_deref().unwrap_or(input);
        let begun = self.clock.now();
        let mut creates = false;
        let outcome = self.attempts(parts, call, input, &mut creates).await;
        if let Some(operation) = RouteOperation::of(routed.incoming.operation, creates) {
            call.mounted.timings.record(operation, self.clock.now().since(begun));
        }
        outcome
    }

    /// Runs the handler, again after conflicts; `creates` becomes whether it made what it had not found.
    async fn attempts(
        self: &Arc<Self>,
        parts: &AuthorizedParts,
        call: &Call,
        input: &Input,
        creates: &mut bool,
    ) -> Result<(Answer, Option<LastStep>)> {
        for _ in 0..TRIES {
            match self.attempt(parts, call, input, creates).await {
                Err(error) if error.is_conflict() && !call.row().once => {}
                other => return other.map_err(|error| parts.routed.worded(error)),
            }
        }
        Err(Error::internal(StorageError::Conflict))
    }

    /// One run of the handler, settled and committed.
    async fn attempt(
        self: &Arc<Self>,
        parts: &AuthorizedParts,
        call: &Call,
        input: &Input,
        creates: &mut bool,
    ) -> Result<(Answer, Option<LastStep>)> {
        let mounted = &call.mounted;
        let operation = call.request.operation;
        let engine = match mounted.opened() {
            Some(engine) => engine,
            None => Box::pin(mounted.engine(&self.host)).await?,
        };
        let mut cx = self.request_context(parts, call);
        if mounted.traits.per_token {
            Box::pin(self.hold_store(&mut cx, parts)).await?;
        }
        // A handler that panics fails its own request, which is recorded like any other.
        let called =
            AssertUnwindSafe(engine.call(&parts.permit, call.row, operation, &mut cx, input)).catch_unwind().await;
        let called = called.unwrap_or_else(|_| Err(Error::internal("the handler panicked")));
        let called = called.or_else(|error| warned_of(error, parts, call, input));
        let mut outcome = called?;
        let login = match outcome.login.take() {
            Some(attempt) => Some(Box::pin(self.judge_login(mounted, *attempt)).await?),
            None => None,
        };
        let done = cx.into_parts();
        if done.checkpointed && outcome.lease.is_some() {
            return Err(Error::internal("a lease must be offered before the handler acts"));
        }
        let intent = outcome.intent.take();
        let mut tx = done.tx;
        *creates = call.row().tells_existence && tx.creates();
        if !parts.decision.keys_filters.is_empty() {
            self.filter_keys(parts, &mut outcome)?;
        }
        if reads_wrapped(parts, mounted) {
            Box::pin(self.take_wrapped(&mut tx, parts)).await?;
        }
        let settled = self.settle(&mut tx, parts, mounted, (outcome, login), intent.as_deref()).await?;
        if !done.checkpointed && tx.is_dirty() {
            Box::pin(self.mounts.hold(&mut tx, mounted)).await?;
        }
        let mut envelope = match settled {
            Answer::Raw(raw) => {
                let answer = match parts.routed.incoming.wrap_ttl {
                    Some(_) => Box::pin(self.wrap_raw_if_asked(&mut tx, parts, raw)).await?,
                    None => Answer::Raw(raw),
                };
                tx.commit().await?;
                done.after_commit.into_iter().for_each(|action| action());
                return Ok((answer, done.last_step));
            }
            Answer::Envelope(envelope) => envelope,
        };
        if reads_wrapped(parts, mounted) {
            envelope.warnings.push(USE_UNWRAP.to_owned());
        }
        add_warnings(&mut envelope, done.warnings, call, input);
        if parts.routed.incoming.wrap_ttl.is_some() {
            Box::pin(self.wrap_if_asked(&mut tx, parts, &mut envelope)).await?;
        }
        match tx.commit().await {
            Err(StorageError::Conflict) if done.checkpointed => {
                return Err(Error::internal("a conflict after a checkpoint"));
            }
            other => other?,
        };
        if let Some(intent) = intent {
            intent.keep();
        }
        done.after_commit.into_iter().for_each(|action| action());
        Ok((Answer::Envelope(envelope), done.last_step))
    }

    /// The login, unless it or the lockout of its user refuses it. In a box: few requests log in.
    async fn judge_login(&self, mounted: &Mounted, attempt: LoginAttempt) -> Result<Box<Login>> {
        let LoginAttempt { alias, outcome } = attempt;
        let now = self.clock.now();
        let outcome = outcome.map(Box::new);
        let verdict = self.lockout.judge(&mounted.entry, alias, &self.settings, now, outcome);
        if let Some(change) = verdict.changed {
            // In a transaction of its own: that of a failed login writes nothing.
            Box::pin(self.lockout.store(&mounted.entry.accessor, change, now)).await?;
        }
        verdict.outcome
    }

    /// A write to a token's own storage holds only if the token is still there at the commit; else it would stay behind.
    async fn hold_store(&self, cx: &mut Cx, parts: &AuthorizedParts) -> Result<()> {
        let operation = parts.routed.incoming.operation;
        let key = parts.caller.token.as_ref().and_then(|t| t.key.as_ref());
        if let Some(key) = key.filter(|_| matches!(operation, Operation::Update | Operation::Patch)) {
            self.tokens.record(cx.store().0, key).await?.ok_or_else(Error::denied)?;
        }
        Ok(())
    }

    /// Ends the wrapping token that reads what it keeps, or refuses it: somebody else has taken the answer.
    async fn take_wrapped(&self, tx: &mut Tx, parts: &AuthorizedParts) -> Result<()> {
        let caller = &parts.caller;
        match caller.token.as_ref().and_then(|token| token.key.as_ref().map(|key| (token, key))) {
            Some((token, key)) if caller.last_use => self.wrapper.take(tx, key, token, UseOf::Authentication).await,
            _ => Err(Error::denied()),
        }
    }

    /// The context of a call of an engine.
    pub(super) fn handler_context(&self, call: &Call, tx: Tx, caller: Arc<Caller>) -> Cx {
        Cx::new(
            self.barrier.clone(),
            tx,
            call.mounted.view.clone(),
            call.mounted.info.clone(),
            self.clock.clone(),
            caller,
            call.request.clone(),
        )
    }

    fn request_context(self: &Arc<Self>, parts: &AuthorizedParts, call: &Call) -> Cx {
        let (incoming, mounted, once) = (&parts.routed.incoming, &call.mounted, call.row().once);
        let reads = incoming.operation == Operation::Read || incoming.operation.lists();
        let read_only = reads && !once && incoming.wrap_ttl.is_none() && !reads_wrapped(parts, mounted);
        let tx = if read_only { self.barrier.begin_read().refusing_writes() } else { self.barrier.begin() };
        let caller = parts.compiled.as_ref().map_or_else(|| Arc::new(Caller::default()), |c| c.caller.clone());
        let mut cx = self.handler_context(call, tx, caller).with_services(self.host.services.clone());
        if once {
            cx = cx.once().with_lessor(Arc::new(self.desk(parts, mounted)));
        }
        if mounted.traits.in_core {
            cx = cx.with_core(Arc::new(CoreCall {
                unsealed: self.clone(),
                permit: parts.permit.clone(),
                token: parts.caller.token.clone(),
                last_use: parts.caller.last_use,
                id: incoming.token.clone(),
                compiled: parts.compiled.clone(),
                wraps: incoming.wrap_ttl.is_some(),
                open: incoming.open,
                accepts_prometheus: incoming.accepts_prometheus,
            }));
        }
        cx
    }

    /// Leaves out the names that the policy's filter does not show.
    fn filter_keys(&self, parts: &AuthorizedParts, outcome: &mut Outcome) -> Result<()> {
        let (Some(compiled), Some(data)) = (&parts.compiled, &outcome.data) else { return Ok(()) };
        let mut value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(data.get())?;
        let path = parts.routed.judged_path();
        let now = self.clock.now();
        let shows = |name: &str| compiled.acl.shows(&parts.decision, path, name, now);
        if let Some(serde_json::Value::Array(keys)) = value.get_mut("keys") {
            keys.retain(|k| k.as_str().is_some_and(shows));
        }
        if let Some(serde_json::Value::Object(info)) = value.get_mut("key_info") {
            info.retain(|name, _| shows(name));
        }
        outcome.data = Some(serde_json::value::to_raw_value(&value)?);
        Ok(())
    }
}

/// Whether a wrapping token takes what it keeps by the old way, which leaves the check of the token out.
fn reads_wrapped(parts: &AuthorizedParts, mounted: &Mounted) -> bool {
    mounted.traits.per_token && parts.caller.token.as_ref().is_some_and(|token| token.record.wrapping)
}

/// The input with a policy's page limit, which stands in for a larger or missing one.
fn with_limit(input: &Input, limit: u64) -> Input {
    // A body wins over the query, so a limit in it must go as well.
    let (mut query, body) = (input.query.clone(), input.body.clone().without("limit"));
    query.set("limit", limit.to_string());
    Input { captures: input.captures.clone(), query, body }
}

fn json_document<T: Serialize>(document: &T) -> Result<Answer> {
    let body = serde_json::to_vec(document)?;
    Ok(Answer::Raw(Raw { status: Status::OK, content_type: "application/json", body }))
}

/// The handler's warnings, and what it did not look at.
fn add_warnings(envelope: &mut Envelope, warnings: Vec<String>, call: &Call, input: &Input) {
    let nothing_to_say = envelope.is_empty() && warnings.is_empty();
    envelope.warnings.extend(warnings);
    // What was wrapped anew is another endpoint's answer.
    if envelope.wrap.is_some() {
        return;
    }
    // Who begins work that goes on is not warned of parameters, as with OpenBao.
    if nothing_to_say || envelope.status.is_some_and(|s| s.0 == 202 || s.0 >= 400) {
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

/// OpenBao answers an empty list with 200 and warnings, and not with 404, where there is something to warn of.
fn warned_of(error: Error, parts: &AuthorizedParts, call: &Call, input: &Input) -> Result<Outcome> {
    let lists = call.request.operation.lists();
    let is_empty = error.kind() == ErrorKind::NotFound && error.warnings().is_empty() && error.reason().is_none();
    match (lists && is_empty, parts.routed.incoming.wrap_ttl.is_some_and(|ttl| !ttl.is_zero())) {
        (true, _) if !unknown_parameters(call, input).is_empty() => {}
        // There is no answer to wrap.
        (true, true) => return Err(Error::unsupported_path().without_frame()),
        _ => return Err(error),
    }
    Ok(Outcome { data: Some(serde_json::value::to_raw_value(&serde_json::json!({}))?), ..Outcome::default() })
}
