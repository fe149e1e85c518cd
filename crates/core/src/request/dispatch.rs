//! Runs the handler and settles what its answer obliges us to, in one transaction.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::cx::{Caller, Claim, LastStep, Request};
use keepfast_framework::reply::Raw;
use keepfast_framework::{Cx, Error, ErrorKind, Input, Operation, Outcome, Result, Status, help};
use keepfast_storage::{StorageError, Tx};

use super::authenticate::Known;
use super::authorize::AuthorizedParts;
use super::envelope::Envelope;
use super::record::{Recorded, Sent};
use super::route::Routed;
use super::{OpenCeremonies, Refused};
use crate::audit::Said;
use crate::metrics::routes::RouteOperation;
use crate::mount::Mounted;
use crate::mount::permit::RequestPermit;
use crate::policy::store::CompiledAcl;
use crate::token::Token;
use crate::unsealed::Unsealed;
use crate::wrapping::UseOf;

/// How often a request runs again after conflicts before it fails.
const TRIES: usize = 64;

/// What whoever reads `cubbyhole/response` is told.
const USE_UNWRAP: &str = "Reading from 'cubbyhole/response' is deprecated. Please use sys/wrapping/unwrap to unwrap responses, \
                          as it provides additional security checks and other benefits.";

/// A request that has run, or was refused, with its outcome.
pub(crate) struct Answered {
    routed: Routed,
    known: Known,
    said: Said,
    outcome: Result<Sent>,
    last_step: Option<LastStep>,
}

impl Answered {
    /// The outcome of a refused request.
    pub(super) fn refused(refused: Refused) -> Self {
        let Refused { routed, known, said, error } = refused;
        Answered { routed, known, said, outcome: Err(error), last_step: None }
    }

    pub(super) fn into_parts(self) -> (Routed, Known, Said, Result<Sent>, Option<LastStep>) {
        (self.routed, self.known, self.said, self.outcome, self.last_step)
    }
}

/// What core's own engines know of a call beyond what every engine may.
pub(crate) struct CoreCall {
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
    pub(super) async fn dispatch(&self, recorded: Recorded) -> Answered {
        let (parts, said) = recorded.into_parts();
        let (outcome, last_step) = match self.run(&parts).await {
            Ok((sent, last_step)) => (Ok(sent), last_step),
            Err(error) => (Err(error), None),
        };
        Answered { routed: parts.routed, known: parts.known, said, outcome, last_step }
    }

    async fn run(&self, parts: &AuthorizedParts) -> Result<(Sent, Option<LastStep>)> {
        let routed = &parts.routed;
        if let Some(refusal) = routed.unsupported() {
            return Err(refusal);
        }
        let Some((mounted, within)) = &routed.mount else { return Err(Error::unsupported_path()) };
        if routed.incoming.operation == Operation::Help {
            return self.help(mounted, within, routed).map(|sent| (sent, None));
        }
        let Some(found) = &routed.row else { return Err(Error::unsupported_path()) };
        let input = self.input(parts, found);
        let begun = self.clock.now();
        let mut creates = false;
        let outcome = self.attempts(parts, mounted, &input, &mut creates).await;
        if let Some(operation) = RouteOperation::of(routed.incoming.operation, creates) {
            mounted.timings.record(operation, self.clock.now().since(begun));
        }
        outcome
    }

    /// Runs the handler, again after conflicts; `creates` becomes whether it made what it had not found.
    async fn attempts(
        &self,
        parts: &AuthorizedParts,
        mounted: &Arc<Mounted>,
        input: &Input,
        creates: &mut bool,
    ) -> Result<(Sent, Option<LastStep>)> {
        let routed = &parts.routed;
        for _ in 0..TRIES {
            match self.attempt(parts, mounted, input, creates).await {
                Err(error) if error.is_conflict() && !routed.info().is_some_and(|row| row.once) => {}
                other => return other.map_err(|error| routed.plainly(error)),
            }
        }
        Err(Error::internal(StorageError::Conflict))
    }

