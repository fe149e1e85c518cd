//! Reads all metrics and reports them under Vault's names.

use std::sync::atomic::Ordering;

use keepfast_framework::engine::Gauge;

use super::{Item, Value, catalogue, members, process, seals};
use crate::lifecycle::Lifecycle;
use crate::unsealed::Unsealed;

/// All metrics, by name.
pub(crate) fn gather(server: &Lifecycle) -> Vec<Item> {
    let mut out = items(server);
    let host = server.parts.settings.host_gauges.as_ref().map(|host| host.gauges()).unwrap_or_default();
    out.extend(host.into_iter().map(item_of));
    label(server, &mut out);
    out.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
    out
}

/// All metrics except the gauges of the machine, which need system calls, without the label `cluster`.
fn items(server: &Lifecycle) -> Vec<Item> {
    let unsealed = server.unsealed();
    if let Some(unsealed) = &unsealed {
        record_cache_hits(unsealed);
    }
    let mut out = own_numbers(server);
    out.extend(process::items());
    out.extend(seals::items(&server.seals));
    let flag = |on: bool| Value::Gauge(f64::from(u8::from(on)));
    out.push(Item::new("core.unsealed", flag(unsealed.is_some())));
    out.push(Item::new("core.active", flag(unsealed.is_some() && server.parts.is_active())));
    if let Some(unsealed) = unsealed {
        out.extend(server.parts.metrics.usage.lock().iter().cloned());
        out.extend(of_unsealed(&unsealed));
        out.extend(of_mounts(&unsealed));
        out.extend(members::items(server));
    }
    out
}

/// Adds the label `cluster` where the catalogue has it, and sorts the labels.
fn label(server: &Lifecycle, items: &mut [Item]) {
    let cluster = server.cluster_name();
    for item in items {
        if catalogue::find(&item.name).is_some_and(|known| known.labels.contains(&"cluster")) {
            item.labels.push(("cluster", cluster.clone()));
        }
        item.labels.sort_unstable();
    }
}

/// Ends an interval of the metrics and begins the next one.
pub(crate) fn turn(server: &Lifecycle) {
    if let Some(unsealed) = server.unsealed() {
        record_cache_hits(&unsealed);
        unsealed.engines.mounts.router().all().for_each(|mounted| mounted.timings.turn_all());
        unsealed.observability.audit.turn();
    }
    server.parts.metrics.turn_all();
    seals::turn(&server.seals);
    let mut items = items(server);
    label(server, &mut items);
    server.parts.metrics.turns.lock().turn(&items, server.parts.clock.now());
}

fn own_numbers(server: &Lifecycle) -> Vec<Item> {
    let metrics = &server.parts.metrics;
    let store = match server.parts.settings.storage_type.as_str() {
        "raft" => "raft-storage",
        other => other,
    };
    let mut out: Vec<Item> = metrics
        .timings()
        .into_iter()
        .chain(metrics.backend.all())
        .map(|(name, timing)| Item::new(name, Value::Summary(timing.read())))
        .collect();
    let below: Vec<Item> = out
        .iter()
        .filter_map(|item| {
            let name = match item.name.as_str() {
                "get" | "transaction" => &item.name,
                name => name.strip_prefix("barrier.").filter(|name| *name != "get")?,
            };
            Some(Item::new(format!("{store}.{name}"), item.value))
        })
        .collect();
    out.retain(|item| !matches!(item.name.as_str(), "get" | "transaction"));
    out.extend(below);
    let counters = [
        ("audit.log_request_failure", metrics.audit_request_failure.read()),
        ("audit.log_response_failure", metrics.audit_response_failure.read()),
        ("quota.rate_limit.violation", metrics.quota_violation.read()),
        ("token.create_root", metrics.root_tokens.read()),
        ("expire.lease_expiration", metrics.leases.expired.read()),
        ("expire.lease_expiration.error", metrics.leases.expiration_errors.read()),
        ("autosnapshots.save.errors", metrics.snapshots.save_failed.read()),
        ("autosnapshots.rotate.errors", metrics.snapshots.rotate_failed.read()),
        ("cache.write", metrics.backend.put.count()),
        ("cache.delete", metrics.backend.delete.count()),
    ];
    out.extend(counters.map(|(name, count)| Item::new(name, Value::Counter(count))));
    let in_flight = metrics.in_flight.load(Ordering::Relaxed) as f64;
    out.push(Item::new("core.in_flight_requests", Value::Gauge(in_flight)));
    out.extend(metrics.responses.items("core.response_status_code"));
    out.extend(metrics.token_creation.items("token.creation"));
    out.extend(metrics.lease_creation.items("secret.lease.creation"));
    out.extend(metrics.entity_creation.items("identity.entity.creation"));
    out
}

