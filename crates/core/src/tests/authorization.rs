//! Sudo, help, and the difference between create and update.

use serde_json::json;

use crate::tests::fixture::{ROOT, TestServer};

#[tokio::test]
async fn a_protected_path_needs_sudo_and_its_help_needs_no_policy() {
    let server = TestServer::new().await;
    server.policy("plain", r#"path "sys/audit" { capabilities = ["read"] }"#).await;
    server.policy("sudo", r#"path "sys/audit" { capabilities = ["read", "sudo"] }"#).await;
    server.policy("alone", r#"path "sys/audit" { capabilities = ["sudo"] }"#).await;
    for (policy, status) in [("plain", 403), ("sudo", 200), ("alone", 403), ("default", 403)] {
        let token = server.token(json!({ "policies": [policy] })).await;
        server.get("sys/audit", &token).await.is(status);
        server.call("HELP", "sys/audit", &token, json!({})).await.is(200);
    }
    server.get("sys/audit", ROOT).await.is(200);
}

#[tokio::test]
async fn a_first_write_needs_create_and_a_later_one_update() {
    let server = TestServer::new().await;
    server.post("sys/mounts/old", ROOT, json!({ "type": "kv" })).await.ok();
    let token = async |capability: &str| {
        server.policy(capability, &format!(r#"path "old/*" {{ capabilities = ["{capability}"] }}"#)).await;
        server.token(json!({ "policies": [capability] })).await
    };
    let (create, update) = (token("create").await, token("update").await);
    server.post("old/a", &update, json!({ "k": 1 })).await.is(403);
    server.post("old/a", &create, json!({ "k": 1 })).await.is(204);
    server.post("old/a", &create, json!({ "k": 2 })).await.is(403);
    server.post("old/a", &update, json!({ "k": 2 })).await.is(204);
    assert_eq!(server.get("old/a", ROOT).await.ok().data()["k"], 2);
}
