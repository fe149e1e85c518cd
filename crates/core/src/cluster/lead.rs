//! The work of the leader begins when this node leads, and ends when it no longer does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keepfast_framework::{Result, Timestamp};
use keepfast_storage::Role;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::metrics::transport::Observed;

/// The pause before a failed takeover is repeated.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The work of the leader.
#[async_trait]
pub(crate) trait LeaderWork: Send + Sync + 'static {
    /// The term of the log. Another term means that another node may have led in the meantime.
    fn term(&self) -> u64;
    /// Writes what the leader writes before its background tasks run. May be dropped at any await.
    async fn take_over(&self) -> Result<()>;
    /// Starts the background tasks.
    fn start(&self);
    /// Stops them, and drops the state that only the leader has.
    fn stop(&self);
    /// Whether this node was removed from its cluster.
    fn is_removed(&self) -> bool;
    /// Seals the node, in a task of its own.
    fn seal(&self);
}

/// The work of the leader until it ends for good.
struct Endable {
    work: Arc<dyn LeaderWork>,
    observed: Observed,
    /// Locked while the work starts, so that no late start follows the end.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    has_ended: bool,
    /// Since when this node leads.
    leads_since: Option<Timestamp>,
}

impl Endable {
    fn start(&self) {
        let mut state = self.state.lock();
        if !state.has_ended {
            self.work.start();
            state.leads_since = Some(self.observed.clock.now());
        }
    }

    fn stop(&self) {
        let since = self.state.lock().leads_since.take();
        self.work.stop();
        if let Some(since) = since {
            self.observed.metrics.cluster.leadership_lost.record(self.observed.clock.now().since(since));
        }
    }

    fn end(&self) {
        self.state.lock().has_ended = true;
        self.stop();
    }

    async fn take_over(&self) -> Result<()> {
        let started = self.observed.clock.now();
        let taken = self.work.take_over().await;
        if taken.is_err() {
            self.observed.metrics.cluster.setup_failed.record(self.observed.clock.now().since(started));
        }
        taken
    }
}

/// The leader that this node knew last.
#[derive(Default)]
struct KnownLeader {
    /// Its address for other nodes; empty for this node.
    last: Option<String>,
    is_lost: bool,
}

impl KnownLeader {
    /// Notes a role. Returns whether another node than before leads.
    fn observe(&mut self, role: &Role) -> bool {
        let now = match role {
            Role::Leading => Some(String::new()),
            Role::Following { leader } => leader.as_ref().map(|leader| leader.cluster_addr.clone()),
        };
        let Some(now) = now else {
            if self.last.is_some() && !self.is_lost {
                tracing::warn!("no leader of the cluster is known");
            }
            self.is_lost = true;
            return false;
        };
        let was_lost = std::mem::take(&mut self.is_lost);
        let is_same = self.last.as_ref() == Some(&now);
        if !now.is_empty() && (was_lost || !is_same) {
            tracing::info!(leader = now, "this node is a standby");
        }
        self.last.replace(now).is_some() && !is_same
    }
}

/// Follows the role of this node, until it is dropped, which stops the work.
pub(crate) struct Leadership {
    work: Arc<Endable>,
    /// `None` for a storage without a cluster, whose node always leads.
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Leadership {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.work.end();
    }
}

impl Leadership {
    /// Follows `roles`. `led` is the term in which this node has already taken over; its tasks start at once.
    pub(crate) fn begin(
        work: Arc<dyn LeaderWork>,
        roles: Option<watch::Receiver<Role>>,
        led: Option<u64>,
        observed: Observed,
    ) -> Self {
        let work = Arc::new(Endable { work, observed, state: Mutex::default() });
        if led.is_some() {
            work.start();
        }
        let task = roles.map(|roles| tokio::spawn(follow(work.clone(), roles, led)));
        Leadership { work, task }
    }

    /// Since when this node leads; `None` on a standby, and until the takeover is complete.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.work.state.lock().leads_since
    }
}

