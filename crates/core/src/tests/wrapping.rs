//! Response wrapping: the wrapped response is returned once, only to a caller with the token.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestServer};
use crate::tests::tokens::stored;
use crate::token::store::Use;
use crate::wrapping::TokenUse;

const INVALID: &str = "wrapping token is not valid or does not exist";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_tl06_of_100_parallel_unwraps_exactly_one_succeeds() {
    let server = Arc::new(TestServer::new().await);
    for own in [false, true] {
        let wrapping =
            server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": "canary-once" }), 60).await.ok().wrapping();
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let (server, wrapping) = (server.clone(), wrapping.clone());
                tokio::spawn(async move {
                    if own {
                        server.post("sys/wrapping/unwrap", &wrapping, Value::Null).await
                    } else {
                        server.post("sys/wrapping/unwrap", ROOT, json!({ "token": wrapping })).await
                    }
                })
            })
            .collect();
        let mut opened = 0;
        for task in tasks {
            let answer = task.await.unwrap();
            match answer.status {
                200 => {
                    assert_eq!(answer.data()["k"], "canary-once");
                    opened += 1;
                }
                status => assert!(matches!(status, 400 | 403), "{answer:?}"),
            }
        }
        assert_eq!(opened, 1, "own: {own}");
    }
    assert!(!server.audit("audit").contains("canary-once"));
}

/// All ways to read a wrapped response at once, for many tokens: the old way by its own storage, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_tl06_of_parallel_unwraps_by_any_path_exactly_one_succeeds() {
    let server = Arc::new(TestServer::new().await);
    for round in 0..150 {
        let wrapping =
            server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": "canary-once" }), 60).await.ok().wrapping();
        let named = json!({ "token": wrapping });
        let mut ways = vec![
            ("GET", "cubbyhole/response", wrapping.clone(), Value::Null),
            ("POST", "sys/wrapping/unwrap", ROOT.to_owned(), named.clone()),
            ("POST", "sys/wrapping/rewrap", ROOT.to_owned(), named.clone()),
            ("POST", "sys/wrapping/unwrap", wrapping.clone(), Value::Null),
            ("POST", "sys/wrapping/unwrap", wrapping.clone(), named),
        ];
        ways.rotate_left(round % 5);
        let tasks: Vec<_> = ways
            .into_iter()
            .map(|(method, path, by, body)| {
                let server = server.clone();
                tokio::spawn(async move { server.call(method, path, &by, body).await.status })
            })
            .collect();
        let mut taken = 0;
        for task in tasks {
            let status = task.await.unwrap();
            assert!(matches!(status, 200 | 400 | 403), "{status}");
            taken += usize::from(status == 200);
        }
        assert_eq!(taken, 1, "round {round}");
    }
}

#[tokio::test]
async fn sec_tl06_the_stored_use_decides_which_unwrap_succeeds() {
    let server = TestServer::new().await;
    let unsealed = server.unsealed();
    let wrapped = async || {
        let made = server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": 1 }), 60).await.ok().wrapping();
        let token = unsealed.access.wrapper.wrapping_token(&made).await.unwrap().unwrap();
        (token.key.clone().unwrap(), token)
    };
    // Another request has spent the use since the token was found.
    let (key, token) = wrapped().await;
    assert_eq!(unsealed.access.tokens.count_use(&key).await.unwrap(), Use::Last);
    let mut tx = unsealed.barrier.begin();
    assert!(unsealed.access.wrapper.unwrap(&mut tx, &key, &token, TokenUse::ThisTransaction).await.is_err());
    // The request that has spent the use reads the response, and nothing is left.
    let mut tx = unsealed.barrier.begin();
    unsealed.access.wrapper.unwrap(&mut tx, &key, &token, TokenUse::Authentication).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!stored(&server, "").await.iter().any(|k| k.ends_with("/response")));
    // Without a spent use no request owns the response; counting the use and reading the response conflict.
    let (key, token) = wrapped().await;
    let mut tx = unsealed.barrier.begin();
    assert!(unsealed.access.wrapper.unwrap(&mut tx, &key, &token, TokenUse::Authentication).await.is_err());
    let mut tx = unsealed.barrier.begin();
    unsealed.access.wrapper.unwrap(&mut tx, &key, &token, TokenUse::ThisTransaction).await.unwrap();
    assert_eq!(unsealed.access.tokens.count_use(&key).await.unwrap(), Use::Last);
    assert!(tx.commit().await.is_err());
}

