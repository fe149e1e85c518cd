//! What the server counts of itself.

use std::time::Duration;

use keepfast_core::metrics::{Item, Value as Number};
use serde_json::{Value, json};

use crate::fixture::{House, ROOT};

fn count(items: &[Item], name: &str) -> u64 {
    let found = items.iter().find(|i| i.name == name).unwrap_or_else(|| panic!("no {name} in {items:#?}"));
    match found.value {
        Number::Summary(summary) => summary.count,
        Number::Counter(count) => count,
        Number::Gauge(value) => value as u64,
    }
}

#[tokio::test]
async fn requests_logins_tokens_and_audit_entries_are_counted_and_timed() {
    let house = House::new().await;
    let before = house.node.gather();
    house.clock.step_on_reading(Duration::from_millis(1));
    house.get("sys/mounts", ROOT).await.ok();
    house.token(json!({})).await;
    house.post("auth/nowhere/login/x", "", json!({})).await.is(403);
    let after = house.node.gather();
    let more = |name: &str| count(&after, name) - count(&before, name);
    assert_eq!((more("core.handle_request"), more("core.handle_login_request")), (2, 1));
    assert_eq!((more("token.lookup"), more("token.create")), (2, 1));
    assert_eq!((more("audit.log_request"), more("audit.log_response")), (3, 3));
    assert!(more("barrier.put") >= 1 && more("inmem.transaction") >= 1);
    assert_eq!((count(&after, "core.unsealed"), count(&after, "core.in_flight_requests")), (1, 0));
    let took = after.iter().find(|i| i.name == "core.handle_request").unwrap();
    assert!(matches!(took.value, Number::Summary(s) if s.sum > 0.0 && s.max > 0.0), "{took:?}");
    house.node.seal().await;
    assert_eq!(count(&house.node.gather(), "core.unsealed"), 0);
}

#[tokio::test]
async fn both_forms_are_given_to_who_may_and_prometheus_only_where_it_is_on() {
    let off = House::new().await;
    assert_eq!(off.get("sys/metrics?format=prometheus", ROOT).await.is(400).body, json!("prometheus is not enabled"));
    let on = |settings: &mut keepfast_core::Settings, _: &std::path::Path| {
        settings.telemetry.prometheus_retention = Duration::from_secs(30);
        settings.hostname = "here".to_owned();
    };
    let house = House::with(on, keepfast_engines::all()).await;
    house.get("sys/metrics", "").await.is(403);
    let text = house.get("sys/metrics?format=prometheus", ROOT).await.ok().body;
    let text = text.as_str().unwrap();
    assert!(
        text.contains("\nvault_core_handle_request_count ") && text.contains("\nvault_here_core_unsealed 1\n"),
        "{text}"
    );
    let document: Value = house.get("sys/metrics", ROOT).await.ok().body;
    for kind in ["Gauges", "Counters", "Samples"] {
        assert!(!document[kind].as_array().unwrap().is_empty(), "{document}");
    }
}
