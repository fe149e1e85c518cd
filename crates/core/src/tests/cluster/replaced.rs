//! Restores of snapshots in a cluster.

use std::time::Duration;

use bytes::Bytes;
use keepfast_framework::{Body, ClusterPart};
use serde_json::{Value, json};

use super::fake::Cluster;
use super::{request, written};
use crate::tests::fixture::{ROOT, TestServer};

const SNAPSHOT: &str = "sys/storage/raft/snapshot";

async fn saved(server: &TestServer) -> Bytes {
    let response = server.node.handle(request("GET", SNAPSHOT, ROOT, &Value::Null, ClusterPart::default())).await;
    assert_eq!(response.status().0, 200);
    response.into_body()
}

async fn restored(server: &TestServer, file: Bytes) -> u16 {
    let mut request = request("POST", SNAPSHOT, ROOT, &Value::Null, ClusterPart::default());
    request.input.body = Body::of_bytes(file);
    server.node.handle(request).await.status().0
}

/// Waits until all nodes have opened their services again.
async fn reopened(cluster: &Cluster) {
    let opened = async {
        while cluster.nodes().iter().any(|server| server.node.state().is_sealed) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), opened).await.unwrap();
}

#[tokio::test]
async fn a_restore_through_a_standby_answers_and_keeps_the_ports_open() {
    let cluster = Cluster::new().await;
    let [leader, standby, third] = cluster.nodes();
    leader.post("secret/data/a", ROOT, written()).await.ok();
    let file = saved(leader).await;
    let before = cluster.authorities("a");
    leader.post("secret/data/a", ROOT, json!({ "data": { "k": "later" } })).await.ok();
    leader.post("sys/rotate", ROOT, json!({})).await.ok();
    for name in ["a", "b", "c"] {
        while cluster.authorities(name).len() < 2 {
            tokio::task::yield_now().await;
        }
    }
    let later = cluster.authorities("a");
    assert_eq!(restored(standby, file).await, 204);
    reopened(&cluster).await;
    assert_eq!((cluster.closes(), cluster.leader().as_deref()), (0, Some("a")));
    for (server, name) in cluster.nodes().iter().zip(["a", "b", "c"]) {
        assert!(cluster.has_port(name) && cluster.is_running(name));
        assert_eq!(server.get("secret/data/a", ROOT).await.ok().data()["data"]["k"], "v");
        // The certificates of nodes that have not replaced their records yet are still accepted.
        assert_eq!(cluster.authorities(name), [before[0], later[0]]);
    }
    third.post("secret/data/b", ROOT, written()).await.ok();
    // For a minute.
    let mut seconds = 0;
    while ["a", "b", "c"].iter().any(|name| cluster.authorities(name).len() > 1) {
        tokio::task::yield_now().await;
        cluster.clock().advance(Duration::from_secs(1));
        seconds += 1;
    }
    assert!(seconds >= 60 && cluster.authorities("a") == before, "{seconds}");
    // The port follows the new keyring.
    standby.post("sys/rotate", ROOT, json!({})).await.ok();
    while cluster.authorities("c").len() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(!cluster.authorities("c").contains(&later[0]));
}

#[tokio::test]
async fn a_restore_with_another_seal_seals_every_node_and_closes_its_port() {
    let (cluster, other) = (Cluster::new().await, TestServer::new().await);
    let [leader, standby, _] = cluster.nodes();
    leader.backend.memory().replace_with(other.backend.memory());
    while ["a", "b", "c"].iter().any(|name| cluster.has_port(name)) {
        tokio::task::yield_now().await;
    }
    assert_eq!(cluster.closes(), 3);
    assert!(!standby.node.lifecycle.unseal(&standby.shares).await.unwrap());
    assert!(standby.node.lifecycle.unseal(&other.shares).await.unwrap());
    assert!(cluster.has_port("b") && standby.accepts(ROOT).await);
}
