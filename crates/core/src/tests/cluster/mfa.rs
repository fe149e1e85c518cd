//! Login MFA in a cluster: every node asks for it, and codes and pending logins count once under any leader.

use serde_json::{Value, json};

use super::fake::Cluster;
use crate::tests::fixture::{ROOT, RequestOptions, TestResponse, TestServer};
use crate::tests::mfa::{code, enrolled, method};

/// Makes the logins of anna need a code. Returns the method and the URL of the secret.
async fn with_mfa(server: &TestServer) -> (String, String) {
    server.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    server.post("auth/up/users/anna", ROOT, json!({ "password": "p" })).await.ok();
    let login = server.post("auth/up/login/anna", "", json!({ "password": "p" })).await.ok();
    let method = method(server, json!({ "issuer": "Keepfast" })).await;
    let url = enrolled(server, &method, login.body["auth"]["entity_id"].as_str().unwrap()).await;
    let body = json!({ "mfa_method_ids": [method], "auth_method_types": ["userpass"] });
    server.post("identity/mfa/login-enforcement/all", ROOT, body).await.ok();
    (method, url)
}

async fn log_in(server: &TestServer, mfa: &[String]) -> TestResponse {
    let body = Some(json!({ "password": "p" }).to_string());
    let send = RequestOptions { body, mfa: mfa.to_vec(), ..RequestOptions::default() };
    server.send("POST", "auth/up/login/anna", send).await
}

async fn pending(server: &TestServer) -> Value {
    log_in(server, &[]).await.ok().body["auth"]["mfa_requirement"]["mfa_request_id"].clone()
}

async fn validate(server: &TestServer, id: &Value, method: &str, code: &str) -> u16 {
    let body = json!({ "mfa_request_id": id, "mfa_payload": { method: [code] } });
    server.post("sys/mfa/validate", "", body).await.status
}

#[tokio::test]
async fn sec_id05_a_code_and_a_pending_login_count_once_under_any_leader() {
    let cluster = Cluster::new().await;
    let [first, second, third] = cluster.nodes();
    let (method, url) = with_mfa(first).await;
    let (id, other) = (pending(second).await, pending(first).await);
    cluster.elect(Some("b"));
    let right = code(first, &url, 0);
    assert_eq!(validate(third, &id, &method, &right).await, 200);
    cluster.elect(Some("c"));
    assert_eq!(validate(first, &id, &method, &code(first, &url, 1)).await, 400);
    assert_eq!(validate(second, &other, &method, &right).await, 403);
    assert_eq!(log_in(first, &[format!("{method}:{right}")]).await.status, 403);
    // The header is passed on to the leader.
    log_in(first, &[format!("{method}:{}", code(first, &url, 1))]).await.ok().token();
}

#[tokio::test]
async fn sec_id05_wrong_codes_are_counted_on_by_the_next_leader() {
    let cluster = Cluster::new().await;
    let [first, second, _] = cluster.nodes();
    let (method, url) = with_mfa(first).await;
    let id = pending(first).await;
    for leader in ["a", "b", "c", "a", "b"] {
        cluster.elect(Some(leader));
        assert_eq!(validate(second, &id, &method, "wrong").await, 403);
    }
    cluster.elect(Some("c"));
    assert_eq!(validate(second, &id, &method, &code(first, &url, 0)).await, 403);
    cluster.clock().advance(std::time::Duration::from_secs(30));
    assert_eq!(validate(second, &id, &method, &code(first, &url, 0)).await, 200);
}

#[tokio::test]
async fn sec_id06_every_node_asks_for_mfa_under_any_leader() {
    let cluster = Cluster::new().await;
    // Each node has had logins without any enforcement.
    let [first, ..] = cluster.nodes();
    first.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    first.post("auth/up/users/anna", ROOT, json!({ "password": "p" })).await.ok();
    for leader in ["a", "b", "c"] {
        cluster.elect(Some(leader));
        log_in(first, &[]).await.ok().token();
    }
    let method = method(first, json!({ "issuer": "Keepfast" })).await;
    let body = json!({ "mfa_method_ids": [method], "auth_method_types": ["userpass"] });
    first.post("identity/mfa/login-enforcement/all", ROOT, body).await.ok();
    for leader in ["a", "b", "c"] {
        cluster.elect(Some(leader));
        for node in cluster.nodes() {
            assert!(pending(node).await.is_string(), "{leader}");
        }
    }
}