    /// One run of the handler, settled and committed.
    async fn attempt(
        &self,
        parts: &AuthorizedParts,
        mounted: &Arc<Mounted>,
        input: &Input,
        creates: &mut bool,
    ) -> Result<(Sent, Option<LastStep>)> {
        let (Some(found), Some(row)) = (&parts.routed.row, parts.routed.info()) else {
            return Err(Error::unsupported_path());
        };
        let operation = parts.routed.incoming.operation;
        let engine = match mounted.opened() {
            Some(engine) => engine,
            None => Box::pin(mounted.engine(self)).await?,
        };
        let mut cx = self.request_context(parts, mounted, row.once);
        if mounted.entry.engine == "cubbyhole" {
            Box::pin(self.hold_store(&mut cx, parts)).await?;
        }
        // A handler that panics fails its own request, which is recorded like any other.
        let called =
            AssertUnwindSafe(engine.call(&parts.permit, found, operation, &mut cx, input)).catch_unwind().await;
        let called = called.unwrap_or_else(|_| Err(Error::internal("the handler panicked")));
        let called = called.or_else(|error| warned_of(error, parts, input));
        let mut outcome = match cx.take_claim() {
            Some(claim) if mounted.entry.auth => Box::pin(self.judge_claim(mounted, claim, called)).await?,
            _ => called?,
        };
        let done = cx.into_parts();
        if done.checkpointed && outcome.lease.is_some() {
            return Err(Error::internal("a lease must be offered before the handler acts"));
        }
        let intent = outcome.intent.take();
        let mut tx = done.tx;
        *creates = row.tells_existence && tx.creates();
        if !parts.decision.keys_filters.is_empty() {
            self.filter_keys(parts, &mut outcome)?;
        }
        if reads_wrapped(parts, mounted) {
            Box::pin(self.take_wrapped(&mut tx, parts)).await?;
        }
        let settled = self.settle(&mut tx, parts, mounted, outcome, intent.as_deref()).await?;
        if !done.checkpointed && tx.is_dirty() {
            Box::pin(self.mounts.hold(&mut tx, &mounted.entry)).await?;
        }
        let mut envelope = match settled {
            Sent::Raw(raw) => {
                let sent = match parts.routed.incoming.wrap_ttl {
                    Some(_) => Box::pin(self.wrap_raw_if_asked(&mut tx, parts, raw)).await?,
                    None => Sent::Raw(raw),
                };
                tx.commit().await?;
                done.after_commit.into_iter().for_each(|action| action());
                return Ok((sent, done.last_step));
            }
            Sent::Envelope(envelope) => envelope,
        };
        if reads_wrapped(parts, mounted) {
            envelope.warnings.push(USE_UNWRAP.to_owned());
        }
        self.add_warnings(&mut envelope, done.warnings, parts, input);
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
        Ok((Sent::Envelope(envelope), done.last_step))
    }

    /// What comes of a login at a user, who may be locked out.
    async fn judge_claim(&self, mounted: &Mounted, claim: Claim, outcome: Result<Outcome>) -> Result<Outcome> {
        let now = self.clock.now();
        let verdict = self.lockout.judge(&mounted.entry, claim, &self.settings, now, outcome);
        if let Some(change) = verdict.changed {
            // In a transaction of its own: that of a failed login writes nothing.
            Box::pin(self.lockout.store(&mounted.entry.accessor, change, now)).await?;
        }
        verdict.outcome
    }

    /// A write to a token's own storage holds only if the token is still there at the commit; else it would stay behind.
    async fn hold_store(&self, cx: &mut Cx, parts: &AuthorizedParts) -> Result<()> {
        let operation = parts.routed.incoming.operation;
        let key = parts.known.token.as_ref().and_then(|t| t.key.as_ref());
        if let Some(key) = key.filter(|_| matches!(operation, Operation::Update | Operation::Patch)) {
            self.tokens.record(cx.store().0, key).await?.ok_or_else(Error::denied)?;
        }
        Ok(())
    }

    /// Ends the wrapping token that reads what it keeps, or refuses it: somebody else has taken the answer.
    async fn take_wrapped(&self, tx: &mut Tx, parts: &AuthorizedParts) -> Result<()> {
        let known = &parts.known;
        match known.token.as_ref().and_then(|token| token.key.as_ref().map(|key| (token, key))) {
            Some((token, key)) if known.last_use => self.take(tx, key, token, UseOf::Authentication).await,
            _ => Err(Error::denied()),
        }
    }