#[tokio::test]
async fn sec_tl06_a_read_of_cubbyhole_response_revokes_the_token() {
    let server = TestServer::new().await;
    let token = server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": 1 }), 60).await.ok().wrapping();
    assert!(
        server.get("cubbyhole/response", &token).await.ok().data()["response"].as_str().unwrap().contains("\"k\":1")
    );
    server.get("cubbyhole/response", &token).await.is(403);
    server.post("sys/wrapping/unwrap", ROOT, json!({ "token": token })).await.is(400);
    let left = stored(&server, "").await;
    assert!(!left.iter().any(|k| k.ends_with("/response") || k.starts_with("token/spent/")), "{left:?}");
    assert_eq!(left.iter().filter(|k| k.starts_with("token/id/")).count(), 1, "{left:?}");
}

#[tokio::test]
async fn sec_tl06_lookup_returns_the_path_and_spends_no_use() {
    let server = TestServer::new().await;
    server.post("secret/data/a", ROOT, json!({ "data": { "k": "v" } })).await.ok();
    let wrapped = server.wrapped("GET", "secret/data/a", ROOT, Value::Null, 90).await.ok();
    assert_eq!(wrapped.body["wrap_info"]["creation_path"], "secret/data/a");
    assert_eq!((&wrapped.body["data"], &wrapped.body["wrap_info"]["ttl"]), (&Value::Null, &json!(90)));
    let token = wrapped.wrapping();
    for (by, body) in
        [("", json!({ "token": token })), (token.as_str(), Value::Null), (ROOT, json!({ "token": token }))]
    {
        let looked = server.post("sys/wrapping/lookup", by, body).await.ok();
        assert_eq!(
            (&looked.data()["creation_path"], &looked.data()["creation_ttl"]),
            (&json!("secret/data/a"), &json!(90))
        );
    }
    let queried = format!("sys/wrapping/lookup?token={token}");
    for by in ["", ROOT, token.as_str()] {
        assert_eq!(server.get(&queried, by).await.ok().data()["creation_path"], "secret/data/a");
    }
    // Only a GET takes the token from the query.
    assert_eq!(server.post(&queried, "", Value::Null).await.error(), "error validating wrapping token: token is empty");
    assert_eq!(server.get("sys/wrapping/lookup?token=none", ROOT).await.is(400).error(), INVALID);
    assert_eq!(server.post("sys/wrapping/unwrap", &token, Value::Null).await.ok().data()["data"]["k"], "v");
    assert_eq!(server.get(&queried, ROOT).await.is(400).error(), INVALID);
    for by in ["", token.as_str()] {
        assert_eq!(server.post("sys/wrapping/lookup", by, json!({ "token": token })).await.is(400).error(), INVALID);
    }
}

#[tokio::test]
async fn sec_tl06_rewrap_revokes_the_old_token_and_keeps_the_response() {
    let server = TestServer::new().await;
    let first = server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": 1 }), 60).await.ok().wrapping();
    let second = server.post("sys/wrapping/rewrap", ROOT, json!({ "token": first })).await.ok();
    assert_eq!(second.body["wrap_info"]["creation_path"], "sys/wrapping/wrap");
    assert!(!server.accepts(&first).await);
    server.post("sys/wrapping/unwrap", ROOT, json!({ "token": first })).await.is(400);
    server.post("sys/wrapping/rewrap", ROOT, json!({ "token": first })).await.is(400);
    assert_eq!(
        server.post("sys/wrapping/unwrap", ROOT, json!({ "token": second.wrapping() })).await.ok().data()["k"],
        1
    );
    let left = stored(&server, "").await;
    assert_eq!(left.iter().filter(|k| k.starts_with("token/id/")).count(), 1, "{left:?}");
    assert!(!left.iter().any(|k| k.ends_with("/response")), "{left:?}");
}

#[tokio::test]
async fn sec_tl06_a_wrapping_token_can_do_nothing_else() {
    let server = TestServer::new().await;
    server.post("secret/data/a", ROOT, json!({ "data": {} })).await.ok();
    let others = [
        ("GET", "secret/data/a"),
        ("GET", "auth/token/lookup-self"),
        ("POST", "auth/token/create"),
        ("POST", "auth/token/renew-self"),
        ("POST", "sys/wrapping/wrap"),
        ("POST", "sys/wrapping/rewrap"),
        ("GET", "cubbyhole/other"),
        ("LIST", "cubbyhole/"),
        ("POST", "sys/capabilities-self"),
        ("GET", "sys/mounts"),
        ("POST", "sys/seal"),
        ("GET", "sys/policies/acl/default"),
        ("DELETE", "cubbyhole/response"),
        ("POST", "sys/tools/random"),
        ("POST", "sys/leases/lookup"),
        ("GET", "nowhere/a"),
    ];
    for (method, path) in others {
        let token = server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": 1 }), 60).await.ok().wrapping();
        let status = server.call(method, path, &token, Value::Null).await.status;
        assert!(matches!(status, 403 | 404), "{method} {path}: {status}");
        // The attempt spends the only use, so the intended receiver notices it.
        server.post("sys/wrapping/unwrap", ROOT, json!({ "token": token })).await.is(400);
    }
}

