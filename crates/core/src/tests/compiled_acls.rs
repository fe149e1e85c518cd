//! The compiled policies of a token are compiled again only when an input of them has changed.

use std::sync::Arc;

use keepfast_framework::Clock as _;
use serde_json::{Value, json};

use crate::policy::store::CompiledAcl;
use crate::tests::fixture::{ROOT, TestResponse, TestServer};

async fn compiled(server: &TestServer, token: &str) -> Arc<CompiledAcl> {
    let found = server.unsealed().access.tokens.find_anywhere(token, server.clock.now()).await.unwrap().unwrap();
    found.acl.load_full().unwrap()
}

/// Logs in by a role of its own, whose id is the name of the alias, and returns the token and the entity.
async fn login(server: &TestServer, role: &str, scope: &str) -> (String, String) {
    let login = login_response(server, role, scope).await;
    (login.token(), login.body["auth"]["entity_id"].as_str().unwrap().to_owned())
}

/// The response to such a login. `scope` becomes metadata of the alias.
async fn login_response(server: &TestServer, role: &str, scope: &str) -> TestResponse {
    let path = format!("auth/approle/role/{role}");
    server.post(&path, ROOT, json!({ "token_policies": "own" })).await.ok();
    let role_id = server.get(&format!("{path}/role-id"), ROOT).await.ok().data()["role_id"].clone();
    let metadata = json!({ "metadata": json!({ "scope": scope }).to_string() });
    let secret = server.post(&format!("{path}/secret-id"), ROOT, metadata).await.ok();
    let body = json!({ "role_id": role_id, "secret_id": secret.data()["secret_id"] });
    server.post("auth/approle/login", "", body).await.ok()
}

