//! The namespace of a request, from its header and its path.

use serde_json::{Value, json};

use super::tenants::{create, delete, mount_kv, set, token_of, within};
use crate::tests::fixture::{ROOT, TestServer};

/// The namespaces root, `a`, `a/b` and `c`, each with its own name at `kv/x`.
async fn tree() -> TestServer {
    let server = TestServer::new().await;
    for path in ["a", "a/b", "c"] {
        create(&server, path).await;
    }
    for path in ["", "a", "a/b", "c"] {
        mount_kv(&server, path).await;
        set(&server, path, "kv/x", json!({ "at": path })).await;
    }
    server
}

/// The namespace whose secret a request reads, or the error.
async fn read(server: &TestServer, header: &str, path: &str) -> Result<String, (u16, String)> {
    let read = within(server, header, ("GET", path), ROOT, Value::Null).await;
    match read.status {
        200 => Ok(read.data()["at"].as_str().unwrap().to_owned()),
        status => Err((status, read.error().to_owned())),
    }
}

#[tokio::test]
async fn every_form_of_the_header_names_one_namespace() {
    let server = tree().await;
    for header in ["a", "a/", "/a", "/a/", "//a//", " a", "a "] {
        assert_eq!(read(&server, header, "kv/x").await, Ok("a".to_owned()), "{header:?}");
    }
    for header in ["", "/", "root", "root/", "//"] {
        assert_eq!(read(&server, header, "kv/x").await, Ok(String::new()), "{header:?}");
    }
    for header in ["a/b", "/a/b/", "a/b//"] {
        assert_eq!(read(&server, header, "kv/x").await, Ok("a/b".to_owned()), "{header:?}");
    }
    let missing = Err((404, "namespace not found".to_owned()));
    // Where OpenBao cleans the path.
    for header in [".", "..", "./a", "a/.", "a/..", "../a", "a//b", "a/./b", "a/b/..", "c/../a", "a/b/../.."] {
        assert_eq!(read(&server, header, "kv/x").await.unwrap_err().0, 400, "{header:?}");
    }
    for header in ["A", "%61", "a%2Fb", "root/a", "a/root", "nope", "a/nope", "b", "a/b/c", "sys", "kv", "a\0"] {
        assert_eq!(read(&server, header, "kv/x").await, missing, "{header:?}");
    }
}

#[tokio::test]
async fn an_unknown_namespace_is_refused_before_authentication() {
    let server = tree().await;
    for token in ["", "hvs.unknown", ROOT] {
        for (method, path) in [("GET", "kv/x"), ("POST", "sys/mounts/x"), ("LIST", "nowhere"), ("HELP", "sys/mounts")] {
            let response = within(&server, "nope", (method, path), token, Value::Null).await.is(404);
            assert_eq!(response.error(), "namespace not found", "{token} {method} {path}");
        }
    }
}

#[tokio::test]
async fn header_and_path_add_up() {
    let server = tree().await;
    for (header, path, at) in [
        ("", "a/kv/x", "a"),
        ("", "a/b/kv/x", "a/b"),
        ("a", "b/kv/x", "a/b"),
        ("a/", "b/kv/x", "a/b"),
        ("root", "c/kv/x", "c"),
    ] {
        assert_eq!(read(&server, header, path).await, Ok(at.to_owned()), "{header} {path}");
    }
    let no_handler = |path: &str| format!("no handler for route {path:?}. route entry not found.");
    for (header, path, within) in [
        ("", "nope/kv/x", "nope/kv/x"),
        ("", "a/nope/x", "nope/x"),
        ("a", "nope/x", "nope/x"),
        ("a", "a/kv/x", "a/kv/x"),
        ("", "a/c/kv/x", "c/kv/x"),
        ("", "a", "a"),
        ("", "a/b", "b"),
    ] {
        let (status, text) = read(&server, header, path).await.unwrap_err();
        assert_eq!(status, 404, "{header} {path}: {text}");
        // OpenBao names `a/b` in full where the last segment is a namespace.
        assert!(text == no_handler(within) || text == no_handler(path), "{header} {path}: {text}");
    }
    for token in ["", "hvs.unknown"] {
        let response = server.get("a/nope/x", token).await.is(403);
        assert_eq!(response.error(), "permission denied");
    }
}