/// Records the reads that the cache has served since the last call. They are not timed, so they count as zero.
fn record_cache_hits(unsealed: &Unsealed) {
    let hits = unsealed.barrier.operation_counts().hits;
    let recorded = unsealed.observability.cache_hits_recorded.fetch_max(hits, Ordering::Relaxed);
    unsealed
        .observability
        .metrics
        .backend
        .barrier_get
        .record_each(hits.saturating_sub(recorded), std::time::Duration::ZERO);
}

/// The metrics of an unsealed server.
fn of_unsealed(unsealed: &Unsealed) -> Vec<Item> {
    let operation_counts = unsealed.barrier.operation_counts();
    let locked = unsealed.access.lockout.count_locked(unsealed.clock.now());
    let quarantined = f64::from(u8::from(unsealed.leases.store.is_quarantined()));
    let mut out = vec![
        Item::new("cache.hit", Value::Counter(operation_counts.hits)),
        Item::new("cache.miss", Value::Counter(operation_counts.gets.saturating_sub(operation_counts.hits))),
        Item::new("core.locked_users", Value::Gauge(locked as f64)),
        Item::new("expire.lease_quarantine", Value::Gauge(quarantined)),
    ];
    if let Some(counts) = unsealed.leases.store.counts.read() {
        out.push(Item::new("expire.num_leases", Value::Gauge(counts.waiting as f64)));
        out.push(Item::new("expire.num_irrevocable_leases", Value::Gauge(counts.irrevocable as f64)));
    }
    if let Ok(key) = unsealed.barrier.key_status() {
        let labels = vec![("term", key.term.to_string())];
        let value = Value::Counter(key.encryptions);
        out.push(Item { labels, ..Item::new("barrier.estimated_encryptions", value) });
    }
    out.extend(unsealed.observability.audit.items());
    out
}

/// The number of mounts, the size of their table, the timings of their engines, and the gauges of the engines.
fn of_mounts(unsealed: &Unsealed) -> Vec<Item> {
    let router = unsealed.engines.mounts.router();
    let mut out = Vec::new();
    for (kind, auth) in [("auth", true), ("logical", false)] {
        for local in [false, true] {
            let entries = router.all().map(|m| &m.entry).filter(|entry| entry.auth == auth && entry.local == local);
            let (count, size) = entries.fold((0, 0), |(count, size), entry| (count + 1, size + stored_size(entry)));
            let labels = vec![("local", local.to_string()), ("type", kind.to_owned())];
            for (name, value) in [("core.mount_table.num_entries", count), ("core.mount_table.size", size)] {
                out.push(Item { labels: labels.clone(), ..Item::new(name, Value::Gauge(value as f64)) });
            }
        }
    }
    for mounted in router.all() {
        out.extend(mounted.timings.items(&mounted.entry.path));
        let gauges = mounted.opened().map(|engine| engine.gauges()).unwrap_or_default();
        out.extend(gauges.into_iter().map(item_of).map(|mut item| {
            item.labels.push(("mount_point", mounted.entry.path.clone()));
            item
        }));
    }
    out
}

/// The size of the record of a mount in bytes.
fn stored_size(entry: &crate::mount::MountEntry) -> usize {
    struct Length(usize);
    impl std::io::Write for Length {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut length = Length(0);
    // A write that only counts bytes does not fail.
    let _ = serde_json::to_writer(&mut length, entry);
    length.0
}

fn item_of(gauge: Gauge) -> Item {
    Item { name: gauge.name.to_owned(), labels: gauge.labels, value: Value::Gauge(gauge.value) }
}