/// A server with the policy `own`, by which an alias reads the path in its metadata.
async fn server() -> TestServer {
    let server = TestServer::new().await;
    server.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await.ok();
    let accessor = server.get("sys/auth/approle", ROOT).await.ok().data()["accessor"].as_str().unwrap().to_owned();
    let scope = format!("{{{{identity.entity.aliases.{accessor}.metadata.scope}}}}");
    server.policy("own", &format!(r#"path "secret/data/{scope}" {{ capabilities = ["read"] }}"#)).await;
    for name in ["a", "b"] {
        server.post(&format!("secret/data/{name}"), ROOT, json!({ "data": {} })).await.ok();
    }
    server
}

#[tokio::test]
async fn a_new_token_gets_no_acl_of_a_former_policy() {
    let server = TestServer::new().await;
    server.post("secret/data/a", ROOT, json!({ "data": {} })).await.ok();
    for (capability, status) in [("read", 200), ("list", 403), ("read", 200)] {
        server.policy("own", &format!(r#"path "secret/data/a" {{ capabilities = ["{capability}"] }}"#)).await;
        let token = server.token(json!({ "policies": ["own"] })).await;
        server.get("secret/data/a", &token).await.is(status);
    }
}

#[tokio::test]
async fn first_logins_of_new_aliases_leave_compiled_acls_of_other_tokens() {
    let server = server().await;
    let (of_entity, _) = login(&server, "first", "a").await;
    let of_nobody = server.token(json!({ "policies": ["default"] })).await;
    let tokens = [of_entity.as_str(), of_nobody.as_str(), ROOT];
    let mut before = Vec::new();
    for token in tokens {
        server.get("secret/data/a", token).await;
        before.push(compiled(&server, token).await);
    }
    for number in 0..20 {
        let (token, _) = login(&server, &format!("role-{number}"), "b").await;
        server.get("secret/data/b", &token).await.is(200);
        // A login whose metadata has changed writes the entity again.
        login(&server, &format!("role-{number}"), "c").await;
    }
    for (token, before) in tokens.into_iter().zip(before) {
        let status = server.get("secret/data/a", token).await.status;
        assert_eq!(status, if token == of_nobody { 403 } else { 200 });
        assert!(Arc::ptr_eq(&before, &compiled(&server, token).await), "compiled again");
    }
}

#[tokio::test]
async fn a_write_of_one_token_leaves_other_tokens_in_memory() {
    let server = TestServer::new().await;
    let (kept, ended) = (server.token(json!({})).await, server.token(json!({ "ttl": "1h" })).await);
    let find = |token: String| {
        let (tokens, now) = (server.unsealed().access.tokens.clone(), server.clock.now());
        async move { tokens.find_anywhere(&token, now).await.unwrap() }
    };
    let (before, other) = (find(kept.clone()).await.unwrap(), find(ended.clone()).await.unwrap());
    for _ in 0..300 {
        server.token(json!({})).await;
    }
    assert!(Arc::ptr_eq(&before, &find(kept.clone()).await.unwrap()));
    server.post("auth/token/renew-self", &ended, json!({ "increment": "1h" })).await.ok();
    assert!(!Arc::ptr_eq(&other, &find(ended.clone()).await.unwrap()), "an old record");
    server.post("auth/token/revoke-self", &ended, json!({})).await.is(204);
    assert!(find(ended).await.is_none() && Arc::ptr_eq(&before, &find(kept).await.unwrap()));
}

#[tokio::test]
async fn a_change_of_an_entity_counts_at_the_next_request_of_its_tokens() {
    let server = server().await;
    server.policy("added", r#"path "secret/data/b" { capabilities = ["read"] }"#).await;
    let (first, entity) = login(&server, "one", "a").await;
    let (second, _) = login(&server, "one", "a").await;
    let (other, _) = login(&server, "other", "a").await;
    for token in [&first, &second, &other] {
        server.get("secret/data/b", token).await.is(403);
    }
    let before = compiled(&server, &other).await;
    for (policies, status) in [(json!(["added"]), 200), (json!([]), 403)] {
        let unsealed = server.unsealed();
        let (view, mut tx) = (unsealed.barrier.view("identity/"), unsealed.barrier.begin());
        let key = format!("entity/{entity}");
        let mut stored: Value = serde_json::from_slice(&tx.get(&view, &key).await.unwrap().unwrap()).unwrap();
        stored["policies"] = policies.clone();
        tx.put(&view, &key, stored.to_string().into());
        tx.commit().await.unwrap();
        for token in [&first, &second] {
            server.get("secret/data/b", token).await.is(status);
        }
        server.get("secret/data/b", &other).await.is(403);
        let again = login_response(&server, "one", "a").await;
        let added = again.body["auth"].get("identity_policies").cloned().unwrap_or(json!([]));
        assert_eq!(added, policies);
    }
    assert!(server.unsealed().access.policies.is_current(&before), "compiled again");
}

#[tokio::test]
async fn alias_metadata_of_a_login_counts_at_once_in_templates() {
    let server = server().await;
    let (token, _) = login(&server, "one", "a").await;
    let (other, _) = login(&server, "other", "a").await;
    for scope in ["b", "a", "b"] {
        server.get("secret/data/a", &other).await.is(200);
        let before = compiled(&server, &other).await;
        login(&server, "one", scope).await;
        for name in ["a", "b"] {
            server.get(&format!("secret/data/{name}"), &token).await.is(if name == scope { 200 } else { 403 });
        }
        server.get("secret/data/a", &other).await.is(200);
        assert!(server.unsealed().access.policies.is_current(&before), "compiled again");
    }
}

#[tokio::test]
async fn a_change_of_a_policy_recompiles_the_acls_of_all_tokens() {
    let server = server().await;
    let (token, _) = login(&server, "one", "a").await;
    server.get("secret/data/a", &token).await.is(200);
    server.policy("own", r#"path "secret/data/b" { capabilities = ["read"] }"#).await;
    server.get("secret/data/a", &token).await.is(403);
    server.get("secret/data/b", &token).await.is(200);
}
