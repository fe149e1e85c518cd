//! The background tasks of the leader: expiry, the ticks of engines, and the completion of interrupted work.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use keepfast_framework::{Operation, Result, Timestamp};
use keepfast_storage::View;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cluster::clocks::Clocks;
use crate::identity::{delete_expired_codes, delete_expired_logins, delete_orphans, rotate_due_keys};
use crate::keyring_rotation::rotate_worn_key;
use crate::layout::{IDENTITY_MOUNT, SYSTEM_STORAGE};
use crate::lease::recount;
use crate::lockout::Lockout;
use crate::mount::permit::TickPermit;
use crate::namespace::background;
use crate::rewrap;
use crate::unreadable::confined;
use crate::unsealed::Unsealed;

/// The pause before failed work is retried.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The interval of the ticks of engines.
const TICK: Duration = Duration::from_secs(60);
/// The interval of the ticks of engines that tick often.
const FREQUENT_TICK: Duration = Duration::from_secs(5);
/// The interval of the deletion of stored locks of users that are over: there may be many, and no request needs it.
const LOCKS_INTERVAL: Duration = Duration::from_secs(3600);
/// The namespaces besides root whose background work runs at a time.
const NAMESPACES_AT_ONCE: usize = 16;
/// The interval of log lines about a quarantine.
const REMINDER: Duration = Duration::from_secs(600);