#[tokio::test]
async fn sec_tl06_only_a_wrapping_token_unwraps() {
    let server = TestServer::new().await;
    let token = server.token(json!({ "policies": ["default"] })).await;
    let forged = json!({ "response": "{\"data\":{\"k\":1}}", "created": 1, "ttl": 60, "path": "x" });
    server.post("cubbyhole/response", &token, forged).await.ok();
    for text in [token.as_str(), ROOT, "hvs.none", "hvb.none", ""] {
        for path in ["sys/wrapping/unwrap", "sys/wrapping/lookup", "sys/wrapping/rewrap"] {
            let status = if text.is_empty() { 403 } else { 400 };
            server.post(path, ROOT, json!({ "token": text })).await.is(status);
        }
    }
    server.post("sys/wrapping/wrap", ROOT, json!({ "k": 1 })).await.is(400);
}

#[tokio::test]
async fn a_wrapped_response_expires_and_a_wrapped_token_has_its_accessor() {
    let server = TestServer::new().await;
    let late = server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": 1 }), 60).await.ok().wrapping();
    server.pass(61).await;
    server.post("sys/wrapping/unwrap", ROOT, json!({ "token": late })).await.is(400);
    server.pass(1).await;
    assert!(!stored(&server, "").await.iter().any(|k| k.ends_with("/response")));
    let made = server.wrapped("POST", "auth/token/create", ROOT, json!({ "policies": ["default"] }), 60).await.ok();
    assert!(made.body["auth"].is_null());
    let inner = server.post("sys/wrapping/unwrap", ROOT, json!({ "token": made.wrapping() })).await.ok();
    assert_eq!(made.body["wrap_info"]["wrapped_accessor"], json!(inner.accessor()));
    assert!(server.accepts(&inner.token()).await);
    // Errors and empty responses are not wrapped.
    server.wrapped("GET", "secret/data/none", ROOT, Value::Null, 60).await.is(404);
    server.wrapped("POST", "auth/token/revoke", ROOT, json!({ "token": inner.token() }), 60).await.is(204);
}

#[tokio::test]
async fn an_unwrapped_response_can_be_wrapped_again_as_policies_require() {
    let server = TestServer::new().await;
    server.policy("wraps", r#"path "sys/wrapping/unwrap" { capabilities = ["update"] min_wrapping_ttl = "10s" max_wrapping_ttl = "60s" }"#).await;
    let token = server.token(json!({ "policies": ["wraps"], "no_default_policy": true })).await;
    let kept = server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": 1 }), 60).await.ok().wrapping();
    server.post("sys/wrapping/unwrap", &token, json!({ "token": kept })).await.is(403);
    server.wrapped("POST", "sys/wrapping/unwrap", &token, json!({ "token": kept }), 5).await.is(403);
    let again = server.wrapped("POST", "sys/wrapping/unwrap", &token, json!({ "token": kept }), 30).await.ok();
    assert_eq!(
        (&again.body["data"], &again.body["wrap_info"]["creation_path"]),
        (&Value::Null, &json!("sys/wrapping/unwrap"))
    );
    assert_eq!(
        server.post("sys/wrapping/unwrap", ROOT, json!({ "token": again.wrapping() })).await.ok().data()["k"],
        1
    );
}

#[tokio::test]
async fn sec_kf17_the_ttl_of_a_wrapped_response_is_bounded() {
    let server = TestServer::new().await;
    let max = server.settings.max_lease_ttl.as_secs();
    let wrapped = server.wrapped("GET", "sys/mounts", ROOT, Value::Null, 3_600_000_000).await.ok();
    assert_eq!(wrapped.body["wrap_info"]["ttl"], max);
    let rewrapped = server.post("sys/wrapping/rewrap", ROOT, json!({ "token": wrapped.wrapping() })).await.ok();
    assert_eq!(rewrapped.body["wrap_info"]["ttl"], max);
    server.pass(max + 1).await;
    server.post("sys/wrapping/unwrap", ROOT, json!({ "token": rewrapped.wrapping() })).await.is(400);
}
