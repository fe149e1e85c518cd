//! The request pipeline: policies evaluate the values that handlers use.

use serde_json::json;

use crate::tests::fixture::{ROOT, RequestOptions, TestServer, incoming};

#[tokio::test]
async fn sec_ac10_a_repeated_query_parameter_satisfies_no_constraint() {
    let server = TestServer::new().await;
    server.post("secret/data/a", ROOT, json!({ "data": { "k": 1 } })).await.ok();
    server.post("secret/data/a", ROOT, json!({ "data": { "k": 2 } })).await.ok();
    server
        .policy(
            "first",
            r#"path "secret/data/a" { capabilities = ["read"] allowed_parameters = { "version" = ["1"] } }"#,
        )
        .await;
    let token = server.token(json!({ "policies": ["first"] })).await;
    assert_eq!(server.get("secret/data/a?version=1", &token).await.ok().data()["data"]["k"], 1);
    server.get("secret/data/a?version=2", &token).await.is(403);
    server.get("secret/data/a?version=2&version=1", &token).await.is(403);
    server.get("secret/data/a?version=1&version=2", &token).await.is(403);
}

#[tokio::test]
async fn sec_ac10_a_limit_in_the_body_does_not_evade_the_policys_page() {
    let server = TestServer::new().await;
    for name in ["a", "b", "c", "d"] {
        server.post(&format!("secret/data/{name}"), ROOT, json!({ "data": {} })).await.ok();
    }
    server.policy("paged", r#"path "secret/metadata/*" { capabilities = ["list"] pagination_limit = 2 }"#).await;
    let token = server.token(json!({ "policies": ["paged"] })).await;
    for body in [
        json!(null),
        json!({}),
        json!({ "limit": 0 }),
        json!({ "limit": null }),
        json!({ "limit": "" }),
        json!({ "limit": 2 }),
    ] {
        let listed = server.call("LIST", "secret/metadata/", &token, body.clone()).await;
        match listed.status {
            200 => assert_eq!(listed.data()["keys"].as_array().unwrap().len(), 2, "{body}"),
            status => assert!(matches!(status, 400 | 403), "{body}: {status}"),
        }
    }
    for body in [json!({ "limit": 3 }), json!({ "limit": -1 }), json!({ "limit": "3" }), json!({ "Limit": 3 })] {
        server.call("LIST", "secret/metadata/", &token, body).await.is(403);
    }
    assert_eq!(server.list("secret/metadata/?limit=1", &token).await.ok().data()["keys"], json!(["a"]));
    server.list("secret/metadata/?limit=3", &token).await.is(403);
}

#[tokio::test]
async fn sec_kf52_policy_handler_and_audit_read_the_same_query_value() {
    let server = TestServer::new().await;
    for name in ["a", "b"] {
        server.post(&format!("secret/data/{name}"), ROOT, json!({ "data": {} })).await.ok();
    }
    server.post("sys/mounts/secret/tune", ROOT, json!({ "audit_non_hmac_request_keys": "limit,x" })).await.ok();
    for (query, recorded, status) in [
        ("limit=1", json!({ "limit": "1" }), 200),
        ("limit=1&limit=2", json!({ "limit": ["1", "2"] }), 400),
        ("limit=2&limit=1", json!({ "limit": ["2", "1"] }), 400),
        // Not a parameter of the path: ignored, and audited as sent.
        ("x=1&x=2", json!({ "x": ["1", "2"] }), 200),
    ] {
        server.forget_audit();
        let answer = server.list(&format!("secret/metadata?{query}"), ROOT).await.is(status);
        assert!(status == 200 || answer.error().contains("converting input for field \"limit\""), "{answer:?}");
        let entries = server.entries();
        assert!(entries.len() == 2 && entries.iter().all(|entry| entry["request"]["query"] == recorded), "{entries:?}");
    }
    let denies = r#"path "secret/data/*" { capabilities = ["read"] denied_parameters = { "version" = ["2"] } }"#;
    server.policy("denies", denies).await;
    let token = server.token(json!({ "policies": ["denies"] })).await;
    for (query, status) in
        [("version=1", 200), ("version=2", 403), ("version=2&version=1", 403), ("version=1&version=2", 403)]
    {
        server.get(&format!("secret/data/a?{query}"), &token).await.is(status);
    }
    let both = "sys/wrapping/lookup?token=a&token=b";
    assert!(server.get(both, ROOT).await.is(403).error().contains("could not decode token"));
}

#[tokio::test]
async fn the_future_of_a_request_is_smaller_than_4_kib() {
    let server = TestServer::new().await;
    let handled = server.node.handle(incoming("GET", "secret/data/a", RequestOptions::default()));
    let size = std::mem::size_of_val(&handled);
    assert!(size < 4096, "{size} bytes");
}
