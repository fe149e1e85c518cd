//! Warnings of parameters, and names that policies hide from lists.

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestServer};

#[tokio::test]
async fn a_response_warns_of_unknown_and_replaced_parameters() {
    let server = TestServer::new().await;
    server.post("auth/token/roles/r", ROOT, json!({})).await.is(204);
    let warnings = async |path: &str, body: Value| server.post(path, ROOT, body).await.ok().body["warnings"].clone();
    assert_eq!(warnings("auth/token/create", json!({ "ttl": "1h" })).await, Value::Null);
    assert_eq!(
        warnings("auth/token/create", json!({ "ttl": "1h", "x": 1, "y": 2 })).await,
        json!(["Endpoint ignored these unrecognized parameters: [x y]"])
    );
    assert_eq!(
        warnings("auth/token/create/r", json!({ "role_name": "other" })).await,
        json!([
            "Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [role_name]"
        ])
    );
    // A response without content stays one, and a path that takes any body has no unknown parameters.
    let text = json!({ "policy": r#"path "a" { capabilities = ["read"] }"#, "x": 1 });
    server.post("sys/policies/acl/p", ROOT, text).await.is(204);
    assert_eq!(warnings("secret/data/a", json!({ "data": {} })).await, Value::Null);
}

#[tokio::test]
async fn a_list_shows_the_names_that_the_filter_of_the_policy_allows() {
    let server = TestServer::new().await;
    server.post("sys/mounts/old", ROOT, json!({ "type": "kv" })).await.ok();
    for name in ["a", "b"] {
        server.post(&format!("old/{name}"), ROOT, json!({ "k": 1 })).await.is(204);
    }
    let text = r#"
        path "old/" { capabilities = ["list"] list_scan_response_keys_filter_path = "{{ .path }}{{ .key }}" }
        path "old/a" { capabilities = ["read"] }
    "#;
    server.policy("filtered", text).await;
    let token = server.token(json!({ "policies": ["filtered"] })).await;
    assert_eq!(server.list("old", &token).await.ok().data()["keys"], json!(["a"]));
    assert_eq!(server.list("old", ROOT).await.ok().data()["keys"], json!(["a", "b"]));
}
