//! A snapshot replaces all records below a running node.

use std::time::Duration;

use keepfast_storage::MemoryBackend;
use serde_json::json;

use crate::lifecycle::unsealed_now;
use crate::tests::fixture::{ROOT, TestServer};

/// Waits until the node has opened its storage again.
async fn opened(server: &TestServer) {
    let lifecycle = &server.node.lifecycle;
    let opened = async {
        while lifecycle.is_sealed() {
            unsealed_now(lifecycle).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), opened).await.unwrap();
}

#[tokio::test]
async fn a_replacement_of_all_records_leaves_nothing_of_before() {
    let server = TestServer::new().await;
    let secret = |value: &str| json!({ "data": { "v": value } });
    server.post("secret/data/k", ROOT, secret("first")).await.ok();
    server.post("sys/quotas/rate-limit/small", ROOT, json!({ "rate": 1_000_000 })).await.ok();
    let kept = server.token(json!({ "policies": ["default"] })).await;
    let snapshot = MemoryBackend::new();
    snapshot.replace_with(server.backend.memory());

    server.post("secret/data/k", ROOT, secret("second")).await.ok();
    server.post("sys/mounts/later", ROOT, json!({ "type": "kv" })).await.ok();
    server.post("later/k", ROOT, json!({ "v": 1 })).await.ok();
    server.policy("later", r#"path "later/*" { capabilities = ["read"] }"#).await;
    server.delete("sys/quotas/rate-limit/small", ROOT).await.ok();
    server.post("sys/rotate", ROOT, json!({})).await.ok();
    let dropped = server.token(json!({ "policies": ["later"] })).await;
    assert!(server.accepts(&dropped).await);

    server.backend.memory().replace_with(&snapshot);
    assert!(server.node.lifecycle.is_sealed(), "nothing is served before the services are open again");
    // A request in the meantime waits for them.
    assert_eq!(server.get("secret/data/k", ROOT).await.ok().data()["data"]["v"], "first");
    opened(&server).await;
    assert_eq!(server.get("secret/data/k", ROOT).await.ok().data()["data"]["v"], "first");
    assert!(server.accepts(&kept).await && !server.accepts(&dropped).await);
    server.get("later/k", ROOT).await.is(404);
    server.get("sys/policies/acl/later", ROOT).await.is(404);
    server.get("sys/quotas/rate-limit/small", ROOT).await.ok();
    assert_eq!(server.get("sys/key-status", ROOT).await.ok().data()["term"], 1);
    // The services follow again.
    server.post("sys/mounts/later", ROOT, json!({ "type": "kv" })).await.ok();
    server.get("later/k", ROOT).await.is(404);
}

#[tokio::test]
async fn a_replacement_by_another_storage_needs_its_shares() {
    let (server, other) = (TestServer::new().await, TestServer::new().await);
    other.post("secret/data/k", ROOT, json!({ "data": { "v": "other" } })).await.ok();
    server.backend.memory().replace_with(other.backend.memory());
    let sealed = server.get("secret/data/k", ROOT).await.is(503);
    assert_eq!(sealed.error(), "Vault is sealed", "it does not open again by itself");
    assert!(!server.node.lifecycle.unseal(&server.shares).await.unwrap());
    assert!(server.node.lifecycle.is_sealed());
    assert!(server.node.lifecycle.unseal(&other.shares).await.unwrap());
    assert_eq!(server.get("secret/data/k", ROOT).await.ok().data()["data"]["v"], "other");
}
