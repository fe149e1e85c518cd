//! Reads all numbers and gives them Vault's names.

use std::sync::atomic::Ordering;

use super::{BackendSummary, Item, Summary, Value};
use crate::node::Node;
use crate::unsealed::Unsealed;

/// A page of memory in bytes.
const PAGE: u64 = 4096;

fn item(name: impl Into<String>, value: Value) -> Item {
    Item { name: name.into(), labels: Vec::new(), value }
}

impl Node {
    /// All numbers, by name.
    pub fn gather(&self) -> Vec<Item> {
        let mut out = self.own_numbers();
        out.extend(memory());
        let unsealed = self.unsealed();
        let flag = |on: bool| Value::Gauge(f64::from(u8::from(on)));
        out.push(item("core.unsealed", flag(unsealed.is_some())));
        out.push(item("core.active", flag(unsealed.is_some())));
        if let Some(unsealed) = unsealed {
            out.extend(of_barrier(&unsealed, self.metrics.backend.read()));
            out.extend(of_mounts(&unsealed));
            let locked: usize = unsealed.lockout.locked(self.clock.now()).values().map(Vec::len).sum();
            out.push(item("core.locked_users", Value::Gauge(locked as f64)));
            out.push(item("token.create", Value::Counter(unsealed.tokens.created.read())));
        }
        if !self.settings.telemetry.disable_hostname && !self.settings.hostname.is_empty() {
            let host = &self.settings.hostname;
            out.iter_mut()
                .filter(|i| matches!(i.value, Value::Gauge(_)))
                .for_each(|i| i.name = format!("{host}.{}", i.name));
        }
        out.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
        out
    }

    fn own_numbers(&self) -> Vec<Item> {
        let metrics = &self.metrics;
        let in_flight = metrics.in_flight.load(Ordering::Relaxed) as f64;
        let store = match self.settings.storage_type.as_str() {
            "raft" => "raft-storage",
            other => other,
        };
        let backend = &metrics.backend;
        let timings = [
            ("core.handle_request".to_owned(), metrics.request.read()),
            ("core.handle_login_request".to_owned(), metrics.login.read()),
            ("token.lookup".to_owned(), metrics.token_lookup.read()),
            ("audit.log_request".to_owned(), metrics.audit_request.read()),
            ("audit.log_response".to_owned(), metrics.audit_response.read()),
            (format!("{store}.get"), backend.get.read()),
            (format!("{store}.list"), backend.list.read()),
            (format!("{store}.transaction"), backend.commit.read()),
        ];
        let counters = [
            ("audit.log_request_failure", &metrics.audit_request_failure),
            ("audit.log_response_failure", &metrics.audit_response_failure),
            ("quota.rate_limit.violation", &metrics.quota_violation),
        ];
        let timings = timings.into_iter().map(|(name, summary)| item(name, Value::Summary(summary)));
        let counters = counters.into_iter().map(|(name, counter)| item(name, Value::Counter(counter.read())));
        timings.chain(counters).chain([item("core.in_flight_requests", Value::Gauge(in_flight))]).collect()
    }
}

/// The barrier counts, and the storage below it takes the time; both since the server was unsealed.
fn of_barrier(unsealed: &Unsealed, backend: BackendSummary) -> Vec<Item> {
    let traffic = unsealed.barrier.traffic();
    let before = &unsealed.backend_before;
    let timed = |name: &str, count: u64, below: Summary, before: Summary| {
        let sum = below.sum - before.sum;
        item(format!("barrier.{name}"), Value::Summary(Summary { count, sum, max: below.max }))
    };
    vec![
        timed("get", traffic.gets, backend.get, before.get),
        timed("list", traffic.lists, backend.list, before.list),
        timed("put", traffic.puts, backend.commit, before.commit),
        timed("delete", traffic.deletes, backend.commit, before.commit),
        item("cache.hit", Value::Counter(traffic.hits)),
        item("cache.miss", Value::Counter(traffic.gets.saturating_sub(traffic.hits))),
    ]
}

/// How many mounts there are, and what their engines tell.
fn of_mounts(unsealed: &Unsealed) -> Vec<Item> {
    let router = unsealed.mounts.router();
    let mut out = Vec::new();
    for (kind, auth) in [("auth", true), ("logical", false)] {
        for local in [false, true] {
            let count = router.all().filter(|m| m.entry.auth == auth && m.entry.local == local).count();
            out.push(Item {
                name: "core.mount_table.num_entries".to_owned(),
                labels: vec![("local", local.to_string()), ("type", kind.to_owned())],
                value: Value::Gauge(count as f64),
            });
        }
    }
    for mounted in router.all() {
        let gauges = mounted.opened().map(|engine| engine.gauges()).unwrap_or_default();
        out.extend(gauges.into_iter().map(|gauge| Item {
            name: gauge.name.to_owned(),
            labels: [vec![("mount_point", mounted.entry.path.clone())], gauge.labels].concat(),
            value: Value::Gauge(gauge.value),
        }));
    }
    out
}

/// The memory of the process as the system sees it.
fn memory() -> Vec<Item> {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split_ascii_whitespace().filter_map(|n| n.parse::<u64>().ok());
    let (whole, resident) = (pages.next().unwrap_or_default(), pages.next().unwrap_or_default());
    vec![
        item("runtime.alloc_bytes", Value::Gauge((resident * PAGE) as f64)),
        item("runtime.sys_bytes", Value::Gauge((whole * PAGE) as f64)),
    ]
}
