//! A lock-free histogram of durations: counts, sums and quantiles.
//!
//! The buckets are log-linear: eight for each power of two from a microsecond to two minutes, so the error of a
//! quantile is at most 6 %. A record is two relaxed atomic additions and never allocates; the count is the sum of the
//! buckets. Buckets only increase. The values of an interval are the difference to the copy that [`Timing::turn`] takes
//! at its start, so recording needs no window and loses nothing at the end of an interval.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The reported quantiles, as in Vault.
pub(crate) const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
/// The number of kept copies: quantiles are those of the last minute.
const COPIES: usize = 6;
/// The power of two, in nanoseconds, below which all durations are in one bucket: about a microsecond.
const FIRST: u32 = 10;
/// The power of two from which all durations are in one bucket: 137 seconds.
const LAST: u32 = 37;
/// The number of buckets of one power of two, as a power of two.
const FINE: u32 = 3;
const BUCKETS: usize = ((LAST - FIRST) << FINE) as usize + 2;

type Buckets = [u64; BUCKETS];

/// A number that only increases.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The current count.
    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The count and the durations of an operation.
pub(crate) struct Timing {
    nanos: AtomicU64,
    /// Of the current interval.
    shortest: AtomicU64,
    longest: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
    /// Only readers lock it.
    past: Mutex<Past>,
}

/// The copies from the ends of intervals.
#[derive(Default)]
struct Past {
    /// The copies, oldest first.
    copies: VecDeque<Snapshot>,
    last: Option<Interval>,
}

#[derive(Clone)]
struct Snapshot {
    count: u64,
    nanos: u64,
    buckets: Arc<Buckets>,
}

/// The values of a [`Timing`]. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The count since the start of the process.
    pub count: u64,
    /// The sum since the start of the process.
    pub(crate) sum: f64,
    /// The [`QUANTILES`] of the last minute; NaN without records in it.
    pub(crate) quantiles: [f64; QUANTILES.len()],
    /// The last complete interval; before the end of the first one, all records.
    pub(crate) interval: Interval,
}

/// The values of one interval. Times are in milliseconds; zero without records.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Interval {
    /// The count.
    pub(crate) count: u64,
    /// The sum.
    pub(crate) sum: f64,
    /// The minimum.
    pub(crate) min: f64,
    /// The maximum.
    pub(crate) max: f64,
    /// The standard deviation, with the precision of the buckets.
    pub(crate) stddev: f64,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            nanos: AtomicU64::new(0),
            shortest: AtomicU64::new(u64::MAX),
            longest: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            past: Mutex::default(),
        }
    }
}

impl Timing {
    /// Records one duration.
    pub(crate) fn record(&self, took: Duration) {
        self.record_each(1, took);
    }

    /// Records the same duration `times` times.
    pub(crate) fn record_each(&self, times: u64, took: Duration) {
        if times == 0 {
            return;
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos.saturating_mul(times), Ordering::Relaxed);
        self.buckets[bucket_of(nanos)].fetch_add(times, Ordering::Relaxed);
        // Reads first: most durations are neither minimum nor maximum, so no cache line moves between cores.
        if nanos > self.longest.load(Ordering::Relaxed) {
            self.longest.fetch_max(nanos, Ordering::Relaxed);
        }
        if nanos < self.shortest.load(Ordering::Relaxed) {
            self.shortest.fetch_min(nanos, Ordering::Relaxed);
        }
    }