/// The background tasks of the leader; they stop when this is dropped.
pub(crate) struct BackgroundTasks {
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Drop for BackgroundTasks {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl BackgroundTasks {
    /// Starts the tasks.
    pub(crate) fn start(unsealed: Arc<Unsealed>, clocks: Arc<Clocks>) -> Self {
        let rewrap = tokio::spawn(rewrap::run(unsealed.clone()));
        BackgroundTasks { tasks: [tokio::spawn(run(unsealed, clocks)), rewrap] }
    }
}

async fn run(unsealed: Arc<Unsealed>, clocks: Arc<Clocks>) {
    let mut doubt = ClockDoubt::default();
    let mut resumed = false;
    let mut running = RunningTasks::default();
    running.check_policies(&unsealed);
    let mut reminder = Reminder { next: unsealed.clock.now().after(REMINDER) };
    let mut next_locks = unsealed.clock.now();
    let (mut next_tick, mut next_often) = (unsealed.clock.now().after(TICK), unsealed.clock.now().after(FREQUENT_TICK));
    loop {
        let now = unsealed.clock.now();
        if !resumed {
            resumed = attempt("finishing interrupted work", resume(&unsealed)).await;
        }
        running.remove_finished();
        if doubt.note(clocks.holds(now, unsealed.clock.boot())) {
            unsealed.clock.sleep_until(now.after(RETRY_PAUSE)).await;
            continue;
        }
        running.revoke_tokens(&unsealed, now);
        running.recount_leases(&unsealed);
        attempt("rotating OIDC keys", running.rotate_oidc_keys(&unsealed, now)).await;
        attempt("revoking expired leases", running.revoke(&unsealed, now)).await;
        if reminder.is_due(unsealed.leases.store.is_quarantined(), now) {
            tracing::warn!(
                "leases are under quarantine: none is revoked and nothing is rotated; see sys/leases/quarantine"
            );
        }
        if now >= next_tick {
            attempt("rotating the keyring", rotate_worn_key(&unsealed.barrier, now)).await;
            running.delete_expired_codes(&unsealed, now);
            running.tidy_mfa(&unsealed, now);
            running.tick(&unsealed, false);
            attempt("the work of namespaces", running.work_in_namespaces(&unsealed, false)).await;
            next_tick = now.after(TICK);
        }
        if now >= next_locks {
            running.delete_ended_locks(&unsealed, now);
            next_locks = now.after(LOCKS_INTERVAL);
        }
        if now >= next_often {
            running.tick(&unsealed, true);
            attempt("the frequent work of namespaces", running.work_in_namespaces(&unsealed, true)).await;
            next_often = now.after(FREQUENT_TICK);
        }
        let until =
            if resumed { next_wake(&unsealed, next_tick.min(next_often)).await } else { now.after(RETRY_PAUSE) };
        tokio::select! {
            () = unsealed.clock.sleep_until(until) => {}
            () = unsealed.leases.store.wake.notified() => {}
            () = unsealed.leases.store.quotas.changed.notified() => {}
            () = unsealed.access.identity.oidc.changed.notified() => {}
        }
    }
}

/// Whether the clock of this node is in doubt: then nothing is revoked and no engine ticks.
#[derive(Default)]
struct ClockDoubt(Option<&'static str>);

impl ClockDoubt {
    /// Logs each change. Returns whether there is a doubt.
    fn note(&mut self, doubt: Option<&'static str>) -> bool {
        if self.0 != doubt {
            match doubt {
                Some(reason) => tracing::error!(reason, "nothing is revoked and nothing is rotated"),
                None => tracing::warn!("the clock is no longer in doubt: revocation goes on"),
            }
            self.0 = doubt;
        }
        doubt.is_some()
    }
}

/// When the next log line about a quarantine is due. Its start is logged elsewhere.
struct Reminder {
    next: Timestamp,
}

impl Reminder {
    fn is_due(&mut self, is_quarantined: bool, now: Timestamp) -> bool {
        let is_due = is_quarantined && now >= self.next;
        if is_due || !is_quarantined {
            self.next = now.after(REMINDER);
        }
        is_due
    }
}

/// The time of the next due work: the next expiry, at the latest the next tick.
async fn next_wake(unsealed: &Unsealed, tick: Timestamp) -> Timestamp {
    let next = unsealed.leases.store.expiry_queue.next(!unsealed.leases.store.is_quarantined()).await;
    let now = unsealed.clock.now();
    let tick = match next_rotation(unsealed).await {
        Ok(Some(rotation)) => tick.min(rotation.max(now.after(RETRY_PAUSE))),
        _ => tick,
    };
    match next {
        Ok(Some(end)) if end > now => end.min(tick),
        Ok(None) => tick,
        // Due work is running or has failed, or storage fails.
        Ok(Some(_)) | Err(_) => now.after(RETRY_PAUSE).min(tick),
    }
}

/// The view of the identity engine, which wraps the keys that it has to.
pub(crate) fn identity_view(unsealed: &Unsealed) -> Option<View> {
    unsealed.engines.mounts.router().at(IDENTITY_MOUNT).map(|mounted| mounted.view.clone())
}

/// The time of the next rotation of an OIDC key.
pub(crate) async fn next_rotation(unsealed: &Unsealed) -> Result<Option<Timestamp>> {
    match identity_view(unsealed) {
        Some(view) => unsealed.access.identity.oidc.next_rotation(&unsealed.barrier, &view).await,
        None => Ok(None),
    }
}

/// The running tasks: one for each mount with expired leases, one for the tokens, one for the ticks. So neither a slow
/// database nor many tokens nor a slow tick delays the others. All stop when this is dropped.
struct RunningTasks {
    tasks: JoinSet<String>,
    busy: HashSet<String>,
    /// The namespaces whose work runs at a time.
    turns: Arc<Semaphore>,
}

impl Default for RunningTasks {
    fn default() -> Self {
        RunningTasks {
            tasks: JoinSet::new(),
            busy: HashSet::new(),
            turns: Arc::new(Semaphore::new(NAMESPACES_AT_ONCE)),
        }
    }
}

impl RunningTasks {
    /// Removes the tasks that have finished.
    fn remove_finished(&mut self) {
        while let Some(done) = self.tasks.try_join_next() {
            match done {
                Ok(name) => drop(self.busy.remove(&name)),
                // The runtime is being shut down.
                Err(_) => self.busy.clear(),
            }
        }
    }

    /// Runs `work`, unless a task of this name is running.
    fn spawn(&mut self, name: &str, work: impl Future<Output = ()> + Send + 'static) {
        if !self.busy.insert(name.to_owned()) {
            return;
        }
        let name = name.to_owned();
        self.tasks.spawn(async move {
            // A panic frees the name, so that the work is retried and other tasks continue.
            attempt(&name, work.map(Ok)).await;
            name
        });
    }

    /// Logs once which stored policies exceed limits.
    fn check_policies(&mut self, unsealed: &Arc<Unsealed>) {
        let unsealed = unsealed.clone();
        self.spawn("the policies", async move {
            attempt("checking the stored policies", unsealed.access.policies.log_limits()).await;
        });
    }

    fn delete_ended_locks(&mut self, unsealed: &Arc<Unsealed>, now: Timestamp) {
        let unsealed = unsealed.clone();
        self.spawn("the locks of users", async move {
            let system = unsealed.barrier.view(SYSTEM_STORAGE);
            let deleted = Lockout::delete_ended(&unsealed.barrier, &system, now);
            attempt("deleting the locks of users that are over", deleted).await;
        });
    }

    fn revoke_tokens(&mut self, unsealed: &Arc<Unsealed>, now: Timestamp) {
        let unsealed = unsealed.clone();
        self.spawn("the tokens", async move {
            attempt("revoking expired tokens", unsealed.leases.expiry.revoke_expired_tokens(now)).await;
        });
    }

    fn recount_leases(&mut self, unsealed: &Arc<Unsealed>) {
        if unsealed.leases.store.quotas.is_recounting() {
            let unsealed = unsealed.clone();
            self.spawn("the lease count quotas", async move {
                attempt("counting the leases of a quota", recount::run(&unsealed)).await;
            });
        }
    }

    async fn rotate_oidc_keys(&mut self, unsealed: &Arc<Unsealed>, now: Timestamp) -> Result<()> {
        if next_rotation(unsealed).await?.is_some_and(|next| next <= now) {
            let unsealed = unsealed.clone();
            self.spawn("the OIDC keys", async move {
                if let Some(view) = identity_view(&unsealed) {
                    attempt("rotating OIDC keys", rotate_due_keys(&unsealed.barrier, &view, now)).await;
                }
            });
        }
        Ok(())
    }

    fn delete_expired_codes(&mut self, unsealed: &Arc<Unsealed>, now: Timestamp) {
        let unsealed = unsealed.clone();
        self.spawn("the OIDC codes", async move {
            if let Some(view) = identity_view(&unsealed) {
                attempt("deleting expired OIDC codes", delete_expired_codes(&unsealed.barrier, &view, now)).await;
            }
        });
    }

    fn tidy_mfa(&mut self, unsealed: &Arc<Unsealed>, now: Timestamp) {
        let unsealed = unsealed.clone();
        self.spawn("the MFA of logins", async move { tidy_mfa(&unsealed, now).await });
    }

    async fn revoke(&mut self, unsealed: &Arc<Unsealed>, now: Timestamp) -> Result<()> {
        unsealed.leases.expiry.queue_abandoned().await?;
        if unsealed.leases.store.is_quarantined() {
            return Ok(());
        }
        let mut failed = None;
        for mount in unsealed.leases.store.expiry_queue.mounts().await? {
            if self.busy.contains(&mount) {
                continue;
            }
            let owner = match owner_of_due(unsealed, &mount, now).await {
                Ok(Some(owner)) => owner,
                Ok(None) => continue,
                Err(error) => {
                    failed = failed.or(Some(error));
                    continue;
                }
            };
            let unsealed = owner;
            self.spawn(&mount.clone(), async move {
                attempt("revoking expired leases", unsealed.leases.expiry.revoke_expired_of(&mount, now)).await;
            });
        }
        failed.map_or(Ok(()), Err)
    }

    /// Starts the work of the namespaces besides root, each in its own task, so that a slow one delays no other.
    async fn work_in_namespaces(&mut self, root: &Arc<Unsealed>, often: bool) -> Result<()> {
        for id in background::with_work(root, often).await? {
            let (root, turns) = (root.clone(), self.turns.clone());
            let name = format!("the work of the namespace {}", id.as_str());
            self.spawn(&name, async move {
                let Ok(_turn) = turns.acquire().await else { return };
                let work = Box::pin(background::run(&root, &id, often));
                attempt("the work of a namespace", work).await;
            });
        }
        Ok(())
    }

    fn tick(&mut self, unsealed: &Arc<Unsealed>, often: bool) {
        let unsealed = unsealed.clone();
        self.spawn(if often { "the frequent ticks" } else { "the ticks" }, async move {
            tick(&unsealed, often).await;
        });
    }
}

/// The services of the namespace of a mount whose leases are due; `None` if none is.
async fn owner_of_due(unsealed: &Arc<Unsealed>, mount: &str, now: Timestamp) -> Result<Option<Arc<Unsealed>>> {
    let leases = &unsealed.leases.store;
    let due = leases.due(mount, now, 1).await?;
    let Some((_, id)) = due.first() else { return Ok(None) };
    if unsealed.engines.mounts.with_leaving(mount).is_some() {
        return Ok(Some(unsealed.clone()));
    }
    // A lease that cannot be read is set aside by root.
    let record = leases.record(&mut leases.begin_read(), id).await.ok().flatten();
    let Some(record) = record.filter(|record| !record.namespace.is_root()) else { return Ok(Some(unsealed.clone())) };
    let found = unsealed.access.namespaces()?.open_any(&record.namespace).await?;
    Ok(Some(found.unwrap_or_else(|| unsealed.clone())))
}

async fn resume(unsealed: &Unsealed) -> Result<()> {
    let unmounted = unsealed.engines.changes.resume_unmounts().await;
    unsealed.access.tokens.resume_collection().await.and(unmounted)
}

/// Runs one task once. Returns whether it succeeded. A panic ends this attempt and no other task.
pub(crate) async fn attempt(what: &str, work: impl Future<Output = Result<()>>) -> bool {
    let outcome = confined(work).await;
    let done = outcome.is_ok();
    report(what, outcome);
    done
}

fn report(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        let cause = error.cause().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%error, %cause, "{what} failed and is retried");
    }
}

/// Runs the tick of every engine that ticks often, or of every other engine. Under quarantine no engine ticks: the
/// objects that it would change on another system may belong to another server.
pub(crate) async fn tick(unsealed: &Unsealed, often: bool) {
    if unsealed.leases.store.is_quarantined() {
        return;
    }
    let engines = &unsealed.engines;
    let mounts: Vec<_> = engines.mounts.router().all().cloned().collect();
    for mounted in mounts {
        let engine = match mounted.engine(&engines.host).await {
            Ok(engine) if engine.ticks_often() == often => engine,
            Ok(_) => continue,
            Err(_) if often => continue,
            Err(error) => {
                report(&format!("opening {}", mounted.entry.path), Err(error));
                continue;
            }
        };
        let mut cx = engines.host.context(&mounted, Operation::Update, mounted.entry.path.clone()).once();
        let ticking = async move {
            engine.tick(&TickPermit::new(), &mut cx).await?;
            cx.commit().await.map_err(Into::into)
        };
        attempt(&format!("the tick of {}", mounted.entry.path), ticking).await;
    }
}

/// Deletes expired pending logins, and the secrets of deleted MFA methods.
pub(crate) async fn tidy_mfa(unsealed: &Unsealed, now: Timestamp) {
    let Some(view) = identity_view(unsealed) else { return };
    let barrier = &unsealed.barrier;
    attempt("deleting expired pending logins", delete_expired_logins(barrier, &view, now)).await;
    attempt("deleting secrets of deleted MFA methods", delete_orphans(&unsealed.access.identity, &view)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarantine_is_logged_every_ten_minutes() {
        let at = |minute: i64| Timestamp::from_unix(minute * 60);
        let mut reminder = Reminder { next: at(10) };
        let due: Vec<i64> = (0..45).filter(|minute| reminder.is_due(*minute != 25, at(*minute))).collect();
        assert_eq!(due, [10, 20, 35]);
    }
}
