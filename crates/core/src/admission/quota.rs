//! Rate quotas: the number of requests of an address in an interval, on the whole server, a namespace, a mount or a path.
//!
//! Checked before a byte of the body is read. The memory for callers is bounded.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::namespace::NamespaceId;
use crate::quota::target::{Target, Targets};

/// The maximum number of addresses in one generation of a quota; there are two.
const MOST: usize = 50_000;

/// Paths without a quota by default: otherwise a quota could lock out an operator permanently.
pub(crate) const EXEMPT: &[&str] = &[
    "sys/generate-recovery-token/attempt",
    "sys/generate-recovery-token/update",
    "sys/generate-root/attempt",
    "sys/generate-root/update",
    "sys/health",
    "sys/seal-status",
    "sys/unseal",
];

/// The stored record of a quota.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RateLimit {
    /// The namespace of the quota.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(crate) namespace: NamespaceId,
    /// Its name.
    pub(crate) name: String,
    /// What it applies to.
    #[serde(flatten)]
    pub(crate) target: Target,
    /// Requests in an interval.
    pub(crate) rate: f64,
    /// The interval in seconds.
    pub(crate) interval: u64,
    /// The number of seconds for which a caller over the limit is refused; zero for none.
    pub(crate) block_interval: u64,
}

/// The stored configuration of all quotas.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct QuotaConfig {
    /// Paths without a quota; a trailing `*` or `/` matches all paths with this prefix.
    pub(crate) rate_limit_exempt_paths: Vec<String>,
    /// Whether refusals are audited.
    pub(crate) enable_rate_limit_audit_logging: bool,
    /// Whether responses have headers with the state of the quota.
    pub(crate) enable_rate_limit_response_headers: bool,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        QuotaConfig {
            rate_limit_exempt_paths: EXEMPT.iter().map(|&p| p.to_owned()).collect(),
            enable_rate_limit_audit_logging: false,
            enable_rate_limit_response_headers: false,
        }
    }
}

/// All quotas.
#[derive(Clone, Default)]
pub(crate) struct Quotas {
    /// The configuration.
    pub(crate) config: Arc<QuotaConfig>,
    limits: Targets<Arc<Limiter>>,
}

/// The parts of a request that select its quota.
pub(crate) struct QuotaRequest<'a> {
    /// The path in the URL, which exemptions name.
    pub(crate) sent: &'a str,
    /// The namespace, then those above it, up to root.
    pub(crate) lineage: &'a [&'a NamespaceId],
    /// The path in the namespace.
    pub(crate) path: &'a str,
}

/// The result of a quota for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaResult {
    /// Whether the request is refused.
    pub refused: bool,
    /// Requests in an interval.
    pub limit: u64,
    /// The remaining requests in the interval.
    pub remaining: u64,
    /// The number of seconds until the interval ends.
    pub reset: u64,
    /// The number of seconds after which a retry may succeed.
    pub retry_after: u64,
    /// Whether the response has headers with this state.
    pub with_headers: bool,
    /// Whether a refusal is audited.
    pub audits_refusal: bool,
}

impl Quotas {
    /// Whether there are no quotas.
    pub(crate) fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// Adds a quota, or replaces the one with its name, whose counts are dropped.
    pub(crate) fn put(&mut self, limit: RateLimit) {
        let (name, target) = (limit.name.clone(), limit.target.clone());
        self.limits.put(name, target, Arc::new(Limiter { limit, generations: Mutex::default() }));
    }

    /// Removes a quota.
    pub(crate) fn remove(&mut self, name: &str) {
        self.limits.remove(name);
    }

    /// The result of the most specific quota, which alone applies.
    pub(crate) fn check_quota(
        &self,
        request: &QuotaRequest<'_>,
        remote: Option<IpAddr>,
        now: Timestamp,
    ) -> Option<QuotaResult> {
        if self.config.rate_limit_exempt_paths.iter().any(|exempt| covers(exempt, request.sent)) {
            return None;
        }
        let limiter = self.limits.find(request.lineage.iter().copied(), request.path)?;
        let mut result = limiter.count(remote, now);
        result.with_headers = self.config.enable_rate_limit_response_headers;
        result.audits_refusal = self.config.enable_rate_limit_audit_logging;
        Some(result)
    }
}

