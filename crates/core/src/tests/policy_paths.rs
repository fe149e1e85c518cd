//! The path that policies evaluate is the path that is used, and bodies have no path that policies cannot evaluate.

use keepfast_framework::Kind;
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestServer};

/// The lease of a fresh token.
async fn lease(server: &TestServer) -> (String, String) {
    let token = server.token(json!({ "policies": ["default"], "ttl": "1h" })).await;
    let listed = server.list("sys/leases/lookup/auth/token/create", ROOT).await.ok();
    let keys = listed.data()["keys"].as_array().unwrap().clone();
    for key in keys {
        let id = format!("auth/token/create/{}", key.as_str().unwrap());
        let ends = server.post("sys/leases/lookup", ROOT, json!({ "lease_id": id })).await;
        if ends.status == 200 && !server.audit("seen").contains(&id) {
            std::fs::write(server.dir.path().join("seen"), server.audit("seen") + &id).unwrap();
            return (id, token);
        }
    }
    panic!("no lease of the token");
}

#[tokio::test]
async fn sec_kf11_a_body_names_no_other_lease_than_the_path() {
    let server = TestServer::new().await;
    let ((one, _), (other, token)) = (lease(&server).await, lease(&server).await);
    let rules = ["sys/leases/revoke", "sys/leases/renew", "sys/revoke", "sys/renew"]
        .map(|path| format!(r#"path "{path}/{one}" {{ capabilities = ["update"] }}"#));
    server.policy("one", &rules.join("\n")).await;
    let weak = server.token(json!({ "policies": ["one"] })).await;
    for path in ["sys/leases/revoke", "sys/leases/renew", "sys/revoke", "sys/renew"] {
        for body in [
            json!({ "lease_id": other }),
            json!({ "lease_id": other, "url_lease_id": other }),
            json!({ "lease_id": format!("{one}/") }),
            json!({ "lease_id": [other] }),
        ] {
            server.post(&format!("{path}/{one}"), &weak, body).await.is(400);
        }
        let query = format!("{path}/{one}?lease_id={other}");
        server.post(&query, &weak, Value::Null).await.is(400);
        assert!(server.accepts(&token).await, "{path}");
    }
    server.post(&format!("sys/leases/revoke/{one}"), &weak, json!({ "url_lease_id": other })).await.is(204);
    assert!(server.accepts(&token).await);
    server.post("sys/leases/revoke", ROOT, json!({ "lease_id": other, "sync": true })).await.is(204);
    assert!(!server.accepts(&token).await);
}

#[tokio::test]
async fn sec_kf11_a_policy_name_has_no_blanks_at_its_ends() {
    let server = TestServer::new().await;
    server.policy("admin", r#"path "x" { capabilities = ["read"] }"#).await;
    let all = r#"capabilities = ["create", "read", "update", "patch", "delete"]"#;
    let rules = ["sys/policies/acl", "sys/policy"]
        .map(|path| format!(r#"path "{path}/*" {{ {all} }} path "{path}/admin" {{ capabilities = ["deny"] }}"#));
    server.policy("others", &rules.join("\n")).await;
    let token = server.token(json!({ "policies": ["others"] })).await;
    let body = json!({ "policy": r#"path "*" { capabilities = ["sudo"] }"# });
    for path in ["sys/policies/acl", "sys/policy"] {
        for name in [" admin", "admin ", "\u{a0}admin", "ADMIN", " ADMIN"] {
            for method in ["POST", "GET", "DELETE"] {
                let answer = server.call(method, &format!("{path}/{name}"), &token, body.clone()).await;
                assert!(matches!(answer.status, 400 | 403), "{method} {path}/{name}: {answer:?}");
            }
        }
        server.post(&format!("{path}/free"), &token, body.clone()).await.ok();
    }
    let kept = server.get("sys/policies/acl/admin", ROOT).await.ok();
    assert!(!kept.data()["policy"].as_str().unwrap().contains("sudo"));
}

#[tokio::test]
async fn sec_kf12_no_body_names_a_path_that_no_request_can_have() {
    let server = TestServer::new().await;
    server.post("sys/mounts/kv", ROOT, json!({ "type": "kv" })).await.ok();
    for bad in ["../x", "x//y", "x/../y", "a\0b", ".", "a/./b", "x\ny", " x", "x ", "x\u{200b}", "\u{202e}x"] {
        for (path, body) in [
            ("sys/remount", json!({ "from": "kv", "to": bad })),
            ("sys/remount", json!({ "from": bad, "to": "other" })),
            ("sys/remount", json!({ "from": "kv", "to": format!("auth/{bad}") })),
            ("sys/quotas/rate-limit/q", json!({ "rate": 1000, "path": bad })),
        ] {
            server.post(path, ROOT, body.clone()).await.is(400);
        }
        // Lists trim the blanks of their elements.
        if bad.trim() == bad {
            for (path, name) in [
                ("sys/capabilities-self", "paths"),
                ("sys/capabilities-self", "path"),
                ("sys/quotas/config", "rate_limit_exempt_paths"),
            ] {
                server.post(path, ROOT, json!({ name: [bad] })).await.is(400);
            }
        }
    }
    for bad in [" x", "x ", "x\u{200b}y", "\u{a0}x"] {
        server.post(&format!("sys/mounts/{bad}"), ROOT, json!({ "type": "kv" })).await.is(400);
        server.post(&format!("sys/auth/{bad}"), ROOT, json!({ "type": "userpass" })).await.is(400);
    }
    let mounts = server.get("sys/mounts", ROOT).await.ok();
    let mounts: Vec<&String> = mounts.data().as_object().unwrap().keys().collect();
    assert_eq!(mounts, ["cubbyhole/", "identity/", "kv/", "secret/", "sys/"]);
    server.post("sys/remount", ROOT, json!({ "from": "/kv/", "to": "deep/kv/" })).await.ok();
    server.post("sys/mounts/a b", ROOT, json!({ "type": "kv" })).await.ok();
}

#[tokio::test]
async fn a_mount_at_a_path_of_an_older_version_is_moved_away_by_its_exact_path() {
    let server = TestServer::new().await;
    let unsealed = server.unsealed();
    for (at, (old, new)) in
        [("x//y/", "plain"), (" blank /", "b"), ("a/../b/", "up"), ("auth/u\u{200b}/", "auth/users")]
            .into_iter()
            .enumerate()
    {
        let is_auth = old.starts_with("auth/");
        let (kind, engine) = if is_auth { (Kind::Auth, "userpass") } else { (Kind::Secrets, "kv") };
        let entry = unsealed.engines.mounts.entry(kind, old, engine, None).unwrap();
        unsealed.engines.changes.mount(entry).await.unwrap();
        let exact = if at % 2 == 0 { old } else { old.trim_end_matches('/') };
        for other in [format!("/{old}"), format!("{old}/"), old.to_uppercase()] {
            server.post("sys/remount", ROOT, json!({ "from": other, "to": new })).await.is(400);
        }
        server.post("sys/remount", ROOT, json!({ "from": exact, "to": "x//z" })).await.is(400);
        let rule = json!({ "path": { "sys/remount": { "capabilities": ["update", "sudo"], "denied_parameters": { "from": [exact] } } } });
        server.policy("mover", &rule.to_string()).await;
        let mover = server.token(json!({ "policies": ["mover"] })).await;
        server.post("sys/remount", &mover, json!({ "from": exact, "to": new })).await.is(403);
        server.post("sys/remount", ROOT, json!({ "from": exact, "to": new })).await.ok();
        let listed = server.get(if is_auth { "sys/auth" } else { "sys/mounts" }, ROOT).await.ok();
        let listed: Vec<&String> = listed.data().as_object().unwrap().keys().collect();
        let bare = |path: &str| format!("{}/", path.trim_start_matches("auth/").trim_end_matches('/'));
        assert!(listed.contains(&&bare(new)) && !listed.iter().any(|path| **path == bare(old)), "{old:?}: {listed:?}");
    }
}
