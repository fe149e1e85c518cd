//! How long the phases of a connection may take. The one file of the server that waits by the machine's clock itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Version;
use tokio::time::{Interval, MissedTickBehavior};

use crate::config::Limits;
use crate::connections::Peer;

/// How long an accept loop rests when the system has no more descriptors or memory.
const REST: Duration = Duration::from_millis(50);

/// A pause of an accept loop.
#[allow(clippy::disallowed_methods, reason = "the accept loop pauses by the machine's clock, not the product's")]
pub(crate) async fn rest() {
    tokio::time::sleep(REST).await;
}

/// The machine's clock, as far as the ages of connections and of bodies go.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts at 0.
    #[allow(clippy::disallowed_methods, reason = "connections age by the machine's clock, not the product's")]
    pub(crate) fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// As if started so long ago.
    #[cfg(test)]
    pub(crate) fn started(ago: Duration) -> Self {
        let Stopwatch(now) = Stopwatch::start();
        Stopwatch(now.checked_sub(ago).unwrap_or(now))
    }

    /// Milliseconds since the start.
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment that comes so long after the start.
    pub(crate) fn after(&self, span: Duration) -> tokio::time::Instant {
        (self.0 + span).into()
    }
}

/// What the connection is doing, told by its stream and its requests. The low two bits are the phase, the rest counts
/// changes, so that one load tells whether anything happened since the last look.
#[derive(Default)]
pub(crate) struct Activity {
    state: AtomicU64,
    open: AtomicU32,
    ticks: AtomicU32,
    turn: AtomicU32,
}

/// Bytes of a head are awaited or came in part: where every connection starts.
const HEAD_AWAITED: u64 = 0;
/// Between requests.
const IDLE: u64 = 1;
/// A request is being answered; it has times of its own.
const BUSY: u64 = 2;
/// Between requests of HTTP/2, where bytes need not be the start of one.
const IDLE_H2: u64 = 3;
const PHASE: u64 = 3;

impl Activity {
    fn enter(&self, phase: u64) {
        let state = self.state.load(Ordering::Relaxed);
        self.state.store((state | PHASE).wrapping_add(1) | phase, Ordering::Relaxed);
    }

    /// Bytes came: between requests they are the start of a next head.
    pub(crate) fn received(&self) {
        if self.phase() == IDLE {
            self.enter(HEAD_AWAITED);
        }
    }

    /// Notes that the connection's timer ticked.
    pub(crate) fn ticked(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the timer has ticked.
    pub(crate) fn ticks(&self) -> u32 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Notes that the connection's task is polled.
    pub(crate) fn turn_begins(&self) {
        // Only that task writes it.
        self.turn.store(self.turn().wrapping_add(1), Ordering::Relaxed);
    }

    /// How often the connection's task was polled.
    pub(crate) fn turn(&self) -> u32 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Whether a request is being answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.phase() == BUSY
    }

    /// How many requests are between their head and their answer.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    fn phase(&self) -> u64 {
        self.state.load(Ordering::Relaxed) & PHASE
    }
}

/// A request between its head and its answer.
pub(crate) struct Open {
    peer: Arc<Peer>,
    after: u64,
}

impl Open {
    pub(crate) fn new(peer: Arc<Peer>, version: Version) -> Self {
        peer.activity.open.fetch_add(1, Ordering::Relaxed);
        peer.activity.enter(BUSY);
        if !peer.is_known() {
            peer.stirs();
        }
        Open { peer, after: if version == Version::HTTP_2 { IDLE_H2 } else { IDLE } }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.peer.activity.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.peer.activity.enter(self.after);
            self.peer.stirs();
        }
    }
}

/// How long each phase may last, measured in ticks.
pub(crate) struct Patience {
    tick: Duration,
    head: u32,
    idle: u32,
    seen: u64,
    passed: u32,
}

impl Patience {
    pub(crate) fn new(limits: &Limits) -> Self {
        let shortest = limits.header_timeout.min(limits.idle_timeout);
        let tick = (shortest / 4).clamp(Duration::from_millis(5), Duration::from_millis(2500));
        let ticks = |span: Duration| u32::try_from(span.as_nanos().div_ceil(tick.as_nanos())).unwrap_or(u32::MAX);
        Patience {
            tick,
            head: ticks(limits.header_timeout),
            idle: ticks(limits.idle_timeout),
            seen: u64::MAX,
            passed: 0,
        }
    }

    /// The ticks at which to ask.
    #[allow(clippy::disallowed_methods, reason = "connections time out by the machine's clock, not the product's")]
    pub(crate) fn ticks(&self) -> Interval {
        let mut ticks = tokio::time::interval(self.tick);
        // Ticks missed while the machine was busy must not count as the client's silence.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Whether the present phase has lasted too long. To be asked once a tick.
    pub(crate) fn is_over(&mut self, activity: &Activity) -> bool {
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

    fn patience() -> Patience {
        Patience::new(&Limits {
            header_timeout: Duration::from_secs(4),
            idle_timeout: Duration::from_secs(8),
            ..Limits::default()
        })
    }

    /// How many ticks pass until the connection is closed; `None` if it outlives a hundred.
    fn ticks(patience: &mut Patience, activity: &Activity) -> Option<usize> {
        (1..=100).find(|_| patience.is_over(activity))
    }

    #[test]
    fn sec_ds04_each_phase_has_its_own_patience_and_a_request_has_none() {
        let (mut patience, place) = (patience(), place());
        let activity = &place.peer().activity;
        assert_eq!(patience.tick, Duration::from_secs(1));
        // The first look only notes the phase.
        assert_eq!(ticks(&mut patience, activity), Some(5));
        let open = Open::new(place.peer().clone(), Version::HTTP_11);
        assert_eq!(ticks(&mut patience, activity), None);
        drop(open);
        assert_eq!((activity.phase(), ticks(&mut patience, activity)), (IDLE, Some(9)));
        activity.enter(HEAD_AWAITED);
        assert_eq!(ticks(&mut patience, activity), Some(5));
    }

    #[test]
    fn a_connection_of_http_2_is_idle_when_its_last_stream_is_answered() {
        let place = place();
        let activity = &place.peer().activity;
        let (first, second) =
            (Open::new(place.peer().clone(), Version::HTTP_2), Open::new(place.peer().clone(), Version::HTTP_2));
        drop(first);
        assert_eq!(activity.phase(), BUSY);
        drop(second);
        assert_eq!(activity.phase(), IDLE_H2);
    }
}
