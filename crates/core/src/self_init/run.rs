//! The task that initializes the storage by the stanzas, or goes on where an earlier attempt ended.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Error, Result, Status};

use super::gate::{Phase, SelfInit};
use super::history::History;
use super::plan::{PlannedRequest, SelfInitPlan, SourceValues};
use super::send::{self, BuiltRequest, Sent};
use super::state::{FailedRequest, SelfInitState, load_responses};
use super::value::Inputs;
use crate::init::{self, Initialized};
use crate::lifecycle::Lifecycle;
use crate::namespace::NamespaceId;
use crate::token::Authority;
use crate::token::create::Spec;
use crate::token::record::FIRST_TOKEN_PATH;
use crate::unseal::by_seals;
use crate::unsealed::Unsealed;

/// The longest pause between attempts to initialize the storage.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The most bytes of a response that is stored for later requests.
const MAX_KEPT: usize = 256 << 10;

/// The result of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// There is nothing to do here and now.
    Idle,
    /// All requests are done.
    Finished,
    /// A request failed, or the stanzas cannot run.
    Failed,
}

/// Starts the task.
pub(crate) fn start(lifecycle: &Arc<Lifecycle>) {
    tokio::spawn(run(Arc::downgrade(lifecycle)));
}

/// Whether this node initializes its storage by stanzas, and not on request.
pub(crate) fn initializes(server: &Lifecycle) -> bool {
    !server.self_init.plan().is_empty() && server.parts.settings.join.retry.is_empty()
}

async fn run(lifecycle: Weak<Lifecycle>) {
    let (mut pauses, has_warned) = (0u32, AtomicBool::new(false));
    loop {
        let Some(server) = lifecycle.upgrade() else { return };
        let (self_init, clock) = (server.self_init.clone(), server.parts.clock.clone());
        let attempt = attempt(&server, &has_warned).await;
        // The server may end while this task waits.
        drop(server);
        match attempt {
            Ok(Attempt::Idle | Attempt::Finished) => {
                pauses = 0;
                tokio::select! {
                    () = self_init.wake.notified() => {}
                    () = self_init.retry.notified() => has_warned.store(false, Ordering::Relaxed),
                }
            }
            Ok(Attempt::Failed) => {
                pauses = 0;
                // The unseal of this attempt begins no other one.
                let _ = self_init.wake.notified().now_or_never();
                tokio::select! {
                    () = self_init.wake.notified() => {}
                    () = self_init.retry.notified() => {}
                }
            }
            Err(error) => {
                let pause = MAX_PAUSE.min(Duration::from_secs(2_u64.saturating_pow(pauses)));
                pauses = pauses.saturating_add(1);
                let cause = error.cause().map(ToString::to_string).unwrap_or_default();
                tracing::error!(%error, cause, seconds = pause.as_secs(), "self-initialization is tried again");
                tokio::select! {
                    () = clock.sleep_until(clock.now().after(pause)) => {}
                    () = self_init.wake.notified() => {}
                    () = self_init.retry.notified() => {}
                }
            }
        }
    }
}

/// Does what is to be done now. `has_warned` is set after the warning that the stanzas have no effect.
///
/// Fails when storage fails, or no seal works: then it may be tried again.
pub(super) async fn attempt(server: &Arc<Lifecycle>, has_warned: &AtomicBool) -> Result<Attempt> {
    let plan = server.self_init.plan();
    if server.parts.seal_config().await?.is_none() {
        if server.self_init.may_take_effect.load(Ordering::Relaxed) {
            tracing::error!("self-initialization: the server must be restarted, and goes on then");
            return Ok(Attempt::Failed);
        }
        return match initializes(server) {
            true => initialize(server, &plan).await,
            false => Ok(Attempt::Idle),
        };
    }
    let Some(unsealed) = leading(server) else { return Ok(Attempt::Idle) };
    let warns = |text: &str| {
        if !plan.is_empty() && !has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("{text}");
        }
    };
    match SelfInitState::load(&unsealed.barrier).await? {
        None => warns("the initialize stanzas have no effect: the server is initialized without them"),
        Some(state) if !state.is_unfinished() => {
            publish_recovery(&plan, &state).await;
            if state.stanzas != plan.digest() {
                warns("the initialize stanzas have changed since the self-initialization: they have no effect");
            }
        }
        Some(state) => return resume(server, &unsealed, &plan, state).await,
    }
    Ok(Attempt::Idle)
}