fn covers(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None if pattern.ends_with('/') => path.starts_with(pattern),
        None => path == pattern,
    }
}

/// A quota with its counts.
struct Limiter {
    limit: RateLimit,
    generations: Mutex<Generations>,
}

/// Addresses in two generations. The older one is dropped as a whole, so that no search is needed and memory is
/// bounded.
#[derive(Default)]
struct Generations {
    started: Option<Timestamp>,
    current: HashMap<Caller, Window>,
    previous: HashMap<Caller, Window>,
}

/// An IPv4 address, or the IPv6 network of 64 bits, which one customer has; `None` for a local socket.
type Caller = Option<IpAddr>;

#[derive(Clone, Copy)]
struct Window {
    since: Timestamp,
    used: u64,
    blocked_until: Option<Timestamp>,
}

impl Limiter {
    fn count(&self, remote: Option<IpAddr>, now: Timestamp) -> QuotaResult {
        let limit = self.limit.rate.ceil() as u64;
        let interval = Duration::from_secs(self.limit.interval.max(1));
        let block = Duration::from_secs(self.limit.block_interval);
        let mut generations = self.generations.lock();
        generations.age(now, interval + block);
        let window = generations.window(remote.map(network), now);
        if now.since(window.since) >= interval {
            (window.since, window.used) = (now, 0);
        }
        let reset = window.since.after(interval).since(now).as_secs();
        let blocked = window.blocked_until.filter(|until| now < *until);
        let refused = blocked.is_some() || window.used >= limit;
        if !refused {
            window.used += 1;
        } else if blocked.is_none() && !block.is_zero() {
            window.blocked_until = Some(now.after(block));
        }
        let retry_after =
            window.blocked_until.filter(|until| now < *until).map_or(reset, |until| until.since(now).as_secs());
        let remaining = limit.saturating_sub(window.used);
        QuotaResult { refused, limit, remaining, reset, retry_after, with_headers: false, audits_refusal: false }
    }
}

impl Generations {
    /// Starts a new generation when the current one is as old as the longest count, or full.
    fn age(&mut self, now: Timestamp, span: Duration) {
        let started = *self.started.get_or_insert(now);
        if now.since(started) >= span || self.current.len() >= MOST {
            self.previous = std::mem::take(&mut self.current);
            self.started = Some(now);
        }
    }

