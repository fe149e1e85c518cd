//! The metrics as text for Prometheus (exposition format 0.0.4) and as Vault's JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use keepfast_framework::Timestamp;
use serde::Serialize;

use super::timing::QUANTILES;
use super::{INTERVAL, Interval, Item, Turns, Value, catalogue};

/// The start of the names that are reported to Prometheus only and without the prefix, as dashboards expect them.
const PROCESS: &str = "process_";

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

/// Vault's JSON: the current gauges, and the counters and timings of the last complete interval; before the end of the
/// first interval, those since the start of the process.
pub(crate) fn json(items: &[Item], turns: &Turns, prefix: &str, now: Timestamp) -> serde_json::Result<Vec<u8>> {
    let reported_since = turns.reported_since.unwrap_or(now).rfc3339_seconds();
    let timestamp = format!("{} +0000 UTC", reported_since.trim_end_matches('Z').replace('T', " "));
    let (mut gauges, mut counters, mut samples) = (Vec::new(), Vec::new(), Vec::new());
    for item in items.iter().filter(|item| !item.name.starts_with(PROCESS)) {
        let name = format!("{prefix}.{}", item.name);
        let labels = item.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match item.value {
            Value::Gauge(value) => gauges.push(Gauge { name, value, labels }),
            Value::Counter(count) => {
                let count = turns.gained(item, count);
                let one = if count == 0 { 0.0 } else { 1.0 };
                let counted = Interval { count, sum: count as f64, min: one, max: one, stddev: 0.0 };
                counters.push(sample(name, counted, labels));
            }
            Value::Summary(summary) => samples.push(sample(name, summary.interval, labels)),
        }
    }
    let mut out = serde_json::to_vec(&Document { timestamp, gauges, points: [], counters, samples })?;
    out.push(b'\n');
    Ok(out)
}

fn sample<'a>(name: String, of: Interval, labels: BTreeMap<&'a str, &'a str>) -> Sample<'a> {
    let Interval { count, sum, min, max, stddev } = of;
    let mean = if count == 0 { 0.0 } else { sum / count as f64 };
    Sample { name, count, rate: sum / INTERVAL as f64, sum, min, max, mean, stddev, labels }
}

/// The exposition format of Prometheus. No name contains a host name.
pub(crate) fn prometheus(items: &[Item], prefix: &str) -> String {
    let mut families: BTreeMap<String, Vec<&Item>> = BTreeMap::new();
    for item in items {
        let whole = if item.name.starts_with(PROCESS) { item.name.clone() } else { format!("{prefix}_{}", item.name) };
        families.entry(plain(&whole)).or_default().push(item);
    }
    let mut out = String::with_capacity(items.len() * 160);
    for (name, items) in families {
        let known = catalogue::find(&items[0].name);
        let meaning = known.map_or(name.as_str(), |metric| metric.meaning);
        let kind = known.map_or(kind_of(items[0].value), |metric| metric.kind);
        // Writing to a string does not fail.
        let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", meaning.replace('\\', "\\\\"), kind.name());
        for (labels, value) in series(&items) {
            write_series(&mut out, &name, &labels, value);
        }
    }
    out
}