/// The services of this node if it leads and has taken over.
fn leading(server: &Lifecycle) -> Option<Arc<Unsealed>> {
    let membership = &server.parts.membership;
    let leads = membership.is_active() && (membership.with_others().is_none() || membership.taken_over.is_set());
    server.unsealed().filter(|_| leads)
}

/// Initializes the storage, and sends the requests.
async fn initialize(server: &Arc<Lifecycle>, plan: &Arc<SelfInitPlan>) -> Result<Attempt> {
    let Some(sources) = checked(server, plan, None).await else { return Ok(Attempt::Failed) };
    tracing::info!(requests = plan.requests.len(), "self-initialization begins");
    let root_token = match init::initialize_by(server, plan).await {
        Ok(Initialized { root_token, .. }) => root_token,
        Err(error) if init::may_take_effect(&error) => {
            server.self_init.may_take_effect.store(true, Ordering::Relaxed);
            let cause = error.cause().map(ToString::to_string).unwrap_or_default();
            tracing::error!(%error, cause, "self-initialization has ended: restart the server");
            return Ok(Attempt::Failed);
        }
        Err(error) => return Err(error),
    };
    if let Some(config) = server.parts.seal_config().await? {
        by_seals::warn_without_shares(&config);
    }
    let Some(unsealed) = leading(server) else { return Ok(Attempt::Idle) };
    let Some(state) = SelfInitState::load(&unsealed.barrier).await? else { return Ok(Attempt::Idle) };
    publish_recovery(plan, &state).await;
    let history = History::default();
    let (token, may_be_sent, undone) = (root_token, false, BTreeSet::new());
    SelfInitRun { server, unsealed, plan, sources, history, state, token, may_be_sent, undone }.complete().await
}

/// Goes on after an attempt that did not finish, with a new root token.
async fn resume(
    server: &Arc<Lifecycle>,
    unsealed: &Arc<Unsealed>,
    plan: &Arc<SelfInitPlan>,
    mut state: SelfInitState,
) -> Result<Attempt> {
    let self_init = &server.self_init;
    if plan.is_empty() {
        tracing::error!(
            "the self-initialization is not finished, and the configuration has no initialize stanzas: the server handles no requests"
        );
        return end_early(server, unsealed, state).await;
    }
    publish_recovery(plan, &state).await;
    let mut history = History::default();
    load_responses(&unsealed.barrier, &mut history).await?;
    // Their tokens and leases were revoked with the root token, or are now.
    let mut done = state.done.clone();
    let undone = plan.undo(&mut done, |name| history.has_token_or_lease(name));
    let Some(sources) = checked(server, plan, Some(&done)).await else {
        return end_early(server, unsealed, state).await;
    };
    state.done = done;
    if let Some(failed) = &state.failed {
        tracing::info!(request = failed.name, status = failed.status, "the last attempt ended with this request");
    }
    // A kill of this attempt leaves no failure behind.
    let may_be_sent = state.failed.take().is_none();
    self_init.set_phase(Phase::InProgress);
    let token = new_root_token(unsealed, &mut state, plan.digest()).await?;
    tracing::info!(requests = plan.requests.len(), done = state.done.len(), "self-initialization goes on");
    let unsealed = unsealed.clone();
    SelfInitRun { server, unsealed, plan, sources, history, state, token, may_be_sent, undone }.complete().await
}

/// Ends an attempt that cannot begin. The root tokens of earlier ones are revoked nevertheless.
async fn end_early(server: &Lifecycle, unsealed: &Unsealed, mut state: SelfInitState) -> Result<Attempt> {
    server.self_init.set_phase(Phase::Failed);
    if !state.tokens.is_empty() {
        revoke_tokens(unsealed, &mut state).await?;
        state.commit(&unsealed.barrier, None).await?;
    }
    Ok(Attempt::Failed)
}