async fn follow(work: Arc<Endable>, mut roles: watch::Receiver<Role>, mut led: Option<u64>) {
    let mut known = KnownLeader::default();
    loop {
        if work.work.is_removed() {
            tracing::error!("this node was removed from its cluster, and seals");
            work.work.seal();
            return;
        }
        let role = roles.borrow_and_update().clone();
        if known.observe(&role) {
            work.observed.metrics.cluster.leader_changes.add();
        }
        let leads = role.is_leading().then(|| work.work.term());
        if led.is_some() && led != leads {
            work.stop();
            led = None;
            tracing::info!("this node no longer leads: its background tasks are stopped");
        }
        let mut retry: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        if let Some(term) = leads.filter(|_| led.is_none()) {
            let taken = tokio::select! {
                taken = work.take_over() => taken,
                Ok(()) = roles.changed() => continue,
            };
            match taken {
                Ok(()) => {
                    work.start();
                    led = Some(term);
                    tracing::info!(term, "this node leads: its background tasks are started");
                }
                Err(error) => {
                    let cause = error.cause().map(ToString::to_string).unwrap_or_default();
                    tracing::error!(%error, %cause, "the takeover failed and is repeated");
                    let pause = work.observed.clock.clone();
                    retry = Some(Box::pin(async move { pause.sleep_until(pause.now().after(RETRY_PAUSE)).await }));
                }
            }
        }
        let paused = async {
            match retry {
                Some(pause) => pause.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = roles.changed() => if changed.is_err() {
                // The role stays as it is.
                return;
            },
            () = paused => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use keepfast_framework::Error;
    use keepfast_framework::clock::TestClock;
    use tokio::sync::Notify;

    use super::*;
    use crate::metrics::Metrics;

    #[derive(Default)]
    struct Recorded {
        term: AtomicU64,
        events: Mutex<Vec<&'static str>>,
        happened: Notify,
        fails: AtomicU64,
        removed: AtomicBool,
    }

    impl Recorded {
        fn record(&self, event: &'static str) {
            self.events.lock().push(event);
            self.happened.notify_one();
        }

        /// Waits for the next events and returns them.
        async fn next(&self, count: usize) -> Vec<&'static str> {
            loop {
                {
                    let mut events = self.events.lock();
                    if events.len() >= count {
                        return std::mem::take(&mut *events);
                    }
                }
                self.happened.notified().await;
            }
        }
    }

    #[async_trait]
    impl LeaderWork for Recorded {
        fn term(&self) -> u64 {
            self.term.load(Ordering::Relaxed)
        }

        async fn take_over(&self) -> Result<()> {
            if self.fails.load(Ordering::Relaxed) > 0 {
                self.fails.fetch_sub(1, Ordering::Relaxed);
                self.record("failed");
                return Err(Error::internal("refused"));
            }
            self.record("take over");
            Ok(())
        }

        fn start(&self) {
            self.record("start");
        }

        fn stop(&self) {
            self.record("stop");
        }

        fn is_removed(&self) -> bool {
            self.removed.load(Ordering::Relaxed)
        }

        fn seal(&self) {
            self.record("seal");
        }
    }

    fn seen(clock: TestClock) -> Observed {
        Observed { clock: Arc::new(clock), metrics: Arc::default() }
    }

    fn following() -> Role {
        Role::Following { leader: None }
    }

    #[tokio::test]
    async fn each_leadership_starts_and_stops_the_work_once() {
        let (role, roles) = watch::channel(following());
        let work = Arc::<Recorded>::default();
        let leadership = Leadership::begin(work.clone(), Some(roles), None, seen(TestClock::default()));
        for _ in 0..3 {
            role.send_replace(Role::Leading);
            assert_eq!(work.next(2).await, ["take over", "start"]);
            // The same role again changes nothing.
            role.send_replace(Role::Leading);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert!(work.events.lock().is_empty());
            role.send_replace(following());
            assert_eq!(work.next(1).await, ["stop"]);
        }
        role.send_replace(Role::Leading);
        work.next(2).await;
        drop(leadership);
        assert_eq!(work.next(1).await, ["stop"]);
    }

    #[tokio::test]
    async fn a_leadership_lost_and_regained_unseen_starts_again() {
        let (role, roles) = watch::channel(Role::Leading);
        let work = Arc::<Recorded>::default();
        let _leadership = Leadership::begin(work.clone(), Some(roles), Some(0), seen(TestClock::default()));
        assert_eq!(work.next(1).await, ["start"], "taken over before");
        work.term.store(2, Ordering::Relaxed);
        role.send_replace(Role::Leading);
        assert_eq!(work.next(3).await, ["stop", "take over", "start"]);
    }

    #[tokio::test]
    async fn a_failed_takeover_is_repeated_after_a_pause() {
        let (role, roles) = watch::channel(following());
        let work = Arc::<Recorded>::default();
        work.fails.store(1, Ordering::Relaxed);
        let clock = TestClock::default();
        let _leadership = Leadership::begin(work.clone(), Some(roles), None, seen(clock.clone()));
        role.send_replace(Role::Leading);
        assert_eq!(work.next(1).await, ["failed"]);
        // Until the pause is over: the task may not have begun to wait yet.
        let mut events = Vec::new();
        while events.is_empty() {
            clock.advance(RETRY_PAUSE);
            tokio::task::yield_now().await;
            events = std::mem::take(&mut *work.events.lock());
        }
        if events.len() < 2 {
            events.extend(work.next(1).await);
        }
        assert_eq!(events, ["take over", "start"]);
    }

    #[tokio::test]
    async fn a_node_that_is_removed_seals() {
        let (role, roles) = watch::channel(following());
        let work = Arc::<Recorded>::default();
        let _leadership = Leadership::begin(work.clone(), Some(roles), None, seen(TestClock::default()));
        work.removed.store(true, Ordering::Relaxed);
        role.send_replace(following());
        assert_eq!(work.next(1).await, ["seal"]);
    }

    #[tokio::test]
    async fn a_role_that_never_changes_keeps_the_work() {
        let (role, roles) = watch::channel(Role::Leading);
        drop(role);
        let work = Arc::<Recorded>::default();
        let leadership = Leadership::begin(work.clone(), Some(roles), Some(0), seen(TestClock::default()));
        assert_eq!(work.next(1).await, ["start"]);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(work.events.lock().is_empty());
        drop(leadership);
        assert_eq!(work.next(1).await, ["stop"]);
    }

    #[tokio::test]
    async fn leaderships_failed_takeovers_and_changes_of_leaders_are_counted() {
        let behind = |name: &str| {
            let leader = keepfast_storage::Leader { api_addr: String::new(), cluster_addr: name.to_owned() };
            Role::Following { leader: Some(Arc::new(leader)) }
        };
        let (role, roles) = watch::channel(behind("b"));
        let (work, clock, metrics) = (Arc::<Recorded>::default(), TestClock::default(), Arc::<Metrics>::default());
        let seen = Observed { clock: Arc::new(clock.clone()), metrics: metrics.clone() };
        let leadership = Leadership::begin(work.clone(), Some(roles), None, seen);
        let changes = async |next: Role, expected: u64| {
            role.send_replace(next);
            while metrics.cluster.leader_changes.read() != expected {
                tokio::task::yield_now().await;
            }
        };
        tokio::task::yield_now().await;
        changes(following(), 0).await;
        changes(behind("b"), 0).await;
        changes(behind("c"), 1).await;
        changes(Role::Leading, 2).await;
        assert_eq!(work.next(2).await, ["take over", "start"]);
        clock.advance(Duration::from_secs(7));
        drop(leadership);
        let lost = metrics.cluster.leadership_lost.read();
        assert_eq!((lost.count, lost.sum), (1, 7000.0));
        assert_eq!(metrics.cluster.setup_failed.count(), 0);
    }
}
