//! A snapshot replaces all records below a running node.

use std::time::Duration;

use keepfast_storage::MemoryBackend;
use serde_json::json;

use crate::tests::fixture::{House, ROOT};

/// Waits until the node has opened its storage anew.
async fn opened(house: &House) {
    let lifecycle = &house.node.lifecycle;
    let opened = async {
        while lifecycle.is_sealed() {
            lifecycle.unsealed_now.notified().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), opened).await.unwrap();
}

#[tokio::test]
async fn a_replacement_of_all_records_leaves_nothing_of_before() {
    let house = House::new().await;
    let secret = |value: &str| json!({ "data": { "v": value } });
    house.post("secret/data/k", ROOT, secret("first")).await.ok();
    house.post("sys/quotas/rate-limit/small", ROOT, json!({ "rate": 1_000_000 })).await.ok();
    let kept = house.token(json!({ "policies": ["default"] })).await;
    let snapshot = MemoryBackend::new();
    snapshot.replace_with(house.backend.memory());

    house.post("secret/data/k", ROOT, secret("second")).await.ok();
    house.post("sys/mounts/later", ROOT, json!({ "type": "kv" })).await.ok();
    house.post("later/k", ROOT, json!({ "v": 1 })).await.ok();
    house.policy("later", r#"path "later/*" { capabilities = ["read"] }"#).await;
    house.delete("sys/quotas/rate-limit/small", ROOT).await.ok();
    house.post("sys/rotate", ROOT, json!({})).await.ok();
    let dropped = house.token(json!({ "policies": ["later"] })).await;
    assert!(house.accepts(&dropped).await);

    house.backend.memory().replace_with(&snapshot);
    assert!(house.node.lifecycle.is_sealed(), "nothing is served before the services are open anew");
    opened(&house).await;
    assert_eq!(house.get("secret/data/k", ROOT).await.ok().data()["data"]["v"], "first");
    assert!(house.accepts(&kept).await && !house.accepts(&dropped).await);
    house.get("later/k", ROOT).await.is(404);
    house.get("sys/policies/acl/later", ROOT).await.is(404);
    house.get("sys/quotas/rate-limit/small", ROOT).await.ok();
    assert_eq!(house.get("sys/key-status", ROOT).await.ok().data()["term"], 1);
    // The services follow again.
    house.post("sys/mounts/later", ROOT, json!({ "type": "kv" })).await.ok();
    house.get("later/k", ROOT).await.is(404);
}

#[tokio::test]
async fn a_replacement_by_another_storage_needs_its_shares() {
    let (house, other) = (House::new().await, House::new().await);
    other.post("secret/data/k", ROOT, json!({ "data": { "v": "other" } })).await.ok();
    house.backend.memory().replace_with(other.backend.memory());
    assert!(!house.node.lifecycle.unseal(&house.shares).await.unwrap());
    assert!(house.node.lifecycle.is_sealed());
    assert!(house.node.lifecycle.unseal(&other.shares).await.unwrap());
    assert_eq!(house.get("secret/data/k", ROOT).await.ok().data()["data"]["v"], "other");
}