/// The values of the sources of the requests that are not done, all at the first attempt; `None` when one cannot be read,
/// which is logged.
async fn checked(
    server: &Lifecycle,
    plan: &Arc<SelfInitPlan>,
    done: Option<&BTreeSet<String>>,
) -> Option<SourceValues> {
    let (self_init, plan) = (server.self_init.clone(), plan.clone());
    let (is_first, done) = (done.is_none(), done.cloned().unwrap_or_default());
    let read = tokio::task::spawn_blocking(move || {
        let values = plan.read_sources(&plan.needed(&done), &mut self_init.read_once.lock())?;
        if is_first {
            plan.check_recovery().map_err(|why| vec![why])?;
        }
        Ok::<_, Vec<String>>(values)
    });
    match read.await {
        Ok(Ok(values)) => Some(values),
        Ok(Err(errors)) => {
            for error in errors {
                tracing::error!("self-initialization cannot run: {error}");
            }
            None
        }
        Err(_) => {
            tracing::error!("self-initialization cannot run: its sources were not read");
            None
        }
    }
}

/// Gives the file with the recovery keys its name. After the end its owners may have moved it.
pub(super) async fn publish_recovery(plan: &Arc<SelfInitPlan>, state: &SelfInitState) {
    let (Some(recovery), Some(digest)) = (plan.recovery.clone(), state.recovery.clone()) else { return };
    let published = tokio::task::spawn_blocking(move || recovery.output.publish(&digest)).await;
    match published {
        Ok(Err(why)) => tracing::error!("the file with the recovery keys does not have its name: {why}"),
        Ok(Ok(false)) if state.is_unfinished() => tracing::error!("the file with the recovery keys is not here"),
        _ => {}
    }
}

/// Revokes the root tokens of earlier attempts, and creates one whose accessor is stored with it.
async fn new_root_token(unsealed: &Unsealed, state: &mut SelfInitState, stanzas: String) -> Result<SecretString> {
    revoke_tokens(unsealed, state).await?;
    let spec = Spec {
        authority: Authority::Root,
        path: FIRST_TOKEN_PATH.to_owned(),
        display_name: "root".to_owned(),
        ttl: None,
        ..Spec::default()
    };
    let mut tx = unsealed.barrier.begin();
    let made = unsealed.access.tokens.create(&mut tx, &NamespaceId::root(), spec, unsealed.clock.now()).await?;
    state.tokens = BTreeSet::from([made.record.accessor.clone()]);
    state.stanzas = stanzas;
    state.put(&unsealed.barrier, &mut tx)?;
    tx.commit().await?;
    Ok(made.id)
}

/// Revokes the root tokens of the state; the state in storage still has them.
async fn revoke_tokens(unsealed: &Unsealed, state: &mut SelfInitState) -> Result<()> {
    for accessor in &state.tokens {
        unsealed.access.tokens.revoke(&unsealed.access.tokens.place_of(accessor)).await?;
    }
    state.tokens.clear();
    Ok(())
}

/// One run over the requests that are not done.
struct SelfInitRun<'a> {
    server: &'a Arc<Lifecycle>,
    unsealed: Arc<Unsealed>,
    plan: &'a Arc<SelfInitPlan>,
    sources: SourceValues,
    history: History,
    state: SelfInitState,
    token: SecretString,
    /// Whether an earlier attempt may have sent the next request and ended before it stored that.
    may_be_sent: bool,
    /// Requests that are sent again because later ones need their tokens or leases.
    undone: BTreeSet<String>,
}

/// Why a run ended before the end.
enum Stopped {
    /// A request failed.
    Failed(FailedRequest),
    /// Storage failed, or the server was sealed.
    Error(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Stopped::Error(error)
    }
}

/// A request whose values cannot be sent.
fn unsent(request: &PlannedRequest, reason: &str) -> Stopped {
    tracing::error!(request = request.name, reason, "self-initialization: the request cannot be sent");
    Stopped::Failed(FailedRequest { name: request.name.clone(), status: 0 })
}

