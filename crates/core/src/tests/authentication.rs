//! Which tokens are accepted, and what is refused before a token is looked at.

use serde_json::json;

use crate::tests::fixture::{ROOT, RequestOptions, TestServer, incoming};

#[tokio::test]
async fn a_batch_token_of_an_unmounted_auth_method_is_refused() {
    let server = TestServer::new().await;
    let token = server.approle("r", json!({ "token_type": "batch", "token_ttl": "1h" })).await.ok().token();
    assert!(server.accepts(&token).await);
    server.delete("sys/auth/approle", ROOT).await.is(204);
    assert!(!server.accepts(&token).await);
}

#[tokio::test]
async fn a_token_in_the_body_that_is_no_text_is_refused_first() {
    let server = TestServer::new().await;
    for path in ["auth/token/lookup", "auth/token/revoke"] {
        let refused = server.post(path, ROOT, json!({ "token": 5 })).await.is(403);
        assert_eq!(refused.error(), "invalid token", "{path}");
    }
}

#[tokio::test]
async fn the_caller_of_an_open_path_is_recorded_if_it_has_a_token() {
    let server = TestServer::new().await;
    server.approle("r", json!({})).await.ok();
    for (token, has_accessor) in [(ROOT, true), ("", false)] {
        server.forget_audit();
        server.post("auth/approle/login", token, json!({ "role_id": "x", "secret_id": "y" })).await;
        let accessor = &server.entries()[0]["auth"]["accessor"];
        assert_eq!(accessor.as_str().is_some_and(|text| !text.is_empty()), has_accessor, "{token}");
    }
}

#[tokio::test]
async fn the_help_of_a_wrapping_path_needs_no_wrapping_token() {
    let server = TestServer::new().await;
    let ask = |token: Option<&str>| RequestOptions { token: token.map(str::to_owned), ..RequestOptions::default() };
    let status = async |method: &str, token: Option<&str>| {
        server.node.handle(incoming(method, "sys/wrapping/unwrap", ask(token))).await.status().0
    };
    assert_eq!(status("HELP", Some(ROOT)).await, 200);
    assert_eq!(status("POST", None).await, 403);
}
