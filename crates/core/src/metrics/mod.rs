//! The metrics of the server: numbers in relaxed atomics, which get names and text only when they are read.
//!
//! The registry is our own, because a request records several metrics. The `metrics` facade looks up each record by
//! name and labels, and its exporter keeps every sample until the next scrape; `hdrhistogram` records through a lock or
//! a channel; the histograms of `prometheus` have no quantiles, which Vault's dashboards show. Here a record is a few
//! atomic additions to a known field, and only a read pays for names, labels, quantiles and text.
//!
//! [`catalogue`] has every name with its kind, labels and meaning; `docs/metrics.md` is generated from it.

pub(crate) mod catalogue;
pub(crate) mod cluster;
pub(crate) mod format;
pub(crate) mod gather;
mod item;
pub(crate) mod labelled;
mod members;
mod process;
pub(crate) mod routes;
mod seals;
pub(crate) mod standby;
pub(crate) mod storage;
pub(crate) mod timing;
pub(crate) mod transport;
pub(crate) mod usage;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use keepfast_framework::Timestamp;
use parking_lot::Mutex;

pub use item::{Item, Value};
pub(crate) use labelled::{Labelled, StatusCodes};
pub use timing::Summary;
pub(crate) use timing::{Counter, Interval, Timing};

/// The length of an interval of the JSON format in seconds, as in Vault.
pub(crate) const INTERVAL: i64 = 10;

/// The metrics of the server, for the lifetime of the process.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Requests that are no logins, from their arrival in the kernel to their response.
    pub(crate) request: Timing,
    /// Logins.
    pub(crate) login: Timing,
    /// Authentication and authorization of requests.
    pub(crate) check_token: Timing,
    /// Unsealing.
    pub(crate) unseal: Timing,
    /// The part of an unseal that opens the services.
    pub(crate) post_unseal: Timing,
    /// Sealing.
    pub(crate) seal: Timing,
    /// Lookup, creation and revocation of tokens.
    pub(crate) tokens: TokenTimings,
    /// Leases.
    pub(crate) leases: LeaseTimings,
    /// Policies.
    pub(crate) policies: PolicyTimings,
    /// Audit entries of requests.
    pub(crate) audit_request: Timing,
    /// Audit entries of responses.
    pub(crate) audit_response: Timing,
    /// Audit entries of requests that no audit device wrote.
    pub(crate) audit_request_failure: Counter,
    /// Audit entries of responses that no audit device wrote.
    pub(crate) audit_response_failure: Counter,
    /// Requests that a quota refused.
    pub(crate) quota_violation: Counter,
    /// Requests in flight.
    pub(crate) in_flight: AtomicI64,
    /// Responses by status code.
    pub(crate) responses: StatusCodes,
    /// Created root tokens.
    pub(crate) root_tokens: Counter,
    /// Created tokens, by auth method, mount, TTL and type.
    pub(crate) token_creation: Labelled,
    /// Issued leases, by engine, mount and TTL.
    pub(crate) lease_creation: Labelled,
    /// Created entities, by auth method and mount.
    pub(crate) entity_creation: Labelled,
    /// The other members of the cluster.
    pub(crate) cluster: cluster::ClusterTimings,
    /// Automatic snapshots.
    pub(crate) snapshots: SnapshotTimings,
    /// The barrier and the storage below it.
    pub(crate) backend: storage::BackendTimings,
    /// The values of counters at the ends of intervals.
    pub(crate) turns: Mutex<Turns>,
    /// The usage gauges, which are counted in the background.
    pub(crate) usage: Mutex<Vec<Item>>,
}

/// Timings of tokens.
#[derive(Default)]
pub(crate) struct TokenTimings {
    /// Lookup of a token.
    pub(crate) lookup: Timing,
    /// Creation of a service token.
    pub(crate) create: Timing,
    /// Write of the record of a token.
    pub(crate) store: Timing,
    /// Revocation of one token, whose children become orphans.
    pub(crate) revoke: Timing,
    /// Revocation of a token and all its descendants.
    pub(crate) revoke_tree: Timing,
}

/// Timings of leases.
#[derive(Default)]
pub(crate) struct LeaseTimings {
    /// Issue of a lease.
    pub(crate) register: Timing,
    /// Creation of a token with an expiry.
    pub(crate) register_auth: Timing,
    /// Renewal of a lease.
    pub(crate) renew: Timing,
    /// Renewal of a token.
    pub(crate) renew_token: Timing,
    /// Revocation of a lease.
    pub(crate) revoke: Timing,
    /// Revocation by prefix.
    pub(crate) revoke_prefix: Timing,
    /// Forced revocation by prefix.
    pub(crate) revoke_force: Timing,
    /// Marking the leases of a revoked token as expired.
    pub(crate) revoke_by_token: Timing,
    /// Lookup of a lease.
    pub(crate) fetch_times: Timing,
    /// Expired leases and tokens that are revoked.
    pub(crate) expired: Counter,
    /// Expired leases and tokens whose revocation failed.
    pub(crate) expiration_errors: Counter,
}

/// Automatic snapshots.
#[derive(Default)]
pub(crate) struct SnapshotTimings {
    /// Saving and verifying one.
    pub(crate) saved: Timing,
    /// Those that failed.
    pub(crate) save_failed: Counter,
    /// Failed deletions of the oldest.
    pub(crate) rotate_failed: Counter,
}

/// Timings of policies.
#[derive(Default)]
pub(crate) struct PolicyTimings {
    /// Read of a policy.
    pub(crate) get: Timing,
    /// Write of a policy.
    pub(crate) set: Timing,
    /// Deletion of a policy.
    pub(crate) delete: Timing,
    /// List of policies.
    pub(crate) list: Timing,
}

/// The values of counters at the ends of intervals. The JSON format reports the increase of the last interval.
#[derive(Default)]
pub(crate) struct Turns {
    /// The start of the reported interval; `None` before the end of the first one.
    pub(crate) reported_since: Option<Timestamp>,
    began: Option<Timestamp>,
    before: BTreeMap<Series, u64>,
    last: BTreeMap<Series, u64>,
}

/// A name with its label set.
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

    /// The increase of a counter in the last interval; before the end of the first one, its value.
    fn gained(&self, item: &Item, count: u64) -> u64 {
        match self.reported_since {
            None => count,
            Some(_) => self.last.get(&(item.name.clone(), item.labels.clone())).copied().unwrap_or(0),
        }
    }
}

/// A request in flight, counted until this is dropped.
pub(crate) struct InFlight<'a>(&'a Metrics);

impl Metrics {
    /// Counts a request in flight.
    pub(crate) fn in_flight(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// All timings with a fixed name, except those of the storage.
    fn timings(&self) -> [(&'static str, &Timing); 27] {
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
            ("autosnapshots.save.duration", &self.snapshots.saved),
        ]
    }

    /// Ends an interval of all timings, except those of mounts and audit devices.
    fn turn_all(&self) {
        let timings = self.timings().into_iter().chain(self.cluster.all()).chain(self.backend.all());
        timings.for_each(|(_, timing)| timing.turn());
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
