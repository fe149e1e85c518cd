//! The work of the leader begins when this node leads, and ends when it no longer does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keepfast_framework::{Clock, Result};
use keepfast_storage::Role;
use parking_lot::Mutex;
use tokio::sync::watch;

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
    /// Whether it has ended. Locked while the work starts, so that no late start follows the end.
    ended: Mutex<bool>,
}

impl Endable {
    fn start(&self) {
        let ended = self.ended.lock();
        if !*ended {
            self.work.start();
        }
    }

    fn end(&self) {
        *self.ended.lock() = true;
        self.work.stop();
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
        clock: Arc<dyn Clock>,
    ) -> Self {
        let work = Arc::new(Endable { work, ended: Mutex::new(false) });
        if led.is_some() {
            work.start();
        }
        let task = roles.map(|roles| tokio::spawn(follow(work.clone(), roles, led, clock)));
        Leadership { work, task }
    }
}

async fn follow(work: Arc<Endable>, mut roles: watch::Receiver<Role>, mut led: Option<u64>, clock: Arc<dyn Clock>) {
    loop {
        if work.work.is_removed() {
            tracing::error!("this node was removed from its cluster, and seals");
            work.work.seal();
            return;
        }
        let leads = roles.borrow_and_update().is_leading().then(|| work.work.term());
        if led.is_some() && led != leads {
            work.work.stop();
            led = None;
            tracing::info!("this node no longer leads: its background tasks are stopped");
        }
        let mut retry: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        if let Some(term) = leads.filter(|_| led.is_none()) {
            let taken = tokio::select! {
                taken = work.work.take_over() => taken,
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
                    let pause = clock.clone();
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

    fn following() -> Role {
        Role::Following { leader: None }
    }

    #[tokio::test]
    async fn each_leadership_starts_and_stops_the_work_once() {
        let (role, roles) = watch::channel(following());
        let work = Arc::<Recorded>::default();
        let leadership = Leadership::begin(work.clone(), Some(roles), None, Arc::new(TestClock::default()));
        for _ in 0..3 {
            role.send_replace(Role::Leading);
            assert_eq!(work.next(2).await, ["take over", "start"]);
            // The same role again changes nothing.
            role.send_replace(Role::Leading);
            role.send_replace(following());
            assert_eq!(work.next(1).await, ["stop"]);
        }
        role.send_replace(Role::Leading);
        work.next(2).await;
        drop(leadership);
        assert_eq!(work.next(1).await, ["stop"]);
    }

    #[tokio::test]
    async fn a_leadership_lost_and_regained_unseen_starts_anew() {
        let (role, roles) = watch::channel(Role::Leading);
        let work = Arc::<Recorded>::default();
        let _leadership = Leadership::begin(work.clone(), Some(roles), Some(0), Arc::new(TestClock::default()));
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
        let _leadership = Leadership::begin(work.clone(), Some(roles), None, Arc::new(clock.clone()));
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
        let _leadership = Leadership::begin(work.clone(), Some(roles), None, Arc::new(TestClock::default()));
        work.removed.store(true, Ordering::Relaxed);
        role.send_replace(following());
        assert_eq!(work.next(1).await, ["seal"]);
    }

    #[tokio::test]
    async fn a_role_that_never_changes_keeps_the_work() {
        let (role, roles) = watch::channel(Role::Leading);
        drop(role);
        let work = Arc::<Recorded>::default();
        let leadership = Leadership::begin(work.clone(), Some(roles), Some(0), Arc::new(TestClock::default()));
        assert_eq!(work.next(1).await, ["start"]);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(work.events.lock().is_empty());
        drop(leadership);
        assert_eq!(work.next(1).await, ["stop"]);
    }
}
