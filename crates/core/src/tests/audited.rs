//! What audit entries and responses have beside their data: refusals by a quota, public keys, content types; and what the
//! token of a login has.

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestResponse, TestServer, incoming};

fn options() -> RequestOptions {
    RequestOptions { token: Some(ROOT.to_owned()), ..RequestOptions::default() }
}

#[tokio::test]
async fn public_keys_of_responses_are_those_of_the_mount_alone() {
    let server = TestServer::new().await;
    for mount in ["open", "closed"] {
        server.post(&format!("sys/mounts/{mount}"), ROOT, json!({ "type": "kv" })).await.ok();
        server.post(&format!("{mount}/a"), ROOT, json!({ "k": "plain", "l": "other" })).await.is(204);
    }
    server.post("sys/mounts/open/tune", ROOT, json!({ "audit_non_hmac_response_keys": ["k"] })).await.ok();
    for (mount, k_is_public) in [("open", true), ("closed", false)] {
        server.forget_audit();
        server.get(&format!("{mount}/a"), ROOT).await.ok();
        let entries = server.entries();
        let data = &entries.iter().find(|entry| entry["type"] == "response").unwrap()["response"]["data"];
        assert_eq!(data["k"] == "plain", k_is_public, "{mount}");
        assert!(data["l"].as_str().unwrap().starts_with("hmac-sha256:"), "{mount}");
    }
}

#[tokio::test]
async fn a_refusal_by_a_quota_is_audited_with_its_path() {
    let server = TestServer::new().await;
    server.forget_audit();
    server.node.preliminaries().audit_refusal(incoming("GET", "secret/data/a", options())).await;
    let entries = server.entries();
    assert_eq!((entries.len(), &entries[0]["request"]["path"]), (1, &json!("secret/data/a")));
    assert!(entries[0]["error"].as_str().unwrap().starts_with("hmac-sha256:"));
}

#[tokio::test]
async fn a_token_field_that_is_no_text_is_refused_before_authentication() {
    let server = TestServer::new().await;
    for path in ["lookup", "renew", "revoke", "revoke-orphan"] {
        for (token, error) in
            [(json!(7), "invalid token"), (json!(null), "invalid token"), (json!("x"), "permission denied")]
        {
            let refused = server.post(&format!("auth/token/{path}"), "", json!({ "token": token })).await.is(403);
            assert_eq!(refused.error(), error, "{path}");
        }
    }
}

#[tokio::test]
async fn a_response_has_the_type_of_its_body() {
    let server = TestServer::new().await;
    let response = server.node.handle(incoming("GET", "sys/mounts", options())).await;
    assert_eq!(response.content_type(), "application/json");
}

/// A login at a new role with these parameters: its response and what the server stores about the token.
async fn login(server: &TestServer, role: &str, parameters: Value) -> (TestResponse, Value) {
    let answer = server.approle(role, parameters).await.ok();
    let body = json!({ "token": answer.token() });
    let stored = server.post("auth/token/lookup", ROOT, body).await.ok().data().clone();
    (answer, stored)
}

#[tokio::test]
async fn the_token_of_a_login_has_all_parameters_of_its_role() {
    let server = TestServer::new().await;
    let bounded = json!({
        "token_ttl": "1h", "token_max_ttl": "2h", "token_explicit_max_ttl": "3h", "token_num_uses": 7,
        "token_bound_cidrs": "127.0.0.0/8", "token_policies": ["p"],
    });
    let (answer, stored) = login(&server, "bounded", bounded).await;
    let expected = json!({
        "ttl": 3600, "explicit_max_ttl": 10_800, "num_uses": 7, "renewable": true, "bound_cidrs": ["127.0.0.0/8"],
        "policies": ["default", "p"], "display_name": "approle", "path": "auth/approle/login", "type": "service",
        "orphan": true,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&stored[name], value, "{name}");
    }
    assert_eq!(stored["meta"]["role_name"], "bounded");
    let renewed =
        server.post("auth/token/renew", ROOT, json!({ "token": answer.token(), "increment": "9h" })).await.ok();
    assert_eq!(renewed.body["auth"]["lease_duration"], 7200);
    let (_, stored) = login(&server, "periodic", json!({ "token_period": "10m" })).await;
    assert_eq!((&stored["period"], &stored["policies"]), (&json!(600), &json!(["default"])));
    let (answer, stored) = login(&server, "batch", json!({ "token_type": "batch", "token_ttl": "5m" })).await;
    assert!(answer.token().starts_with("hvb.") && stored["renewable"] == false && stored["type"] == "batch");
}
