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
    gauge("core.active", &["cluster"], "1 while the server is unsealed and the active node"),
    gauge("core.unsealed", &["cluster"], "1 while the server is unsealed"),
    gauge("core.in_flight_requests", &["cluster"], "requests in flight"),
    gauge("core.locked_users", &[], "users that are locked out after failed logins"),
    gauge(
        "core.mount_table.num_entries",
        &["cluster", "local", "type"],
        "mounts of type `auth` and of type `logical` (secrets engines)",
    ),
    gauge("core.mount_table.size", &["cluster", "local", "type"], "bytes of the stored entries of these mounts"),
    counter("core.response_status_code", &["code", "type"], "responses by status code and its class (`2xx`)"),
    summary(
        "core.handle_request",
        "handling of a request other than a login, from its arrival in the kernel to its response",
    ),
    summary("core.handle_login_request", "handling of a login"),
    summary("core.check_token", "authentication and authorization of a request"),
    summary("core.unseal", "unsealing with a quorum of shares"),
    summary(
        "core.post_unseal",
        "the part of unsealing after the keys are available: opening mounts, policies, tokens and leases",
    ),
    summary("core.seal", "sealing"),
    gauge("seal.healthy", &["seal"], "1 while the last call of a seal of the configuration has succeeded"),
    metric(
        "seal.operation",
        Kind::Summary,
        &["op", "seal"],
        "calls of a seal that have ended: `wrap`, `unwrap` or `current_key`",
    ),
    counter(
        "seal.errors",
        &["class", "op", "seal"],
        "calls of a seal that failed: `unreachable`, `throttled`, `denied`, `wrong_key`, `misconfigured` or `crashed`",
    ),
    gauge(
        "seal.kek_generation_lag",
        &["seal"],
        "root keys that are newer than the key in the slot of a seal, at its last check; 0 when the slot is current",
    ),
    counter(
        "seal.renewals",
        &["seal"],
        "new keys of the slot of a seal, after a rotation of its key or of the root key",
    ),
    counter("seal.unseals", &["seal"], "unseals of the server by a seal"),
    counter("unseal.rounds", &[], "rounds in which the seals were tried to unseal the server"),
    summary(
        "route.<operation>.<mount>",
        "the engine of a mount with the commit of its transaction, by `create`, `read`, `update`, `patch`, `delete`, `list`, `scan`, `renew` or `revoke`; slashes of the mount's path become dashes. `create` is a write whose engine checked that the object did not exist",
    ),
    summary("audit.log_request", "writing a request entry to all audit devices"),
    summary("audit.log_response", "writing a response entry to all audit devices"),
    summary("audit.<device>.log_request", "writing a request entry to one device; its path ends in a slash"),
    summary("audit.<device>.log_response", "writing a response entry to one device; its path ends in a slash"),
    counter("audit.log_request_failure", &[], "requests that no audit device could write; they fail"),
    counter("audit.log_response_failure", &[], "responses that no audit device could write; their requests fail"),
    summary("policy.get_policy", "reading a policy"),
    summary("policy.set_policy", "writing a policy, without the commit"),
    summary("policy.delete_policy", "deleting a policy, without the commit"),
    summary("policy.list_policies", "listing policies"),
    summary(
        "token.create",
        "creating a service token, without the commit; batch tokens are counted by `token.creation`",
    ),
    summary("token.store", "writing the record of a service token, without the commit"),
    summary("token.lookup", "looking up the token of a request"),
    summary("token.revoke", "revoking a token and making its children orphans"),
    summary("token.revoke-tree", "revoking a token with all its descendants"),
    counter(
        "token.creation",
        &["auth_method", "cluster", "creation_ttl", "mount_point", "namespace", "token_type"],
        "created tokens",
    ),
    counter("token.create_root", &[], "created root tokens"),
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
        "service tokens by their TTL at creation, `+Inf` for those without an expiry; counted at `usage_gauge_period`",
    ),
    gauge("expire.num_leases", &[], "tokens and leases with an expiry"),
    gauge("expire.num_irrevocable_leases", &[], "irrevocable leases, which an operator must revoke"),
    gauge("expire.lease_quarantine", &[], "1 while leases are under quarantine and none is revoked"),
    counter("expire.lease_expiration", &[], "tokens and leases that were revoked at their expiry"),
    counter("expire.lease_expiration.error", &[], "failed revocations of expired leases"),
    summary("expire.register", "creating a lease, without the commit"),
    summary("expire.register-auth", "creating a service token with an expiry, without the commit"),
    summary("expire.renew", "renewing a lease"),
    summary("expire.renew-token", "renewing a token, without the commit"),
    summary("expire.revoke", "revoking a lease or an expired token"),
    summary("expire.revoke-force", "revoking leases by prefix and force"),
    summary("expire.revoke-prefix", "revoking leases by prefix"),
    summary("expire.revoke-by-token", "marking the leases of a revoked token as expired"),
    summary("expire.fetch-lease-times", "looking up a lease"),
    counter(
        "secret.lease.creation",
        &["cluster", "creation_ttl", "mount_point", "namespace", "secret_engine"],
        "created leases",
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
    counter("identity.entity.creation", &["auth_method", "cluster", "mount_point", "namespace"], "created entities"),
    counter("quota.rate_limit.violation", &[], "requests that a rate limit quota refused"),
    summary("barrier.get", "reading a record; a read from the cache counts as zero"),
    summary("barrier.list", "listing all names of a folder"),
    summary("barrier.list_page", "listing some names of a folder"),
    summary("barrier.put", "writing a record: each takes as long as the commit that it is part of"),
    summary("barrier.delete", "deleting a record: each takes as long as the commit that it is part of"),
    counter("barrier.estimated_encryptions", &["term"], "upper bound of the encryptions with the current key"),
    counter("cache.hit", &[], "reads from the cache, since unseal"),
    counter("cache.miss", &[], "reads from the storage backend, since unseal"),
    counter("cache.write", &[], "records written through the cache"),
    counter("cache.delete", &[], "records deleted through the cache"),
    summary("<storage>.get", "reading from the storage backend: `raft-storage`, `file` or `inmem`"),
    summary("<storage>.list", "as `barrier.list`"),
    summary("<storage>.list_page", "as `barrier.list_page`"),
    summary("<storage>.put", "as `barrier.put`"),
    summary("<storage>.delete", "as `barrier.delete`"),
    summary("<storage>.transaction", "commits until they are durable"),
    gauge(
        "raft_storage.stats.applied_index",
        &["cluster", "peer_id"],
        "last applied index of this node; for the storage `raft`, as the following ones",
    ),
    gauge("raft_storage.stats.commit_index", &["cluster", "peer_id"], "last committed index that this node knows"),
    gauge("raft_storage.stats.last_index", &["cluster", "peer_id"], "last index of the log of this node"),
    gauge("raft_storage.stats.fsm_pending", &["cluster", "peer_id"], "committed entries that are not applied"),
    gauge("raft_storage.stats.term", &["cluster", "peer_id"], "term of Raft; each election begins another one"),
    gauge("raft.peers", &[], "members of the cluster, this node among them"),
    gauge("raft.voters", &[], "members that vote"),
    gauge(
        "raft_storage.follower.applied_index_delta",
        &["peer_id"],
        "entries of the log that another member lacks; on the leader",
    ),
    gauge(
        "raft_storage.follower.last_heartbeat_ms",
        &["peer_id"],
        "time since the last message of another member; on the leader, after the first message",
    ),
    gauge("raft_storage.leader.last_contact_ms", &[], "time since the last message of the leader; on a standby"),
    gauge(
        "autosnapshots.last.success.time",
        &[],
        "when the newest automatic snapshot was taken, in seconds since 1970; on the leader, as the following gauges",
    ),
    gauge("autosnapshots.snapshot.size", &[], "bytes of the newest automatic snapshot"),
    gauge("autosnapshots.snapshots.in.storage", &[], "automatic snapshots in the directory"),
    gauge("autosnapshots.total.snapshot.size", &[], "bytes of all of them"),
    summary("autosnapshots.save.duration", "saving an automatic snapshot and verifying it"),
    counter("autosnapshots.save.errors", &[], "automatic snapshots that failed"),
    counter("autosnapshots.rotate.errors", &[], "failed deletions of old automatic snapshots"),
    counter(
        "cluster.batches_from_standby",
        &["path", "type"],
        "batches that the leader has committed for this standby, by the path and the type of the engine that wrote them; empty labels are those of no request",
    ),
    counter("raft.leader_changes", &[], "changes from one leader to another; in a cluster, as the following ones"),
    gauge("autopilot.healthy", &[], "1 while all members are healthy; on the leader"),
    gauge("autopilot.node.healthy", &["node_id"], "1 while this member is healthy; on the leader"),
    gauge(
        "autopilot.failure_tolerance",
        &[],
        "voters that may fail while a quorum of the voters stays healthy; on the leader",
    ),
    summary("core.leadership_lost", "the time for which this node has led, at its end"),
    summary("core.leadership_setup_failed", "failed takeovers of the leadership; they are repeated"),
    summary("core.step_down", "step-downs on request, until another node leads"),
    summary("ha.rpc.client.forward", "requests that the leader ran for this standby"),
    counter("ha.rpc.client.forward.errors", &[], "requests that no leader took, or whose outcome is not known"),
    summary("ha.rpc.client.commit", "batches that the leader committed for a request that ran at this standby"),
    counter("ha.rpc.client.commit.errors", &[], "such batches that were not committed, conflicts among them"),
    summary(
        "ha.rpc.client.read_index",
        "questions of this standby for the index that reads must see; reads that wait at the same time share one",
    ),
    counter("ha.rpc.client.read_index.errors", &[], "such questions without a response"),
    summary("ha.rpc.client.snapshot", "snapshots sent to members that lack entries which the log no longer has"),
    counter("ha.rpc.client.snapshot.errors", &[], "such snapshots that failed"),
    gauge(
        "storage.disk.free_bytes",
        &[],
        "free bytes of the file system of the data directory that the server may use; for the storages `raft` and `file`",
    ),
    gauge("storage.disk.total_bytes", &[], "size in bytes of the file system of the data directory"),
    gauge("listener.certificate.not_after", &["listener"], "expiry of the certificate of a listener, in Unix seconds"),
    gauge("database.pool.open", &["connection", "mount_point"], "open connections to a database"),
    gauge("database.pool.in_use", &["connection", "mount_point"], "connections in use"),
    gauge("database.pool.idle", &["connection", "mount_point"], "idle connections"),
    gauge("database.pool.waits", &["connection", "mount_point"], "requests that waited for a connection"),
    gauge("database.pool.opened", &["connection", "mount_point"], "connections opened since the first use"),
    gauge("runtime.alloc_bytes", &[], "resident memory in bytes"),
    gauge("runtime.sys_bytes", &[], "virtual memory in bytes"),
    gauge("process_resident_memory_bytes", &[], "resident memory in bytes"),
    gauge("process_virtual_memory_bytes", &[], "virtual memory in bytes"),
    counter("process_cpu_seconds_total", &[], "CPU time, user and system, in seconds"),
    gauge("process_start_time_seconds", &[], "start of the process, in Unix seconds"),
    gauge("process_open_fds", &[], "open file descriptors"),
    gauge("process_max_fds", &[], "limit on open file descriptors"),
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
    fn every_metric_name_is_unique_and_labels_are_sorted() {
        for (at, metric) in METRICS.iter().enumerate() {
            assert!(METRICS[..at].iter().all(|other| other.name != metric.name), "{}", metric.name);
            assert!(metric.labels.is_sorted(), "{}", metric.name);
        }
    }
}
