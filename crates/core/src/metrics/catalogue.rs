//! Every metric with its name, kind, labels and meaning. `docs/metrics.md` is generated from this table, and a test
//! fails for a reported metric that is missing here.

#[cfg(test)]
use std::fmt::Write as _;

/// One metric.
#[derive(Debug)]
pub(crate) struct Metric {
    /// Parts joined by dots, without the prefix. `<…>` matches any text.
    pub(crate) name: &'static str,
    /// The kind of value.
    pub(crate) kind: Kind,
    /// Its labels, sorted by name.
    pub(crate) labels: &'static [&'static str],
    /// Its meaning.
    pub(crate) meaning: &'static str,
}

/// The kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Can increase and decrease.
    Gauge,
    /// Only increases.
    Counter,
    /// The count, the sum in milliseconds and the quantiles.
    Summary,
}

impl Kind {
    /// The name of the kind in Prometheus.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Summary => "summary",
        }
    }
}

const fn metric(name: &'static str, kind: Kind, labels: &'static [&'static str], meaning: &'static str) -> Metric {
    Metric { name, kind, labels, meaning }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], meaning: &'static str) -> Metric {
    metric(name, Kind::Gauge, labels, meaning)
}

const fn counter(name: &'static str, labels: &'static [&'static str], meaning: &'static str) -> Metric {
    metric(name, Kind::Counter, labels, meaning)
}

const fn summary(name: &'static str, meaning: &'static str) -> Metric {
    metric(name, Kind::Summary, &[], meaning)
}

/// The metrics under Vault's names, in its groups. Metrics that begin with `process_` are reported to Prometheus only,
/// without the prefix.
pub(crate) const METRICS: &[Metric] = &[
    gauge("core.active", &["cluster"], "1 while the server is unsealed: it leads alone"),
    gauge("core.unsealed", &["cluster"], "1 while the server is unsealed"),
    gauge("core.in_flight_requests", &["cluster"], "requests under way"),
    gauge("core.locked_users", &[], "users that are locked out after failed logins"),
    gauge(
        "core.mount_table.num_entries",
        &["cluster", "local", "type"],
        "mounts: `auth` methods and `logical` (secrets) engines",
    ),
    gauge("core.mount_table.size", &["cluster", "local", "type"], "bytes of the records of these mounts"),
    counter("core.response_status_code", &["code", "type"], "answers by status code and its class (`2xx`)"),
    summary("core.handle_request", "requests that are no logins, from their arrival in the kernel to their answer"),
    summary("core.handle_login_request", "requests to a path that logs callers in"),
    summary("core.check_token", "finding the caller of a request and what the caller may do"),
    summary("core.unseal", "unsealing with enough shares"),
    summary("core.post_unseal", "the part of unsealing that opens what serving needs"),
    summary("core.seal", "sealing"),
    summary(
        "route.<operation>.<mount>",
        "the engine of a mount with the commit of its transaction, by `create`, `read`, `update`, `patch`, `delete`, `list`, `scan`, `renew` or `revoke`; slashes of the mount's path become dashes. `create` is a write that looked for what it wrote and found none",
    ),
    summary("audit.log_request", "recording a request on all audit devices"),
    summary("audit.log_response", "recording an answer on all audit devices"),
    summary("audit.<device>.log_request", "recording a request on one device; its path ends in a slash"),
    summary("audit.<device>.log_response", "recording an answer on one device; its path ends in a slash"),
    counter("audit.log_request_failure", &[], "requests that no audit device took; they fail"),
    counter("audit.log_response_failure", &[], "answers that no audit device took; they fail"),
    summary("policy.get_policy", "reading a policy"),
    summary("policy.set_policy", "writing a policy, without the commit"),
    summary("policy.delete_policy", "deleting a policy, without the commit"),
    summary("policy.list_policies", "listing policies"),
    summary("token.create", "making a service token, without the commit; batch tokens are counted by `token.creation`"),
    summary("token.store", "writing the record of a service token, without the commit"),
    summary("token.lookup", "finding the token of a request"),
    summary("token.revoke", "ending a token and leaving its children as orphans"),
    summary("token.revoke-tree", "ending a token with all that descend from it"),
    counter(
        "token.creation",
        &["auth_method", "cluster", "creation_ttl", "mount_point", "namespace", "token_type"],
        "tokens that were made",
    ),
    counter("token.create_root", &[], "root tokens that were made"),
    gauge("token.count", &["cluster", "namespace"], "service tokens; counted at `usage_gauge_period`"),
    gauge(
        "token.count.by_auth",
        &["auth_method", "cluster", "namespace"],
        "service tokens by auth method; counted at `usage_gauge_period`",
    ),
    gauge(
        "token.count.by_policy",
        &["cluster", "namespace", "policy"],
        "service tokens that have a policy; counted at `usage_gauge_period`",
    ),
    gauge(
        "token.count.by_ttl",
        &["cluster", "creation_ttl", "namespace"],
        "service tokens by the life they were given, `+Inf` for those without an end; counted at `usage_gauge_period`",
    ),
    gauge("expire.num_leases", &[], "tokens and leases that wait for their end"),
    gauge("expire.num_irrevocable_leases", &[], "leases that could not be revoked and wait for an operator"),
    gauge("expire.lease_quarantine", &[], "1 while leases are under quarantine and none is revoked"),
    counter("expire.lease_expiration", &[], "tokens and leases that were revoked because their time had come"),
    counter("expire.lease_expiration.error", &[], "revocations of due leases that failed"),
    summary("expire.register", "making a lease, without the commit"),
    summary("expire.register-auth", "making a service token that has an end, without the commit"),
    summary("expire.renew", "renewing a lease"),
    summary("expire.renew-token", "renewing a token, without the commit"),
    summary("expire.revoke", "revoking a lease, or a token whose time had come"),
    summary("expire.revoke-force", "revoking by prefix and force"),
    summary("expire.revoke-prefix", "revoking by prefix"),
    summary("expire.revoke-by-token", "marking the leases of a token that ends as due"),
    summary("expire.fetch-lease-times", "looking up a lease"),
    counter(
        "secret.lease.creation",
        &["cluster", "creation_ttl", "mount_point", "namespace", "secret_engine"],
        "leases that were made",
    ),
    gauge(
        "secret.kv.count",
        &["cluster", "mount_point", "namespace"],
        "secrets of a KV mount; counted at `usage_gauge_period`",
    ),
    gauge("identity.num_entities", &[], "entities; counted at `usage_gauge_period`"),
    gauge("identity.entity.count", &["cluster", "namespace"], "entities; counted at `usage_gauge_period`"),
    gauge(
        "identity.entity.alias.count",
        &["auth_method", "cluster", "mount_point", "namespace"],
        "aliases of entities at a mount; counted at `usage_gauge_period`",
    ),
    counter(
        "identity.entity.creation",
        &["auth_method", "cluster", "mount_point", "namespace"],
        "entities that were made",
    ),
    counter("quota.rate_limit.violation", &[], "requests that a rate limit quota refused"),
    summary("barrier.get", "reading a record; what the cache answers takes no time"),
    summary("barrier.list", "listing all names of a folder"),
    summary("barrier.list_page", "listing some names of a folder"),
    summary("barrier.put", "writing a record: each takes as long as the commit that it is part of"),
    summary("barrier.delete", "deleting a record: each takes as long as the commit that it is part of"),
    counter("barrier.estimated_encryptions", &["term"], "encryptions with the key in use, an upper bound"),
    counter("cache.hit", &[], "reads that the cache answered, since the server was unsealed"),
    counter("cache.miss", &[], "reads that the storage answered, since the server was unsealed"),
    counter("cache.write", &[], "records written through the cache"),
    counter("cache.delete", &[], "records deleted through the cache"),
    summary("<storage>.get", "reading from the storage: `raft-storage`, `file` or `inmem`"),
    summary("<storage>.list", "as `barrier.list`"),
    summary("<storage>.list_page", "as `barrier.list_page`"),
    summary("<storage>.put", "as `barrier.put`"),
    summary("<storage>.delete", "as `barrier.delete`"),
    summary("<storage>.transaction", "commits, until they are durable"),
    gauge(
        "storage.disk.free_bytes",
        &[],
        "bytes that the server may still write where its data is; the storages `raft` and `file` have it",
    ),
    gauge("storage.disk.total_bytes", &[], "bytes of the file system where its data is"),
    gauge(
        "listener.certificate.not_after",
        &["listener"],
        "the end of the certificate that a listener serves, in Unix seconds",
    ),
    gauge("database.pool.open", &["connection", "mount_point"], "open connections of a database"),
    gauge("database.pool.in_use", &["connection", "mount_point"], "those in use"),
    gauge("database.pool.idle", &["connection", "mount_point"], "those that wait"),
    gauge("database.pool.waits", &["connection", "mount_point"], "how often a request waited for a connection"),
    gauge("database.pool.opened", &["connection", "mount_point"], "connections that were opened since the first use"),
    gauge("runtime.alloc_bytes", &[], "resident memory"),
    gauge("runtime.sys_bytes", &[], "virtual memory"),
    gauge("process_resident_memory_bytes", &[], "resident memory"),
    gauge("process_virtual_memory_bytes", &[], "virtual memory"),
    counter("process_cpu_seconds_total", &[], "user and system time"),
    gauge("process_start_time_seconds", &[], "the start of the process, in Unix seconds"),
    gauge("process_open_fds", &[], "open file descriptors"),
    gauge("process_max_fds", &[], "how many there may be"),
    gauge("process_threads", &[], "threads"),
];

/// The metric of this name.
pub(crate) fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name).or_else(|| METRICS.iter().find(|metric| fits(metric.name, name)))
}

