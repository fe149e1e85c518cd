//! The only source of time: all other code receives a [`Clock`] (the lints forbid `SystemTime::now` elsewhere).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// A point in time: nanoseconds since the Unix epoch, UTC. The latest is in the year 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

const NANOS: i64 = 1_000_000_000;

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// Converts whole seconds since the epoch.
    pub const fn from_unix(seconds: i64) -> Self {
        Timestamp(seconds.saturating_mul(NANOS))
    }

    /// Converts nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Timestamp(nanos)
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn unix(self) -> i64 {
        self.0.div_euclid(NANOS)
    }

    /// Nanoseconds since the epoch.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// This time plus `span`; saturates at the latest representable time.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Timestamp(self.0.saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// This time minus `span`; saturates at the earliest representable time.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Timestamp(self.0.saturating_sub(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// The duration from `earlier` to this time; zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Formats as RFC 3339 in UTC, with as many fractional digits as needed (like Go's `RFC3339Nano`).
    pub fn rfc3339(self) -> String {
        // Every audit entry has a time, and jiff's printer takes longer.
        let nanos = i32::try_from(self.0.rem_euclid(NANOS)).unwrap_or_default();
        let Ok(time) = jiff::Timestamp::new(self.unix(), nanos) else { return String::new() };
        let time = jiff::tz::Offset::UTC.to_datetime(time);
        let mut out = *b"0000-00-00T00:00:00.000000000Z";
        let year = u32::from(time.year().unsigned_abs());
        let parts = [time.month(), time.day(), time.hour(), time.minute(), time.second()];
        put_digits(&mut out[0..4], year);
        for (at, part) in [5, 8, 11, 14, 17].into_iter().zip(parts) {
            put_digits(&mut out[at..at + 2], u32::from(part.unsigned_abs()));
        }
        let nanos = nanos.unsigned_abs();
        put_digits(&mut out[20..29], nanos);
        let mut end = out.len() - 1;
        if nanos == 0 {
            end = "2026-01-01T00:00:00".len();
        } else {
            while out[end - 1] == b'0' {
                end -= 1;
            }
        }
        out[end] = b'Z';
        std::str::from_utf8(&out[..=end]).unwrap_or_default().to_owned()
    }

    /// Formats as RFC 3339 in UTC, with whole seconds.
    pub fn rfc3339_seconds(self) -> String {
        Timestamp::from_unix(self.unix()).rfc3339()
    }

    /// Parses RFC 3339 text.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let t: jiff::Timestamp = text.parse().ok()?;
        i64::try_from(t.as_nanosecond()).ok().map(Timestamp)
    }
}

/// Fills `out` with the last decimal digits of a number.
fn put_digits(out: &mut [u8], mut number: u32) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A boxed future, for the one asynchronous method of [`Clock`].
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The only source of time.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
    /// Completes at `moment`.
    fn sleep_until(&self, moment: Timestamp) -> BoxFuture<'_, ()>;
    /// The time since the start of the machine, which nobody sets; `None` for a clock without one.
    fn boot(&self) -> Option<Duration> {
        None
    }
}

/// The clock of the operating system.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        Timestamp(seconds.saturating_mul(NANOS).saturating_add(i64::from(since.subsec_nanos())))
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that waits")]
    fn sleep_until(&self, moment: Timestamp) -> BoxFuture<'_, ()> {
        let span = moment.since(self.now());
        Box::pin(tokio::time::sleep(span))
    }

    fn boot(&self) -> Option<Duration> {
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Some(Duration::new(u64::try_from(since.tv_sec).ok()?, u32::try_from(since.tv_nsec).ok()?))
    }
}

/// A clock that tests advance explicitly. Clones share the same time.
#[derive(Clone)]
pub struct TestClock {
    now: Arc<Mutex<Timestamp>>,
    step: Arc<Mutex<Duration>>,
    moved: Arc<Notify>,
}

impl TestClock {
    /// Returns a clock that starts at `now`.
    pub fn at(now: Timestamp) -> Self {
        TestClock { now: Arc::new(Mutex::new(now)), step: Arc::default(), moved: Arc::new(Notify::new()) }
    }

    /// From now on, each reading advances the time by `span`, as on a real machine.
    pub fn step_on_reading(&self, span: Duration) {
        *self.step.lock() = span;
    }

    /// Advances the time and wakes the sleepers whose deadline has passed.
    pub fn advance(&self, span: Duration) {
        let mut now = self.now.lock();
        *now = now.after(span);
        drop(now);
        self.moved.notify_waiters();
    }
}

impl Default for TestClock {
    /// Starts on 2026-01-01.
    fn default() -> Self {
        TestClock::at(Timestamp::from_unix(1_767_225_600))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let mut now = self.now.lock();
        let read = *now;
        *now = read.after(*self.step.lock());
        read
    }

    fn sleep_until(&self, moment: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let moved = self.moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                if self.now() >= moment {
                    return;
                }
                moved.await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_rfc3339_as_clients_expect() {
        let t = Timestamp::from_nanos(1_795_431_207_589_300_821);
        assert_eq!(t.rfc3339(), "2026-11-23T10:53:27.589300821Z");
        assert_eq!(t.rfc3339_seconds(), "2026-11-23T10:53:27Z");
        assert_eq!(Timestamp::parse_rfc3339("2026-11-23T11:53:27.589300821+01:00"), Some(t));
    }

    proptest::proptest! {
        #[test]
        fn rfc3339_is_what_jiff_prints(nanos in proptest::num::i64::ANY, scale in 0..10_u32) {
            let nanos = nanos / 10_i64.pow(scale) * 10_i64.pow(scale);
            let printed = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap().to_string();
            proptest::prop_assert_eq!(Timestamp::from_nanos(nanos).rfc3339(), printed);
        }
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_time_is_moved_past_its_moment() {
        let clock = TestClock::default();
        let until = clock.now().after(Duration::from_secs(60));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(until).await }
        });
        clock.advance(Duration::from_secs(30));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(30));
        assert!(sleeper.await.is_ok());
    }
}