#[tokio::test]
async fn mounts_and_namespaces_exclude_each_other_in_both_orders() {
    let server = tree().await;
    let kv = || json!({ "type": "kv" });
    for (header, name) in [("", "a"), ("", "a/foo"), ("", "a/b/deep"), ("a", "b"), ("a", "b/x"), ("", "c")] {
        let response = within(&server, header, ("POST", &format!("sys/mounts/{name}")), ROOT, kv()).await.is(400);
        assert!(response.error().starts_with("existing mount at "), "{header} {name}: {response:?}");
    }
    for (header, mount, name) in [("", "mm", "mm"), ("", "deep/er", "deep"), ("a", "own", "own"), ("a/b", "x/y/z", "x")]
    {
        set(&server, header, &format!("sys/mounts/{mount}"), kv()).await;
        let path = format!("sys/namespaces/{name}");
        let response = within(&server, header, ("POST", &path), ROOT, json!({})).await.is(400);
        let above = if header.is_empty() { String::new() } else { format!("{header}/") };
        assert_eq!(response.error(), format!("new namespace conflicts with existing mount: {above}{mount}/"));
        within(&server, header, ("GET", &path), ROOT, Value::Null).await.is(404);
    }
    // Neither by a move of a mount.
    for to in ["a", "a/foo", "c", "c/x/y"] {
        within(&server, "", ("POST", "sys/remount"), ROOT, json!({ "from": "mm", "to": to })).await.is(400);
    }
    // An auth method has another path than a namespace of its name.
    set(&server, "", "sys/auth/c", json!({ "type": "userpass" })).await;
    set(&server, "", "sys/auth/new", json!({ "type": "userpass" })).await;
    create(&server, "new").await;
    // A name is free again once the other one is deleted.
    within(&server, "", ("DELETE", "sys/mounts/mm"), ROOT, Value::Null).await.is(204);
    create(&server, "mm").await;
    delete(&server, "mm").await;
    set(&server, "", "sys/mounts/mm", kv()).await;
}

#[tokio::test]
async fn rows_of_the_whole_server_are_refused_by_header_and_path() {
    let server = tree().await;
    let token = token_of(&server, "a", json!({})).await;
    for (method, path) in [
        ("GET", "sys/health"),
        ("POST", "sys/seal"),
        ("POST", "sys/unseal"),
        ("POST", "sys/step-down"),
        ("GET", "sys/metrics"),
        ("GET", "sys/in-flight-req"),
        ("GET", "sys/rekey/init"),
        ("GET", "sys/generate-root/attempt"),
        ("GET", "sys/storage/raft/configuration"),
        ("GET", "sys/init"),
    ] {
        for header in ["a", "a/b", "nope"] {
            for token in ["", token.as_str(), ROOT] {
                let response = within(&server, header, (method, path), token, Value::Null).await.is(400);
                assert_eq!(response.error(), "operation unavailable in namespaces", "{header} {method} {path}");
            }
        }
        let by_path = server.call(method, &format!("a/{path}"), ROOT, Value::Null).await.is(400);
        assert!(by_path.error().starts_with("operation "), "{path}: {by_path:?}");
    }
    for (method, path) in [
        ("GET", "sys/host-info"),
        ("GET", "sys/config/state/sanitized"),
        ("GET", "sys/config/cors"),
        ("GET", "sys/config/ui/headers"),
        ("GET", "sys/config/auditing/request-headers"),
        ("GET", "sys/loggers"),
        ("GET", "sys/audit"),
        ("POST", "sys/audit/x"),
        ("POST", "sys/audit-hash/audit"),
        ("POST", "sys/quotas/rate-limit/x"),
        ("LIST", "sys/quotas/rate-limit"),
        ("GET", "sys/quotas/config"),
        ("POST", "sys/leases/quarantine"),
    ] {
        for token in ["", token.as_str(), ROOT] {
            for (header, path) in [("a", path.to_owned()), ("a/b", path.to_owned()), ("", format!("a/{path}"))] {
                let response = within(&server, header, (method, &path), token, Value::Null).await.is(400);
                let expected = "operation only available in root namespace";
                assert_eq!(response.error(), expected, "{header} {method} {path}");
            }
            within(&server, "nope", (method, path), token, Value::Null).await.is(404);
        }
    }
    for header in ["a", "nope", "a/", "/"] {
        within(&server, header, ("GET", "sys/seal-status"), "", Value::Null).await.is(200);
        within(&server, header, ("GET", "sys/leader"), "", Value::Null).await.is(200);
    }
    for (method, path) in [("GET", "sys/key-status"), ("POST", "sys/rotate"), ("POST", "sys/rotate/keyring")] {
        let response = within(&server, "a", (method, path), ROOT, Value::Null).await.is(400);
        assert_eq!(response.error(), "namespace is not sealable", "{path}");
        within(&server, "a", (method, path), &token, Value::Null).await.is(403);
    }
}

