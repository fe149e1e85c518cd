//! What the server counts of itself: plain numbers behind relaxed atomics, named and formatted only when somebody asks.

pub mod format;
mod gather;
pub mod storage;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// What the server counts of itself. Lives as long as the process.
#[derive(Default)]
pub struct Metrics {
    /// Requests that are no logins, from their arrival in the kernel to their answer.
    pub request: Timing,
    /// Logins.
    pub login: Timing,
    /// Finding a token.
    pub token_lookup: Timing,
    /// Entries of requests, written by the audit devices.
    pub audit_request: Timing,
    /// Entries of answers.
    pub audit_response: Timing,
    /// Entries of requests that no device took.
    pub audit_request_failure: Counter,
    /// Entries of answers that no device took.
    pub audit_response_failure: Counter,
    /// Requests that a quota refused.
    pub quota_violation: Counter,
    /// Requests under way.
    pub in_flight: AtomicI64,
    /// The storage below the barrier.
    pub backend: BackendTimings,
}

/// The storage below the barrier.
#[derive(Default)]
pub struct BackendTimings {
    /// Reads that no cache answered.
    pub get: Timing,
    /// Listings.
    pub list: Timing,
    /// Commits, until they are durable.
    pub commit: Timing,
}

/// [`BackendTimings`] as they were read.
#[derive(Clone, Copy, Debug, Default)]
pub struct BackendSummary {
    /// Reads.
    pub get: Summary,
    /// Listings.
    pub list: Summary,
    /// Commits.
    pub commit: Summary,
}

impl BackendTimings {
    /// All of them.
    pub fn read(&self) -> BackendSummary {
        BackendSummary { get: self.get.read(), list: self.list.read(), commit: self.commit.read() }
    }
}

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something was done and how long it took.
#[derive(Default)]
pub struct Timing {
    count: AtomicU64,
    nanos: AtomicU64,
    longest: AtomicU64,
}

impl Timing {
    /// It was done once more.
    pub fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        // Read first: most are not the longest, and then nobody else's cache line is taken.
        if nanos > self.longest.load(Ordering::Relaxed) {
            self.longest.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    /// How often, and in milliseconds how long in all and at most.
    pub fn read(&self) -> Summary {
        let millis = |n: &AtomicU64| n.load(Ordering::Relaxed) as f64 / 1e6;
        Summary { count: self.count.load(Ordering::Relaxed), sum: millis(&self.nanos), max: millis(&self.longest) }
    }
}

/// A [`Timing`] as it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// How often.
    pub count: u64,
    /// Milliseconds in all.
    pub sum: f64,
    /// Milliseconds at most.
    pub max: f64,
}

/// A request under way, counted until this is dropped.
pub struct InFlight<'a>(&'a Metrics);

impl Metrics {
    /// Counts a request as under way.
    pub fn in_flight(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One number with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Parts joined by dots, without the prefix.
    pub name: String,
    /// Labels.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: Value,
}

/// What kind of number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// May go up and down.
    Gauge(f64),
    /// Only grows.
    Counter(u64),
    /// How often and how long.
    Summary(Summary),
}
