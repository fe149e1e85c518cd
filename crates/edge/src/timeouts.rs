//! Timeouts of the phases of a connection. The only file of the server that reads the system clock for waits.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Version;
use parking_lot::Mutex;
use tokio::time::{Interval, MissedTickBehavior, Sleep};

use crate::config::Limits;
use crate::connections::Peer;

/// The pause of an accept loop when the system has no more descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Pauses an accept loop.
#[allow(clippy::disallowed_methods, reason = "the accept loop pauses by the machine's clock, not the product's")]
pub(crate) async fn pause_accept() {
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Measures the ages of connections and bodies by the system clock.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts at 0.
    #[allow(clippy::disallowed_methods, reason = "connections age by the machine's clock, not the product's")]
    pub(crate) fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// A stopwatch that was started `ago` before now.
    #[cfg(test)]
    pub(crate) fn started(ago: Duration) -> Self {
        let Stopwatch(now) = Stopwatch::start();
        Stopwatch(now.checked_sub(ago).unwrap_or(now))
    }

    /// Milliseconds since the start.
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The instant that is `span` after the start.
    pub(crate) fn after(&self, span: Duration) -> tokio::time::Instant {
        (self.0 + span).into()
    }
}

/// The activity of a connection, reported by its stream and its requests. The low two bits are the phase, the others
/// count changes, so that one load shows whether anything changed since the last one.
#[derive(Default)]
pub(crate) struct Activity {
    state: AtomicU64,
    open: AtomicU32,
    ticks: AtomicU32,
    turn: AtomicU32,
}

/// A head is awaited or partly received: the first phase of every connection.
const HEAD_AWAITED: u64 = 0;
/// Between requests.
const IDLE: u64 = 1;
/// A request is handled; its timeouts are its own.
const BUSY: u64 = 2;
/// Between requests of HTTP/2, where received bytes need not begin a request.
const IDLE_H2: u64 = 3;
const PHASE: u64 = 3;

impl Activity {
    fn enter(&self, phase: u64) {
        let state = self.state.load(Ordering::Relaxed);
        self.state.store((state | PHASE).wrapping_add(1) | phase, Ordering::Relaxed);
    }

    /// Notes received bytes: between requests they begin a head.
    pub(crate) fn received(&self) {
        if self.phase() == IDLE {
            self.enter(HEAD_AWAITED);
        }
    }

    /// Counts a tick of the connection's timer.
    pub(crate) fn ticked(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of ticks of the timer.
    pub(crate) fn ticks(&self) -> u32 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Counts a poll of the connection's task.
    pub(crate) fn turn_begins(&self) {
        // Only the connection's task writes it.
        self.turn.store(self.turn().wrapping_add(1), Ordering::Relaxed);
    }

    /// The number of polls of the connection's task.
    pub(crate) fn turn(&self) -> u32 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Whether a request is being handled.
    pub(crate) fn is_busy(&self) -> bool {
        self.phase() == BUSY
    }

    /// The number of requests between their head and their response.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    fn phase(&self) -> u64 {
        self.state.load(Ordering::Relaxed) & PHASE
    }
}

/// A request between its head and its response.
pub(crate) struct OpenRequest {
    peer: Arc<Peer>,
    after: u64,
}

impl OpenRequest {
    pub(crate) fn new(peer: Arc<Peer>, version: Version) -> Self {
        peer.activity.open.fetch_add(1, Ordering::Relaxed);
        peer.activity.enter(BUSY);
        if !peer.is_authenticated() {
            peer.touch();
        }
        OpenRequest { peer, after: if version == Version::HTTP_2 { IDLE_H2 } else { IDLE } }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if self.peer.activity.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.peer.activity.enter(self.after);
            self.peer.touch();
        }
    }
}

/// The timer of the requests of a connection. To set a timer later costs less than to create one for each request.
#[derive(Default)]
pub(crate) struct RequestTimer(Mutex<Option<Pin<Box<Sleep>>>>);

/// A wait without an end.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

impl RequestTimer {
    /// The output of `work`; `None` when it takes longer than `span`.
    pub(crate) async fn limit<F: Future>(&self, span: Duration, work: F) -> Option<F::Output> {
        let mut timer = self.take(span);
        let output = tokio::select! {
            biased;
            output = work => Some(output),
            () = &mut timer => None,
        };
        *self.0.lock() = Some(timer);
        output
    }