    fn request_context(&self, parts: &AuthorizedParts, mounted: &Arc<Mounted>, once: bool) -> Cx {
        let incoming = &parts.routed.incoming;
        let reads = incoming.operation == Operation::Read || incoming.operation.lists();
        let read_only = reads && !once && incoming.wrap_ttl.is_none() && !reads_wrapped(parts, mounted);
        let tx = if read_only { self.barrier.begin_read() } else { self.barrier.begin() };
        let caller = parts.compiled.as_ref().map_or_else(|| Arc::new(Caller::default()), |c| c.caller.clone());
        let request = Request {
            id: incoming.id.clone(),
            operation: incoming.operation,
            path: incoming.path.as_str().to_owned(),
            remote: incoming.remote.map(|a| a.ip()),
        };
        let mut cx = Cx::new(
            self.barrier.clone(),
            tx,
            mounted.view.clone(),
            mounted.info.clone(),
            self.clock.clone(),
            caller,
            Arc::new(request),
        )
        .with_services(self.services.clone());
        if once {
            cx = cx.once().with_lessor(Arc::new(self.desk(parts, mounted)));
        }
        if matches!(mounted.entry.engine.as_str(), "system" | "token") {
            cx = cx.with_core(Arc::new(CoreCall {
                permit: parts.permit.clone(),
                token: parts.known.token.clone(),
                last_use: parts.known.last_use,
                id: incoming.token.clone(),
                compiled: parts.compiled.clone(),
                wraps: incoming.wrap_ttl.is_some(),
                open: incoming.open,
                accepts_prometheus: incoming.accepts_prometheus,
            }));
        }
        cx
    }

    /// The captures, query and body; a policy's page limit stands in for a larger or missing one.
    fn input(&self, parts: &AuthorizedParts, found: &keepfast_framework::routes::Match) -> Input {
        let incoming = &parts.routed.incoming;
        let (mut query, mut body) = (incoming.query.clone(), incoming.body.clone());
        if let Some(limit) = parts.decision.limit {
            // A body wins over the query, so a limit in it must go as well.
            body = body.without("limit");
            query.set("limit", limit.to_string());
        }
        Input { captures: found.captures.clone(), query, body }
    }

    fn help(&self, mounted: &Mounted, within: &str, routed: &Routed) -> Result<Sent> {
        let version = &self.settings.version;
        let text = match routed.info() {
            Some(row) if !within.is_empty() => help::row(version, row, within),
            _ => help::root(version, &mounted.table),
        };
        let body = serde_json::to_vec(&text)?;
        Ok(Sent::Raw(Raw { status: Status::OK, content_type: "application/json", body }))
    }

    /// Leaves out the names that the policy's filter does not show.
    fn filter_keys(&self, parts: &AuthorizedParts, outcome: &mut Outcome) -> Result<()> {
        let (Some(compiled), Some(data)) = (&parts.compiled, &outcome.data) else { return Ok(()) };
        let mut value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(data.get())?;
        let path = parts.routed.judged_path();
        let now = self.clock.now();
        let shows = |name: &str| compiled.acl.shows(&parts.decision, &path, name, now);
        if let Some(serde_json::Value::Array(keys)) = value.get_mut("keys") {
            keys.retain(|k| k.as_str().is_some_and(shows));
        }
        if let Some(serde_json::Value::Object(info)) = value.get_mut("key_info") {
            info.retain(|name, _| shows(name));
        }
        outcome.data = Some(serde_json::value::to_raw_value(&value)?);
        Ok(())
    }

    /// The handler's warnings, and what it did not look at.
    fn add_warnings(&self, envelope: &mut Envelope, warnings: Vec<String>, parts: &AuthorizedParts, input: &Input) {
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
        if parts.routed.takes_whole_body() {
            return;
        }
        let unknown = unknown_parameters(parts, input);
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
}

/// Whether a wrapping token takes what it keeps by the old way, which leaves the check of the token out.
fn reads_wrapped(parts: &AuthorizedParts, mounted: &Mounted) -> bool {
    mounted.entry.engine == "cubbyhole" && parts.known.token.as_ref().is_some_and(|token| token.record.wrapping)
}

/// The parameters that the endpoint does not have.
fn unknown_parameters<'i>(parts: &AuthorizedParts, input: &'i Input) -> Vec<&'i str> {
    let operation = parts.routed.incoming.operation;
    let known = parts.routed.info().and_then(|row| row.operation(operation));
    known.map(|known| input.unknown(|name| known.knows(name))).unwrap_or_default()
}

/// An empty list is no 404 where there is something to warn of: then there is an answer, as with the peer.
fn warned_of(error: Error, parts: &AuthorizedParts, input: &Input) -> Result<Outcome> {
    let lists = parts.routed.incoming.operation.lists();
    let is_empty = error.kind() == ErrorKind::NotFound && error.warnings().is_empty() && error.reason().is_none();
    match (lists && is_empty, parts.routed.incoming.wrap_ttl.is_some_and(|ttl| !ttl.is_zero())) {
        (true, _) if !unknown_parameters(parts, input).is_empty() => {}
        // There is no answer to wrap.
        (true, true) => return Err(Error::unsupported_path().without_frame()),
        _ => return Err(error),
    }
    Ok(Outcome { data: Some(serde_json::value::to_raw_value(&serde_json::json!({}))?), ..Outcome::default() })
}
