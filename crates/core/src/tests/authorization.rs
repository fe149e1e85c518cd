//! Sudo, help, and the difference between create and update.

use serde_json::json;

use crate::tests::fixture::{House, ROOT};

#[tokio::test]
async fn a_protected_path_needs_sudo_and_its_help_needs_no_policy() {
    let house = House::new().await;
    house.policy("plain", r#"path "sys/audit" { capabilities = ["read"] }"#).await;
    house.policy("sudo", r#"path "sys/audit" { capabilities = ["read", "sudo"] }"#).await;
    house.policy("alone", r#"path "sys/audit" { capabilities = ["sudo"] }"#).await;
    for (policy, status) in [("plain", 403), ("sudo", 200), ("alone", 403), ("default", 403)] {
        let token = house.token(json!({ "policies": [policy] })).await;
        house.get("sys/audit", &token).await.is(status);
        house.call("HELP", "sys/audit", &token, json!({})).await.is(200);
    }
    house.get("sys/audit", ROOT).await.is(200);
}

#[tokio::test]
async fn a_first_write_needs_create_and_a_later_one_update() {
    let house = House::new().await;
    house.post("sys/mounts/old", ROOT, json!({ "type": "kv" })).await.ok();
    let token = async |capability: &str| {
        house.policy(capability, &format!(r#"path "old/*" {{ capabilities = ["{capability}"] }}"#)).await;
        house.token(json!({ "policies": [capability] })).await
    };
    let (create, update) = (token("create").await, token("update").await);
    house.post("old/a", &update, json!({ "k": 1 })).await.is(403);
    house.post("old/a", &create, json!({ "k": 1 })).await.is(204);
    house.post("old/a", &create, json!({ "k": 2 })).await.is(403);
    house.post("old/a", &update, json!({ "k": 2 })).await.is(204);
    assert_eq!(house.get("old/a", ROOT).await.ok().data()["k"], 2);
}