    fn window(&mut self, caller: Caller, now: Timestamp) -> &mut Window {
        let known = self.previous.remove(&caller);
        let fresh = Window { since: now, used: 0, blocked_until: None };
        self.current.entry(caller).or_insert_with(|| known.unwrap_or(fresh))
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => {
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)))
        }
        other => other.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(path: &str, rate: f64, interval: u64, block: u64) -> RateLimit {
        RateLimit {
            namespace: NamespaceId::root(),
            name: path.to_owned(),
            target: Target {
                path: path.to_owned(),
                is_mount: path.ends_with('/'),
                inheritable: path.is_empty(),
                ..Target::default()
            },
            rate,
            interval,
            block_interval: block,
        }
    }

    fn quotas(limits: &[RateLimit]) -> Quotas {
        let mut out = Quotas::default();
        limits.iter().for_each(|l| out.put(l.clone()));
        out
    }

    fn check(quotas: &Quotas, path: &str, remote: Option<IpAddr>, now: Timestamp) -> Option<QuotaResult> {
        let request = QuotaRequest { sent: path, lineage: &[&NamespaceId::root()], path };
        quotas.check_quota(&request, remote, now)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix(1_000 + second)
    }

    const A: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));

    #[test]
    fn the_most_specific_quota_alone_decides() {
        let quotas = quotas(&[
            limit("", 9.0, 1, 0),
            limit("kv/", 8.0, 1, 0),
            limit("kv/a*", 7.0, 1, 0),
            limit("kv/abc", 6.0, 1, 0),
        ]);
        let of = |path: &str| check(&quotas, path, A, at(0)).map(|v| v.limit);
        assert_eq!(
            [of("sys/mounts"), of("kv/x"), of("kv"), of("kv/ab"), of("kv/abc"), of("kv/abc/"), of("kv/abcd")],
            [Some(9), Some(8), Some(8), Some(7), Some(6), Some(6), Some(7)]
        );
        assert_eq!(of("sys/health"), None, "exempt");
    }

    #[test]
    fn an_address_has_its_rate_in_every_interval_and_others_have_theirs() {
        let quotas = quotas(&[limit("", 1.5, 10, 0)]);
        let ask = |second, last| {
            let remote = IpAddr::from([10, 0, 0, last]);
            let v = check(&quotas, "a", Some(remote), at(second)).unwrap();
            (v.refused, v.remaining, v.reset)
        };
        assert_eq!([ask(0, 1), ask(1, 1), ask(2, 1)], [(false, 1, 10), (false, 0, 9), (true, 0, 8)]);
        assert_eq!(ask(2, 2), (false, 1, 10));
        assert_eq!([ask(10, 1), ask(11, 1), ask(12, 1)], [(false, 1, 10), (false, 0, 9), (true, 0, 8)]);
    }

    #[test]
    fn an_address_above_its_rate_is_blocked_for_the_block_interval() {
        let quotas = quotas(&[limit("", 1.0, 1, 5)]);
        let ask = |second| {
            let v = check(&quotas, "a", A, at(second)).unwrap();
            (v.refused, v.retry_after)
        };
        assert!(!ask(0).0);
        assert_eq!([ask(0), ask(3)], [(true, 5), (true, 2)]);
        assert!(!ask(5).0);
    }

    #[test]
    fn addresses_of_one_network_are_one_caller_and_memory_is_bounded() {
        let limiter = Limiter { limit: limit("", 1.0, 3600, 0), generations: Mutex::default() };
        let v6 = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert!(!limiter.count(v6("2001:db8::1"), at(0)).refused);
        assert!(limiter.count(v6("2001:db8::2"), at(0)).refused);
        assert!(!limiter.count(v6("2001:db8:0:1::2"), at(0)).refused);
        assert!(!limiter.count(v6("::ffff:10.0.0.9"), at(0)).refused);
        assert!(limiter.count(v6("10.0.0.9"), at(0)).refused);
        for n in 0..u32::try_from(3 * MOST).unwrap() {
            limiter.count(Some(IpAddr::V4(std::net::Ipv4Addr::from(n))), at(1));
        }
        let generations = limiter.generations.lock();
        assert!(generations.current.len() + generations.previous.len() <= 2 * MOST);
    }

    #[test]
    fn an_exemption_is_a_whole_path_unless_it_ends_in_a_slash_or_a_star() {
        let mut quotas = quotas(&[limit("", 9.0, 1, 0)]);
        let exempt = ["kv/a", "kv/b/", "kv/c*"].map(str::to_owned).to_vec();
        quotas.config = Arc::new(QuotaConfig { rate_limit_exempt_paths: exempt, ..QuotaConfig::default() });
        let is_exempt = |path: &str| check(&quotas, path, A, at(0)).is_none();
        assert_eq!(["kv/a", "kv/ab", "kv/a/b"].map(is_exempt), [true, false, false]);
        assert_eq!(["kv/b", "kv/b/", "kv/b/x", "kv/bx"].map(is_exempt), [false, true, true, false]);
        assert_eq!(["kv/c", "kv/cx", "kv/C"].map(is_exempt), [true, true, false]);
    }

    #[test]
    fn after_a_block_the_retry_time_is_that_of_the_interval() {
        let quotas = quotas(&[limit("", 1.0, 3, 5)]);
        let ask = |second| {
            let v = check(&quotas, "a", A, at(second)).unwrap();
            (v.refused, v.retry_after)
        };
        assert_eq!([ask(0), ask(0), ask(4), ask(5)], [(false, 3), (true, 5), (true, 1), (false, 2)]);
    }

    #[test]
    fn a_count_is_kept_while_other_callers_come() {
        let limiter = Limiter { limit: limit("", 1.0, 3600, 0), generations: Mutex::default() };
        let ask = |last: u8, second| limiter.count(Some(IpAddr::from([10, 0, 0, last])), at(second)).refused;
        let generations = || {
            let generations = limiter.generations.lock();
            (generations.current.len(), generations.previous.len())
        };
        assert!((1..9).all(|last| !ask(last, 0)));
        assert!(ask(1, 3599), "its count is in the same generation");
        assert_eq!(generations(), (8, 0));
        assert!(!ask(1, 3600));
        assert_eq!(generations(), (1, 7));
    }
}