/// Whether a name matches a pattern.
fn fits(pattern: &str, name: &str) -> bool {
    let (Some(open), Some(close)) = (pattern.find('<'), pattern.rfind('>')) else { return false };
    name.strip_prefix(&pattern[..open])
        .is_some_and(|rest| rest.strip_suffix(&pattern[close + 1..]).is_some_and(|inner| !inner.is_empty()))
}

/// The table of `docs/metrics.md`.
#[cfg(test)]
pub(crate) fn table() -> String {
    let mut out = String::from("| name | kind | labels | meaning |\n|---|---|---|---|\n");
    for Metric { name, kind, labels, meaning } in METRICS {
        // Writing to a string does not fail.
        let _ = writeln!(out, "| `{name}` | {} | {} | {meaning} |", kind.name(), labels.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns_are_found() {
        for (name, pattern) in [
            ("barrier.get", "barrier.get"),
            ("raft-storage.get", "<storage>.get"),
            ("route.read.secret-", "route.<operation>.<mount>"),
            ("audit.file/.log_request", "audit.<device>.log_request"),
            ("audit.log_request", "audit.log_request"),
        ] {
            assert_eq!(find(name).map(|metric| metric.name), Some(pattern));
        }
        assert!(find("nothing").is_none() && find(".get").is_none());
    }

    #[test]
    fn every_name_stands_once_and_labels_are_sorted() {
        for (at, metric) in METRICS.iter().enumerate() {
            assert!(METRICS[..at].iter().all(|other| other.name != metric.name), "{}", metric.name);
            assert!(metric.labels.is_sorted(), "{}", metric.name);
        }
    }
}