    /// The number of recorded durations.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|times| times.load(Ordering::Relaxed)).sum()
    }

    /// Reads counts, sums and quantiles.
    pub(crate) fn read(&self) -> Summary {
        let now = self.copy(None);
        let past = self.past.lock();
        let interval = past.last.unwrap_or_else(|| {
            let (min, max) = (self.shortest.load(Ordering::Relaxed), self.longest.load(Ordering::Relaxed));
            between(&nothing(), &now, min, max)
        });
        // In the first minute all records count.
        let oldest = past
            .copies
            .front()
            .filter(|_| past.copies.len() == COPIES)
            .map_or_else(|| nothing().buckets, |copy| copy.buckets.clone());
        drop(past);
        Summary {
            count: now.count,
            sum: millis(now.nanos),
            quantiles: quantiles(&difference(&oldest, &now.buckets)),
            interval,
        }
    }

    /// Ends an interval and begins the next one.
    pub(crate) fn turn(&self) {
        let mut past = self.past.lock();
        let before = past.copies.back().cloned();
        let now = self.copy(before.as_ref());
        let min = self.shortest.swap(u64::MAX, Ordering::Relaxed);
        let max = self.longest.swap(0, Ordering::Relaxed);
        past.last = Some(between(&before.unwrap_or_else(nothing), &now, min, max));
        past.copies.push_back(now);
        if past.copies.len() > COPIES {
            past.copies.pop_front();
        }
    }

    /// Copies the current values. Unchanged buckets share the memory of `before`.
    fn copy(&self, before: Option<&Snapshot>) -> Snapshot {
        let nanos = self.nanos.load(Ordering::Relaxed);
        let buckets: Buckets = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        let count = buckets.iter().sum();
        if let Some(before) = before.filter(|before| before.count == count) {
            return before.clone();
        }
        Snapshot { count, nanos, buckets: Arc::new(buckets) }
    }
}

impl Summary {
    /// Merges two series with the same name: the sum of the counts, and the larger quantiles.
    #[must_use]
    pub(crate) fn with(self, other: Summary) -> Summary {
        let (a, b) = (self.interval, other.interval);
        Summary {
            count: self.count + other.count,
            sum: self.sum + other.sum,
            quantiles: std::array::from_fn(|at| self.quantiles[at].max(other.quantiles[at])),
            interval: Interval {
                count: a.count + b.count,
                sum: a.sum + b.sum,
                min: if a.count == 0 || (b.count > 0 && b.min < a.min) { b.min } else { a.min },
                max: a.max.max(b.max),
                stddev: a.stddev.max(b.stddev),
            },
        }
    }
}

