//! What a standby knows of a commit that another node has just acknowledged.

use keepfast_crypto::secret::SecretString;
use serde_json::json;

use super::fake::Cluster;
use crate::tests::fixture::{ROOT, TestServer};

#[tokio::test]
async fn a_token_that_another_node_issued_just_now_is_live() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    let created = leader.post("auth/token/create", ROOT, json!({ "policies": ["default"] })).await.ok();
    let token = SecretString::new(created.body["auth"]["client_token"].as_str().unwrap().to_owned());
    cluster.lag();
    assert!(standby.node.preliminaries().is_live_token(&token, None).await);
    let unknown = SecretString::new("hvs.unknown".to_owned());
    assert!(!standby.node.preliminaries().is_live_token(&unknown, None).await);
}

#[tokio::test]
async fn the_rules_of_admission_wait_for_no_unknown_leader() {
    let cluster = Cluster::new().await;
    let [_, standby, _] = cluster.nodes();
    cluster.lag();
    cluster.elect(None);
    standby.node.preliminaries().settle().await;
    assert!(cluster.lags());
    cluster.elect(Some("a"));
    standby.node.preliminaries().settle().await;
    assert!(!cluster.lags());
}

#[tokio::test]
async fn the_health_of_the_members_is_what_the_leader_sees() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    let state =
        async |server: &TestServer| server.get("sys/storage/raft/autopilot/state", ROOT).await.ok().data().clone();
    assert_eq!(state(standby).await, state(leader).await);
    assert_eq!(cluster.forwards(), 1);
}