#[tokio::test]
async fn a_locked_namespace_refuses_every_path_of_it_and_below() {
    let server = tree().await;
    let token = token_of(&server, "a", json!({})).await;
    let below = token_of(&server, "a/b", json!({})).await;
    let key = set(&server, "", "sys/namespaces/api-lock/lock/a", Value::Null).await.data()["unlock_key"].clone();
    let text =
        "API access to this namespace has been locked by an administrator - \"a/\" must be unlocked to gain access.";
    for (header, path) in
        [("a", "kv/x"), ("a/b", "kv/x"), ("", "a/kv/x"), ("", "a/b/nowhere"), ("a", "sys/namespaces/b")]
    {
        for caller in ["", "hvs.unknown", &token, &below, ROOT] {
            let response = within(&server, header, ("GET", path), caller, Value::Null).await.is(503);
            assert_eq!(response.error(), text, "{header} {path}");
        }
    }
    // Its tokens are of no use elsewhere either.
    for caller in [&token, &below] {
        let status = server.get("auth/token/lookup-self", caller).await.status;
        assert!(matches!(status, 403 | 503), "{status}");
        server.get("kv/x", caller).await.is(403);
    }
    within(&server, "c", ("GET", "kv/x"), ROOT, Value::Null).await.ok();
    assert_eq!(server.get("sys/namespaces/a", ROOT).await.ok().data()["locked"], true);
    assert_eq!(server.get("sys/namespaces/c", ROOT).await.ok().data()["locked"], false);
    let unlock = |key: Value| json!({ "unlock_key": key });
    let path = ("POST", "sys/namespaces/api-lock/unlock");
    within(&server, "a", path, ROOT, unlock(json!("wrong"))).await.is(400);
    within(&server, "a", path, "", unlock(key.clone())).await.is(403);
    within(&server, "a", path, ROOT, unlock(key)).await.ok();
    within(&server, "a", ("GET", "kv/x"), ROOT, Value::Null).await.ok();
    assert!(within(&server, "a", ("GET", "auth/token/lookup-self"), &token, Value::Null).await.status == 200);
}

#[tokio::test]
async fn a_lock_survives_a_restart_a_patch_and_a_repeated_creation() {
    let mut server = tree().await;
    set(&server, "", "sys/namespaces/api-lock/lock/a", Value::Null).await;
    server.restarted().await;
    within(&server, "a", ("GET", "kv/x"), ROOT, Value::Null).await.is(503);
    set(&server, "", "sys/namespaces/a", json!({ "custom_metadata": { "k": "v" } })).await;
    within(&server, "", ("PATCH", "sys/namespaces/a"), ROOT, json!({ "custom_metadata": { "k": null } })).await.ok();
    within(&server, "a", ("GET", "kv/x"), ROOT, Value::Null).await.is(503);
    // A tenant with sudo in it does not end the lock from inside; root does from above.
    let outside = within(&server, "", ("POST", "sys/namespaces/api-lock/unlock/a"), ROOT, json!({})).await.ok();
    assert_eq!(outside.body["warnings"], json!(["Namespace unlocked using sudo capabilities"]));
    within(&server, "a", ("GET", "kv/x"), ROOT, Value::Null).await.ok();
}

#[tokio::test]
async fn a_tenant_does_not_unlock_its_own_namespace_without_the_key() {
    let server = tree().await;
    let chief = super::tenants::chief(&server, "a").await;
    set(&server, "", "sys/namespaces/api-lock/lock/a", Value::Null).await;
    for (header, path) in [
        ("a", "sys/namespaces/api-lock/unlock"),
        ("", "sys/namespaces/api-lock/unlock/a"),
        ("", "a/sys/namespaces/api-lock/unlock"),
    ] {
        for body in
            [json!({}), json!({ "unlock_key": "" }), json!({ "unlock_key": "x" }), json!({ "unlock_key": null })]
        {
            let response = within(&server, header, ("POST", path), &chief, body.clone()).await;
            assert!(response.status >= 400, "{header} {path} {body}: {response:?}");
        }
    }
    within(&server, "a", ("GET", "kv/x"), ROOT, Value::Null).await.is(503);
}
