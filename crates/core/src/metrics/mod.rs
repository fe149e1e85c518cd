//! What the server counts of itself: plain numbers behind relaxed atomics, named and formatted only when somebody asks.
//!
//! The registry is our own, because a request passes it several times. The `metrics` facade looks each record up by name and
//! labels, and its exporter keeps every sample until it is scraped; `hdrhistogram` records through a lock or a channel;
//! the histograms of `prometheus` have no quantiles, which is what Vault's dashboards show. Here a record is a few atomic
//! additions to a field that the code names, and all that costs (names, labels, quantiles, text) is paid by who reads.
//!
//! Every name, with its kind, its labels and its meaning, stands in [`catalogue`]; `docs/metrics.md` is made from it.

pub(crate) mod catalogue;
pub(crate) mod format;
pub(crate) mod gather;
pub(crate) mod labelled;
mod process;
pub(crate) mod routes;
pub(crate) mod storage;
pub(crate) mod timing;
pub(crate) mod usage;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use keepfast_framework::Timestamp;
use parking_lot::Mutex;

pub(crate) use labelled::{Labelled, StatusCodes};
pub use timing::Summary;
pub(crate) use timing::{Interval, Timing};

/// How long an interval of the JSON form is, in seconds, as Vault's.
pub(crate) const INTERVAL: i64 = 10;

/// What the server counts of itself. Lives as long as the process.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Requests that are no logins, from their arrival in the kernel to their answer.
    pub(crate) request: Timing,
    /// Logins.
    pub(crate) login: Timing,
    /// Finding the caller and what the caller may do.
    pub(crate) check_token: Timing,
    /// Unsealing.
    pub(crate) unseal: Timing,
    /// The part of it that opens what serving needs.
    pub(crate) post_unseal: Timing,
    /// Sealing.
    pub(crate) seal: Timing,
    /// Finding, making and ending tokens.
    pub(crate) tokens: TokenTimings,
    /// Leases.
    pub(crate) leases: LeaseTimings,
    /// Policies.
    pub(crate) policies: PolicyTimings,
    /// Entries of requests, written by the audit devices.
    pub(crate) audit_request: Timing,
    /// Entries of answers.
    pub(crate) audit_response: Timing,
    /// Entries of requests that no device took.
    pub(crate) audit_request_failure: Counter,
    /// Entries of answers that no device took.
    pub(crate) audit_response_failure: Counter,
    /// Requests that a quota refused.
    pub(crate) quota_violation: Counter,
    /// Requests under way.
    pub(crate) in_flight: AtomicI64,
    /// Answers by their status.
    pub(crate) responses: StatusCodes,
    /// Root tokens that were made.
    pub(crate) root_tokens: Counter,
    /// Tokens that were made, by auth method, mount, life and type.
    pub(crate) token_creation: Labelled,
    /// Leases that were made, by engine, mount and life.
    pub(crate) lease_creation: Labelled,
    /// Entities that were made, by auth method and mount.
    pub(crate) entity_creation: Labelled,
    /// The barrier and the storage below it.
    pub(crate) backend: storage::BackendTimings,
    /// Counters at the turns of intervals.
    pub(crate) turns: Mutex<Turns>,
    /// What is counted in the background.
    pub(crate) usage: Mutex<Vec<Item>>,
}

/// What is done with tokens.
#[derive(Default)]
pub(crate) struct TokenTimings {
    /// Finding a token.
    pub(crate) lookup: Timing,
    /// Making a service token.
    pub(crate) create: Timing,
    /// Writing its record.
    pub(crate) store: Timing,
    /// Ending one token, whose children become orphans.
    pub(crate) revoke: Timing,
    /// Ending a token and all that descend from it.
    pub(crate) revoke_tree: Timing,
}

/// What is done with leases.
#[derive(Default)]
pub(crate) struct LeaseTimings {
    /// Making a lease.
    pub(crate) register: Timing,
    /// Making a token that ends.
    pub(crate) register_auth: Timing,
    /// Renewing a lease.
    pub(crate) renew: Timing,
    /// Renewing a token.
    pub(crate) renew_token: Timing,
    /// Revoking a lease.
    pub(crate) revoke: Timing,
    /// Revoking by prefix.
    pub(crate) revoke_prefix: Timing,
    /// Revoking by prefix and force.
    pub(crate) revoke_force: Timing,
    /// Marking the leases of a token as due.
    pub(crate) revoke_by_token: Timing,
    /// Looking a lease up.
    pub(crate) fetch_times: Timing,
    /// Leases and tokens whose time had come and that are revoked.
    pub(crate) expired: Counter,
    /// Those that could not be revoked.
    pub(crate) expiration_errors: Counter,
}

/// What is done with policies.
#[derive(Default)]
pub(crate) struct PolicyTimings {
    /// Reading one.
    pub(crate) get: Timing,
    /// Writing one.
    pub(crate) set: Timing,
    /// Deleting one.
    pub(crate) delete: Timing,
    /// Listing them.
    pub(crate) list: Timing,
}

/// A number that only grows.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters at the ends of intervals: the JSON form reports the increase of the last interval.
#[derive(Default)]
pub(crate) struct Turns {
    /// When the reported interval began; `None` before the end of the first one.
    pub(crate) reported_since: Option<Timestamp>,
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
        self.reported_since = Some(self.began.unwrap_or(Timestamp::from_unix(now.unix() - INTERVAL)));
        self.began = Some(now);
    }

    /// What a counter gained in the last interval; before the first turn all that it has.
    fn gained(&self, item: &Item, count: u64) -> u64 {
        match self.reported_since {
            None => count,
            Some(_) => self.last.get(&(item.name.clone(), item.labels.clone())).copied().unwrap_or(0),
        }
    }
}

/// A request under way, counted until this is dropped.
pub(crate) struct InFlight<'a>(&'a Metrics);

impl Metrics {
    /// Counts a request as under way.
    pub(crate) fn in_flight(&self) -> InFlight<'_> {
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
    pub(crate) fn new(name: impl Into<String>, value: Value) -> Self {
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
