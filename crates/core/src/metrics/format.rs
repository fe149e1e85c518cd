//! The numbers as text for Prometheus (exposition format 0.0.4) and as Vault's JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use keepfast_framework::Timestamp;
use serde::Serialize;

use super::{Item, Value};

/// How often the peer's numbers begin anew, in seconds; a rate is told over it.
const INTERVAL: f64 = 10.0;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'a> {
    timestamp: String,
    gauges: Vec<Gauge<'a>>,
    points: [(); 0],
    counters: Vec<Sample<'a>>,
    samples: Vec<Sample<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Gauge<'a> {
    name: String,
    value: f64,
    labels: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Sample<'a> {
    name: String,
    count: u64,
    rate: f64,
    sum: f64,
    min: f64,
    max: f64,
    mean: f64,
    stddev: f64,
    labels: BTreeMap<&'a str, &'a str>,
}

/// Vault's JSON. What it tells of ten seconds is told since the start of the process; the least and the deviation, which
/// are not kept, are zero.
///
/// # Errors
/// Never: numbers and texts are always JSON.
pub fn json(items: &[Item], prefix: &str, now: Timestamp) -> serde_json::Result<Vec<u8>> {
    let seconds = now.rfc3339_seconds();
    let timestamp = format!("{} +0000 UTC", seconds.trim_end_matches('Z').replace('T', " "));
    let (mut gauges, mut counters, mut samples) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        let name = format!("{prefix}.{}", item.name);
        let labels = item.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let sample = |count: u64, sum: f64, max: f64, name, labels| {
            let mean = if count == 0 { 0.0 } else { sum / count as f64 };
            Sample { name, count, rate: sum / INTERVAL, sum, min: 0.0, max, mean, stddev: 0.0, labels }
        };
        match item.value {
            Value::Gauge(value) => gauges.push(Gauge { name, value, labels }),
            Value::Counter(count) => counters.push(sample(count, count as f64, 1.0, name, labels)),
            Value::Summary(s) => samples.push(sample(s.count, s.sum, s.max, name, labels)),
        }
    }
    let mut out = serde_json::to_vec(&Document { timestamp, gauges, points: [], counters, samples })?;
    out.push(b'\n');
    Ok(out)
}

/// The exposition format of Prometheus.
pub fn prometheus(items: &[Item], prefix: &str) -> String {
    let mut out = String::with_capacity(items.len() * 128);
    let mut last = String::new();
    for item in items {
        let name = plain(&format!("{prefix}_{}", item.name));
        let kind = match item.value {
            Value::Gauge(_) => "gauge",
            Value::Counter(_) => "counter",
            Value::Summary(_) => "summary",
        };
        if name != last {
            // Writing to a string does not fail.
            let _ = writeln!(out, "# HELP {name} {name}\n# TYPE {name} {kind}");
            last.clone_from(&name);
        }
        let labels = labels(item);
        let _ = match item.value {
            Value::Gauge(value) => writeln!(out, "{name}{labels} {value}"),
            Value::Counter(count) => writeln!(out, "{name}{labels} {count}"),
            Value::Summary(s) => writeln!(out, "{name}_sum{labels} {}\n{name}_count{labels} {}", s.sum, s.count),
        };
    }
    out
}

/// Letters, digits and underscores.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn labels(item: &Item) -> String {
    if item.labels.is_empty() {
        return String::new();
    }
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let all: Vec<String> = item.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", all.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::Summary;
    use super::*;

    fn items() -> Vec<Item> {
        let item = |name: &str, value| Item { name: name.to_owned(), labels: Vec::new(), value };
        vec![
            item("core.handle_request", Value::Summary(Summary { count: 4, sum: 10.0, max: 7.0 })),
            Item { labels: vec![("mount_point", "a\"b/".to_owned())], ..item("database.pool.open", Value::Gauge(3.0)) },
            item("raft-storage.failure", Value::Counter(2)),
        ]
    }

    #[test]
    fn prometheus_reads_every_kind() {
        let text = prometheus(&items(), "vault");
        let expected = "# HELP vault_core_handle_request vault_core_handle_request\n\
            # TYPE vault_core_handle_request summary\n\
            vault_core_handle_request_sum 10\n\
            vault_core_handle_request_count 4\n\
            # HELP vault_database_pool_open vault_database_pool_open\n\
            # TYPE vault_database_pool_open gauge\n\
            vault_database_pool_open{mount_point=\"a\\\"b/\"} 3\n\
            # HELP vault_raft_storage_failure vault_raft_storage_failure\n\
            # TYPE vault_raft_storage_failure counter\n\
            vault_raft_storage_failure 2\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_has_the_names_of_vault() {
        let bytes = json(&items(), "vault", Timestamp::from_unix(0)).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["Timestamp"], "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(value["Points"], serde_json::json!([]));
        let gauge = &value["Gauges"][0];
        assert_eq!(
            (&gauge["Name"], &gauge["Labels"]["mount_point"]),
            (&"vault.database.pool.open".into(), &"a\"b/".into())
        );
        let sample = &value["Samples"][0];
        assert_eq!((&sample["Count"], &sample["Mean"], &sample["Max"]), (&4.into(), &2.5.into(), &7.0.into()));
        assert_eq!(value["Counters"][0]["Count"], 2);
    }
}
