//! What the server counts of itself: plain numbers behind relaxed atomics, named and formatted only when somebody asks.
//!
//! The registry is our own, because a request passes it several times. The `metrics` facade looks each record up by name and
//! labels, and its exporter keeps every sample until it is scraped; `hdrhistogram` records through a lock or a channel;
//! the histograms of `prometheus` have no quantiles, which is what Vault's dashboards show. Here a record is a few atomic
//! additions to a field that the code names, and all that costs (names, labels, quantiles, text) is paid by who reads.
//!
//! Every name, with its kind, its labels and its meaning, stands in [`catalogue`]; `docs/metrics.md` is made from it.

pub mod catalogue;
pub mod format;
mod gather;
pub mod labelled;
mod process;
pub mod routes;
pub mod storage;
pub mod timing;
pub mod usage;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use keepfast_framework::Timestamp;
use parking_lot::Mutex;

pub use labelled::{Labelled, StatusCodes};
pub use timing::{Interval, Summary, Timing};

/// How long an interval of the JSON form is, in seconds, as Vault's.
pub const INTERVAL: i64 = 10;

/// What the server counts of itself. Lives as long as the process.
#[derive(Default)]
pub struct Metrics {
    /// Requests that are no logins, from their arrival in the kernel to their answer.
    pub request: Timing,
    /// Logins.
    pub login: Timing,
    /// Finding the caller and what the caller may do.
    pub check_token: Timing,
    /// Unsealing.
    pub unseal: Timing,
    /// The part of it that opens what serving needs.
    pub post_unseal: Timing,
    /// Sealing.
    pub seal: Timing,
    /// Finding, making and ending tokens.
    pub tokens: TokenTimings,
    /// Leases.
    pub leases: LeaseTimings,
    /// Policies.
    pub policies: PolicyTimings,
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
    /// Answers by their status.
    pub responses: StatusCodes,
    /// Root tokens that were made.
    pub root_tokens: Counter,
    /// Tokens that were made, by auth method, mount, life and type.
    pub token_creation: Labelled,
    /// Leases that were made, by engine, mount and life.
    pub lease_creation: Labelled,
    /// Entities that were made, by auth method and mount.
    pub entity_creation: Labelled,
    /// The barrier and the storage below it.
    pub backend: storage::BackendTimings,
    /// Counters at the turns of intervals.
    pub(crate) turns: Mutex<Turns>,
    /// What is counted in the background.
    pub(crate) usage: Mutex<usage::Usage>,
}

/// What is done with tokens.
#[derive(Default)]
pub struct TokenTimings {
    /// Finding a token.
    pub lookup: Timing,
    /// Making a service token.
    pub create: Timing,
    /// Writing its record.
    pub store: Timing,
    /// Ending one token, whose children become orphans.
    pub revoke: Timing,
    /// Ending a token and all that descend from it.
    pub revoke_tree: Timing,
}

/// What is done with leases.
#[derive(Default)]
pub struct LeaseTimings {
    /// Making a lease.
    pub register: Timing,
    /// Making a token that ends.
    pub register_auth: Timing,
    /// Renewing a lease.
    pub renew: Timing,
    /// Renewing a token.
    pub renew_token: Timing,
    /// Revoking a lease.
    pub revoke: Timing,
    /// Revoking by prefix.
    pub revoke_prefix: Timing,
    /// Revoking by prefix and force.
    pub revoke_force: Timing,
    /// Marking the leases of a token as due.
    pub revoke_by_token: Timing,
    /// Looking a lease up.
    pub fetch_times: Timing,
    /// Leases and tokens whose time had come and that are revoked.
    pub expired: Counter,
    /// Those that could not be revoked.
    pub expiration_errors: Counter,
}

/// What is done with policies.
#[derive(Default)]
pub struct PolicyTimings {
    /// Reading one.
    pub get: Timing,
    /// Writing one.
    pub set: Timing,
    /// Deleting one.
    pub delete: Timing,
    /// Listing them.
    pub list: Timing,
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

/// Counters at the turns of intervals: the JSON form tells what came in the last one.
#[derive(Default)]
pub(crate) struct Turns {
    /// When the interval that is told began; `None` before the first turn.
    pub(crate) told_since: Option<Timestamp>,
    began: Option<Timestamp>,
    before: BTreeMap<Series, u64>,
    last: BTreeMap<Series, u64>,
}

/// A name with its labels.
type Series = (String, Vec<(&'static str, String)>);

impl Turns {
    /// Ends an interval at `now`.
    fn turn(&mut self, items: &[Item], now: Timestamp) {
        let counter = |item: &Item| match item.value {
            Value::Counter(count) => Some(((item.name.clone(), item.labels.clone()), count)),
            _ => None,
        };
        let counts: BTreeMap<Series, u64> = items.iter().filter_map(counter).collect();
        let more = |(series, count): (&Series, &u64)| {
            (series.clone(), count.saturating_sub(self.before.get(series).copied().unwrap_or(0)))
        };
        self.last = counts.iter().map(more).collect();
        self.before = counts;
        self.told_since = Some(self.began.unwrap_or(Timestamp::from_unix(now.unix() - INTERVAL)));
        self.began = Some(now);
    }

    /// What a counter gained in the last interval; before the first turn all that it has.
    fn gained(&self, item: &Item, count: u64) -> u64 {
        match self.told_since {
            None => count,
            Some(_) => self.last.get(&(item.name.clone(), item.labels.clone())).copied().unwrap_or(0),
        }
    }
}

/// A request under way, counted until this is dropped.
pub struct InFlight<'a>(&'a Metrics);

impl Metrics {
    /// Counts a request as under way.
    pub fn in_flight(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// All timings that have one name each, but for those of the storage.
    fn timings(&self) -> [(&'static str, &Timing); 26] {
        let (tokens, leases, policies) = (&self.tokens, &self.leases, &self.policies);
        [
            ("core.handle_request", &self.request),
            ("core.handle_login_request", &self.login),
            ("core.check_token", &self.check_token),
            ("core.unseal", &self.unseal),
            ("core.post_unseal", &self.post_unseal),
            ("core.seal", &self.seal),
            ("token.lookup", &tokens.lookup),
            ("token.create", &tokens.create),
            ("token.store", &tokens.store),
            ("token.revoke", &tokens.revoke),
            ("token.revoke-tree", &tokens.revoke_tree),
            ("expire.register", &leases.register),
            ("expire.register-auth", &leases.register_auth),
            ("expire.renew", &leases.renew),
            ("expire.renew-token", &leases.renew_token),
            ("expire.revoke", &leases.revoke),
            ("expire.revoke-prefix", &leases.revoke_prefix),
            ("expire.revoke-force", &leases.revoke_force),
            ("expire.revoke-by-token", &leases.revoke_by_token),
            ("expire.fetch-lease-times", &leases.fetch_times),
            ("policy.get_policy", &policies.get),
            ("policy.set_policy", &policies.set),
            ("policy.delete_policy", &policies.delete),
            ("policy.list_policies", &policies.list),
            ("audit.log_request", &self.audit_request),
            ("audit.log_response", &self.audit_response),
        ]
    }

    /// Ends an interval of all timings but those that mounts and audit devices have.
    fn turn_all(&self) {
        self.timings().into_iter().chain(self.backend.all()).for_each(|(_, timing)| timing.turn());
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

impl Item {
    /// A number without labels.
    pub fn new(name: impl Into<String>, value: Value) -> Self {
        Item { name: name.into(), labels: Vec::new(), value }
    }
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