/// The values of one name by label set. Names that differ only in punctuation become one name, and their equal series
/// are merged.
fn series(items: &[&Item]) -> BTreeMap<Vec<(&'static str, String)>, Value> {
    let mut out: BTreeMap<Vec<(&'static str, String)>, Value> = BTreeMap::new();
    for item in items.iter().filter(|item| kind_of(item.value) == kind_of(items[0].value)) {
        let sum = match (out.get(&item.labels), item.value) {
            (Some(Value::Counter(a)), Value::Counter(b)) => Value::Counter(a + b),
            (Some(Value::Gauge(a)), Value::Gauge(b)) => Value::Gauge(a + b),
            (Some(Value::Summary(a)), Value::Summary(b)) => Value::Summary(a.with(b)),
            (_, value) => value,
        };
        out.insert(item.labels.clone(), sum);
    }
    out
}

fn kind_of(value: Value) -> catalogue::Kind {
    match value {
        Value::Gauge(_) => catalogue::Kind::Gauge,
        Value::Counter(_) => catalogue::Kind::Counter,
        Value::Summary(_) => catalogue::Kind::Summary,
    }
}

fn write_series(out: &mut String, name: &str, labels: &[(&'static str, String)], value: Value) {
    let plain = in_braces(labels, None);
    let _ = match value {
        Value::Gauge(value) => writeln!(out, "{name}{plain} {value}"),
        Value::Counter(count) => writeln!(out, "{name}{plain} {count}"),
        Value::Summary(summary) => {
            for (quantile, value) in QUANTILES.iter().zip(summary.quantiles) {
                let _ = writeln!(out, "{name}{} {value}", in_braces(labels, Some(*quantile)));
            }
            writeln!(out, "{name}_sum{plain} {}\n{name}_count{plain} {}", summary.sum, summary.count)
        }
    };
}

/// Replaces all characters but letters, digits and underscores; the result does not begin with a digit.
fn plain(name: &str) -> String {
    let digit_first = name.starts_with(|c: char| c.is_ascii_digit());
    let mut out = String::from(if digit_first { "_" } else { "" });
    out.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
    out
}

fn in_braces(labels: &[(&'static str, String)], quantile: Option<f64>) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut all: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    all.extend(quantile.map(|quantile| format!("quantile=\"{quantile}\"")));
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Timing;
    use super::*;

    fn timed(millis: &[u64]) -> Timing {
        let timing = Timing::default();
        millis.iter().for_each(|millis| timing.record(Duration::from_millis(*millis)));
        timing
    }

    fn items() -> Vec<Item> {
        vec![
            Item::new("core.handle_login_request", Value::Summary(timed(&[]).read())),
            Item::new("core.handle_request", Value::Summary(timed(&[1, 2, 7]).read())),
            Item {
                labels: vec![("mount_point", "a\"b/".to_owned())],
                ..Item::new("database.pool.open", Value::Gauge(3.0))
            },
            Item::new("process_cpu_seconds_total", Value::Gauge(1.5)),
            Item::new("route.read.a-b-", Value::Summary(timed(&[4]).read())),
            Item::new("route.read.a_b-", Value::Summary(timed(&[8]).read())),
            Item::new("zoo.failure", Value::Counter(2)),
        ]
    }

    #[test]
    fn prometheus_text_has_every_kind_and_unique_series() {
        let text = prometheus(&items(), "vault");
        let numbers: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        let bounds = |line: &str, least: f64, most: f64| {
            let at = numbers.iter().find_map(|l| l.strip_prefix(line)).unwrap_or_else(|| panic!("no {line} in {text}"));
            let value: f64 = at.trim().parse().unwrap();
            assert!((least..=most).contains(&value), "{line}: {value}");
        };
        bounds("vault_core_handle_request{quantile=\"0.5\"}", 1.8, 2.2);
        bounds("vault_core_handle_request{quantile=\"0.99\"}", 6.5, 7.5);
        bounds("vault_route_read_a_b_{quantile=\"0.9\"}", 7.5, 8.5);
        for line in [
            "# TYPE vault_core_handle_request summary",
            "vault_core_handle_request_sum 10",
            "vault_core_handle_request_count 3",
            "vault_core_handle_login_request{quantile=\"0.5\"} NaN",
            "vault_core_handle_login_request_count 0",
            "# TYPE vault_database_pool_open gauge",
            "vault_database_pool_open{mount_point=\"a\\\"b/\"} 3",
            "# TYPE process_cpu_seconds_total counter",
            "process_cpu_seconds_total 1.5",
            "vault_route_read_a_b__sum 12",
            "vault_route_read_a_b__count 2",
            "# TYPE vault_zoo_failure counter",
            "vault_zoo_failure 2",
        ] {
            assert_eq!(numbers.iter().filter(|l| **l == line).count(), 1, "{line}\n{text}");
        }
        assert!(prometheus(&items(), "9").contains("\n_9_zoo_failure 2\n"));
    }

    #[test]
    fn json_has_the_names_of_vault_and_the_last_interval() {
        let mut turns = Turns::default();
        let read = |turns: &Turns| -> serde_json::Value {
            serde_json::from_slice(&json(&items(), turns, "vault", Timestamp::from_unix(0)).unwrap()).unwrap()
        };
        let value = read(&turns);
        assert_eq!(
            (&value["Timestamp"], &value["Points"]),
            (&"1970-01-01 00:00:00 +0000 UTC".into(), &serde_json::json!([]))
        );
        let gauges = value["Gauges"].as_array().unwrap();
        assert_eq!((gauges.len(), &gauges[0]["Name"]), (1, &"vault.database.pool.open".into()));
        assert_eq!(gauges[0]["Labels"]["mount_point"], "a\"b/");
        let sample = &value["Samples"][1];
        let reported = ["Count", "Sum", "Rate", "Min", "Max"].map(|name| sample[name].as_f64().unwrap());
        assert_eq!(reported, [3.0, 10.0, 1.0, 1.0, 7.0]);
        assert!(sample["Stddev"].as_f64().unwrap() > 3.0);
        assert_eq!(value["Counters"][0]["Count"], 2);
        turns.turn(&items(), Timestamp::from_unix(10));
        assert_eq!(read(&turns)["Counters"][0]["Count"], 2);
        turns.turn(&items(), Timestamp::from_unix(20));
        let later = read(&turns);
        assert_eq!(
            (&later["Counters"][0]["Count"], &later["Timestamp"]),
            (&0.into(), &"1970-01-01 00:00:10 +0000 UTC".into())
        );
    }
}