impl SelfInitRun<'_> {
    async fn complete(mut self) -> Result<Attempt> {
        let stopped = self.send_all().await.err();
        match stopped {
            None => self.finish().await,
            Some(Stopped::Failed(failed)) => self.fail(failed).await,
            // The next leader, or this node after an unseal, goes on.
            Some(Stopped::Error(_)) if leading(self.server).is_none() => Ok(Attempt::Idle),
            Some(Stopped::Error(error)) => Err(error),
        }
    }

    async fn send_all(&mut self) -> Result<(), Stopped> {
        let plan = self.plan.clone();
        let needed = plan.needed(&self.state.done);
        for request in &plan.requests {
            if !self.state.done.contains(&request.name) {
                self.send(request).await?;
            } else if needed.contains(request.name.as_str()) {
                // It is not sent again, but a later request refers to it.
                let built = self.build(request)?;
                self.history.add_request(&request.name, built.sent);
            }
        }
        Ok(())
    }

    fn build(&self, request: &PlannedRequest) -> Result<BuiltRequest, Stopped> {
        let inputs = Inputs { sources: &self.sources, history: &self.history };
        send::build(request, inputs).map_err(|reason| unsent(request, &reason))
    }

    async fn send(&mut self, request: &PlannedRequest) -> Result<(), Stopped> {
        let built = self.build(request)?;
        let (path, allows_failure) = (built.sent.path.clone(), built.allows_failure);
        let pipeline = self.server.namespaces().ok_or_else(Error::sealed)?.root().clone();
        let incoming = built.incoming(&self.token).map_err(|reason| unsent(request, &reason))?;
        let sent = send::send(&pipeline, incoming).await?;
        let name = &request.name;
        let may_be_sent = !self.undone.contains(name) && std::mem::take(&mut self.may_be_sent);
        let mut kept = None;
        if let Sent::Refused { status, errors } = &sent {
            // A server that was sealed meanwhile refuses the request as well.
            if leading(self.server).is_none() {
                return Err(Error::sealed().into());
            }
            // It is not final: there is no leader for a moment, or something else is not reached.
            if *status == Status::UNAVAILABLE.0 {
                tracing::warn!(request = name, path, status, errors, "self-initialization: the request is sent again");
                return Err(Error::new(Status::UNAVAILABLE, format!("{name} is not done: {errors}")).into());
            }
        }
        match sent {
            Sent::Done { status, body } => {
                tracing::info!(request = name, path, status, "self-initialization: the request is done");
                self.history.add_request(name, built.sent);
                self.history.add_response(name, body.clone());
                let is_kept = body.len() <= MAX_KEPT && self.plan.keeps_response(name);
                kept = is_kept.then_some((name.as_str(), body));
            }
            // What was sent to a new server and has its path already, an earlier attempt has mounted.
            Sent::Refused { errors, .. } if may_be_sent && errors.contains("already in use") => {
                tracing::warn!(
                    request = name,
                    path,
                    errors,
                    "self-initialization: an earlier attempt has sent the request"
                );
            }
            Sent::Refused { status, errors } if allows_failure => {
                tracing::warn!(
                    request = name,
                    path,
                    status,
                    errors,
                    "self-initialization: the request failed, as allowed"
                );
            }
            Sent::Refused { status, errors } => {
                tracing::error!(request = name, path, status, errors, "self-initialization: the request failed");
                return Err(Stopped::Failed(FailedRequest { name: name.clone(), status }));
            }
        }
        self.state.done.insert(name.clone());
        self.state.failed = None;
        Ok(self.state.commit(&self.unsealed.barrier, kept).await?)
    }

    /// Revokes the root token, stores the end, and lets other requests through.
    async fn finish(mut self) -> Result<Attempt> {
        revoke_tokens(&self.unsealed, &mut self.state).await?;
        self.state.finished = true;
        self.state.stanzas = self.plan.digest();
        self.state.commit_finished(&self.unsealed.barrier).await?;
        self.server.self_init.set_phase(Phase::Off);
        self.server.self_init.read_once.lock().clear();
        tracing::info!("self-initialization is finished, and its root token is revoked");
        Ok(Attempt::Finished)
    }

    /// Revokes the root token, and stores which request failed.
    async fn fail(mut self, failed: FailedRequest) -> Result<Attempt> {
        let self_init: &SelfInit = &self.server.self_init;
        self_init.set_phase(Phase::Failed);
        revoke_tokens(&self.unsealed, &mut self.state).await?;
        self.state.failed = Some(failed);
        self.state.commit(&self.unsealed.barrier, None).await?;
        tracing::error!(
            "self-initialization has failed, and its root token is revoked; correct the stanzas, then send SIGHUP or restart the server: \
             it goes on with the request that failed"
        );
        Ok(Attempt::Failed)
    }
}
