//! Clocks that differ, and the batches that a standby commits.

use std::collections::BTreeSet;
use std::time::Duration;

use keepfast_framework::{Clock as _, Operation};
use serde_json::{Value, json};

use super::fake::Cluster;
use super::written;
use crate::cluster::clock_task::exchange;
use crate::tests::derived::{mount_all_engines, routes};
use crate::tests::fixture::{ROOT, TestServer};

/// The standby takes a clock of its leader that is this many seconds ahead.
fn told(standby: &TestServer, ahead: u64) {
    let parts = &standby.node.lifecycle.parts;
    exchange(&parts.membership, &standby.clock, standby.clock.now().after(Duration::from_secs(ahead)));
}

#[tokio::test]
async fn a_standby_whose_clock_is_off_passes_all_requests_to_the_leader() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    leader.post("secret/data/a", ROOT, written()).await.ok();
    told(standby, 2);
    standby.get("secret/data/a", ROOT).await.ok();
    assert_eq!(cluster.forwards(), 0);
    told(standby, 3);
    standby.get("secret/data/a", ROOT).await.ok();
    assert_eq!(cluster.forwards(), 1);
    let health = standby.get("sys/health", "").await;
    assert_eq!(health.body["clock_skew_ms"], json!(3000));
    assert!(health.body.get("performance_standby").is_none(), "{health:?}");
    told(standby, 0);
    standby.get("secret/data/a", ROOT).await.ok();
    assert_eq!(cluster.forwards(), 1);
    assert!(standby.get("sys/health", "").await.body.get("clock_skew_ms").is_none());
}

#[tokio::test]
async fn the_leader_tells_its_clock_to_the_others() {
    let cluster = Cluster::new().await;
    let [_, standby, _] = cluster.nodes();
    told(standby, 60);
    // The clocks of these nodes are one, so the next comparison finds no difference.
    let compared = async {
        while standby.node.lifecycle.parts.membership.clocks.skew().is_some() {
            standby.clock.advance(Duration::from_secs(5));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), compared).await.unwrap();
}

/// The engines and paths whose requests write at a standby: they reserve encryptions of a key.
const COMMIT_AT_A_STANDBY: &[&str] = &["transit encrypt/{name}"];

#[tokio::test]
async fn rl17_only_these_paths_commit_at_a_standby() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    mount_all_engines(leader).await;
    leader.post("all-transit/keys/name", ROOT, json!({})).await.ok();
    for route in routes(leader) {
        let ends = ["seal", "step-down", "rotate", "rekey", "generate-root", "storage/raft", "unseal", "init"];
        if ends.iter().any(|path| route.pattern.starts_with(path)) {
            continue;
        }
        let body = if route.operation == Operation::Update {
            json!({ "plaintext": "AAAA", "input": "AAAA" })
        } else {
            Value::Null
        };
        standby.call(route.method(), &route.path, ROOT, body).await;
    }
    let batches = standby.node.lifecycle.parts.metrics.cluster.batches.items("n");
    let label = |item: &crate::metrics::Item, name: &str| {
        item.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let found: BTreeSet<String> =
        batches.iter().map(|item| format!("{} {}", label(item, "type"), label(item, "path"))).collect();
    let allowed: BTreeSet<String> = COMMIT_AT_A_STANDBY.iter().map(|&text| text.to_owned()).collect();
    assert_eq!(found, allowed);
}