    /// The timer, or a new one where another request of the connection has it, set to `span` from now.
    #[allow(clippy::disallowed_methods, reason = "requests time out by the machine's clock, not the product's")]
    fn take(&self, span: Duration) -> Pin<Box<Sleep>> {
        let span = span.min(FOREVER);
        match self.0.lock().take() {
            Some(mut timer) => {
                timer.as_mut().reset(tokio::time::Instant::now() + span);
                timer
            }
            None => Box::pin(tokio::time::sleep(span)),
        }
    }
}

/// The timeout of each phase, in ticks.
pub(crate) struct PhaseTimeouts {
    tick: Duration,
    head: u32,
    idle: u32,
    seen: u64,
    passed: u32,
}

impl PhaseTimeouts {
    pub(crate) fn new(limits: &Limits) -> Self {
        let shortest = limits.header_timeout.min(limits.idle_timeout);
        let tick = (shortest / 4).clamp(Duration::from_millis(5), Duration::from_millis(2500));
        let ticks = |span: Duration| u32::try_from(span.as_nanos().div_ceil(tick.as_nanos())).unwrap_or(u32::MAX);
        PhaseTimeouts {
            tick,
            head: ticks(limits.header_timeout),
            idle: ticks(limits.idle_timeout),
            seen: u64::MAX,
            passed: 0,
        }
    }

    /// The timer whose ticks call `is_expired`.
    #[allow(clippy::disallowed_methods, reason = "connections time out by the machine's clock, not the product's")]
    pub(crate) fn ticks(&self) -> Interval {
        let mut ticks = tokio::time::interval(self.tick);
        // Ticks that were missed under load must not count as silence of the client.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Whether the current phase exceeds its timeout. Called once per tick.
    pub(crate) fn is_expired(&mut self, activity: &Activity) -> bool {
        let state = activity.state.load(Ordering::Relaxed);
        if state != self.seen {
            (self.seen, self.passed) = (state, 0);
            return false;
        }
        self.passed += 1;
        match state & PHASE {
            HEAD_AWAITED => self.passed >= self.head,
            BUSY => false,
            _ => self.passed >= self.idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::{Connections, Place, Source};

    #[allow(clippy::unwrap_used, reason = "a test")]
    fn place() -> Place {
        Connections::new(1).admit(Source::default()).unwrap()
    }

    fn timeouts() -> PhaseTimeouts {
        PhaseTimeouts::new(&Limits {
            header_timeout: Duration::from_secs(4),
            idle_timeout: Duration::from_secs(8),
            ..Limits::default()
        })
    }

    /// The number of ticks until the connection is closed; `None` when it is more than a hundred.
    fn ticks(timeouts: &mut PhaseTimeouts, activity: &Activity) -> Option<usize> {
        (1..=100).find(|_| timeouts.is_expired(activity))
    }

    #[test]
    fn sec_ds04_each_phase_has_its_own_timeout_and_a_request_has_none() {
        let (mut timeouts, place) = (timeouts(), place());
        let activity = &place.peer().activity;
        assert_eq!(timeouts.tick, Duration::from_secs(1));
        // The first call only records the phase.
        assert_eq!(ticks(&mut timeouts, activity), Some(5));
        let open = OpenRequest::new(place.peer().clone(), Version::HTTP_11);
        assert_eq!(ticks(&mut timeouts, activity), None);
        drop(open);
        assert_eq!((activity.phase(), ticks(&mut timeouts, activity)), (IDLE, Some(9)));
        activity.enter(HEAD_AWAITED);
        assert_eq!(ticks(&mut timeouts, activity), Some(5));
    }

    #[test]
    fn an_http_2_connection_is_idle_after_its_last_response() {
        let place = place();
        let activity = &place.peer().activity;
        let (first, second) = (
            OpenRequest::new(place.peer().clone(), Version::HTTP_2),
            OpenRequest::new(place.peer().clone(), Version::HTTP_2),
        );
        drop(first);
        assert_eq!(activity.phase(), BUSY);
        drop(second);
        assert_eq!(activity.phase(), IDLE_H2);
    }
}