fn nothing() -> Snapshot {
    Snapshot { count: 0, nanos: 0, buckets: Arc::new([0; BUCKETS]) }
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// The records between two copies.
fn between(before: &Snapshot, now: &Snapshot, min: u64, max: u64) -> Interval {
    let count = now.count.wrapping_sub(before.count);
    if count == 0 {
        return Interval::default();
    }
    let sum = millis(now.nanos.wrapping_sub(before.nanos));
    let mean = sum / count as f64;
    let squares = |(at, times): (usize, &u64)| *times as f64 * (millis(middle(at)) - mean).powi(2);
    let deviations: f64 = difference(&before.buckets, &now.buckets).iter().enumerate().map(squares).sum();
    let stddev = if count < 2 { 0.0 } else { (deviations / (count - 1) as f64).sqrt() };
    // An interval may end between the update of the count and that of the bounds.
    Interval { count, sum, min: if min == u64::MAX { mean } else { millis(min) }, max: millis(max).max(mean), stddev }
}

fn difference(before: &Buckets, now: &Buckets) -> Buckets {
    std::array::from_fn(|at| now[at].wrapping_sub(before[at]))
}

/// The bucket of a duration.
fn bucket_of(nanos: u64) -> usize {
    let power = nanos.checked_ilog2().unwrap_or(0);
    if power < FIRST {
        return 0;
    }
    if power >= LAST {
        return BUCKETS - 1;
    }
    let within = (nanos >> (power - FINE)) & ((1 << FINE) - 1);
    1 + (((power - FIRST) << FINE) as usize) + within as usize
}

/// The lowest duration of a bucket and its width, in nanoseconds.
fn span(at: usize) -> (u64, u64) {
    match at.checked_sub(1) {
        None => (0, 1 << FIRST),
        Some(_) if at == BUCKETS - 1 => (1 << LAST, 0),
        Some(at) => {
            let power = FIRST + (at as u32 >> FINE);
            let width = 1 << (power - FINE);
            ((1 << power) + (at as u64 & ((1 << FINE) - 1)) * width, width)
        }
    }
}

fn middle(at: usize) -> u64 {
    let (first, width) = span(at);
    first + width / 2
}

/// The quantiles in milliseconds, each within its bucket.
fn quantiles(buckets: &Buckets) -> [f64; QUANTILES.len()] {
    let all: u64 = buckets.iter().sum();
    QUANTILES.map(|quantile| {
        let rank = quantile * all as f64;
        let mut passed = 0.0;
        for (at, times) in buckets.iter().enumerate().filter(|(_, times)| **times > 0) {
            let times = *times as f64;
            if passed + times >= rank {
                let (first, width) = span(at);
                return (first as f64 + width as f64 * ((rank - passed) / times).clamp(0.0, 1.0)) / 1e6;
            }
            passed += times;
        }
        f64::NAN
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn every_span_is_in_its_bucket_and_buckets_follow_each_other() {
        for at in 1..BUCKETS {
            let (first, width) = span(at);
            let (before, before_width) = span(at - 1);
            assert_eq!(before + before_width, first, "{at}");
            assert_eq!((bucket_of(first), bucket_of(first + width.saturating_sub(1))), (at, at));
            assert_eq!(bucket_of(first - 1), at - 1);
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn quantiles_are_within_six_percent() {
        let timing = Timing::default();
        (1..=1000).for_each(|n| timing.record(micros(n * 100)));
        let summary = timing.read();
        for (quantile, reported) in QUANTILES.iter().zip(summary.quantiles) {
            let right = quantile * 100.0;
            assert!((reported - right).abs() < right * 0.0625, "{quantile}: {reported}");
        }
        assert_eq!((summary.count, summary.sum.round()), (1000, 50_050.0));
    }

    #[test]
    fn a_turn_keeps_the_quantiles_of_the_first_minute() {
        let timing = Timing::default();
        timing.record(Duration::from_secs(1));
        for _ in 1..COPIES {
            timing.turn();
            assert!(timing.read().quantiles[0] > 900.0);
        }
    }

    #[test]
    fn quantiles_cover_a_minute_and_count_and_sum_all_time() {
        let timing = Timing::default();
        timing.record(Duration::from_secs(1));
        for _ in 0..COPIES {
            timing.turn();
            timing.record(micros(2));
        }
        let with_it = timing.read().quantiles[0];
        timing.turn();
        let summary = timing.read();
        assert!(with_it < 0.01 && summary.quantiles[2] < 0.01, "{summary:?}");
        assert_eq!((summary.count, summary.sum.round()), (7, 1000.0));
        (0..COPIES).for_each(|_| timing.turn());
        assert!(timing.read().quantiles.iter().all(|q| q.is_nan()));
    }

    #[test]
    fn an_interval_contains_its_own_records() {
        let timing = Timing::default();
        [10, 20, 30].into_iter().for_each(|n| timing.record(Duration::from_millis(n)));
        let open = timing.read().interval;
        timing.turn();
        let closed = timing.read().interval;
        assert_eq!(open, closed);
        assert_eq!((closed.count, closed.sum, closed.min, closed.max), (3, 60.0, 10.0, 30.0));
        assert!((closed.stddev - 10.0).abs() < 1.0, "{closed:?}");
        timing.turn();
        assert_eq!(timing.read().interval, Interval::default());
        timing.record_each(4, Duration::from_millis(5));
        timing.turn();
        let equal = timing.read().interval;
        assert_eq!((equal.count, equal.sum, equal.min, equal.max), (4, 20.0, 5.0, 5.0));
    }
}
