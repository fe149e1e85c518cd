//! Audit: every request is audited, and no entry holds a secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestServer, device};

#[tokio::test]
async fn sec_al06_every_request_has_exactly_one_entry_before_and_one_after() {
    let server = TestServer::new().await;
    server.token(json!({ "id": "weak", "policies": ["default"] })).await;
    let requested = [
        ("GET", "secret/data/none", ROOT),
        ("POST", "secret/data/a", ROOT),
        ("GET", "secret/data/a", ROOT),
        ("GET", "nowhere", ROOT),
        ("GET", "secret/data/a", ""),
        ("GET", "secret/data/a", "none"),
        ("PATCH", "sys/mounts", ROOT),
        ("GET", "sys/mounts", "weak"),
        ("POST", "auth/token/create", ROOT),
        ("HELP", "secret/data/a", ROOT),
        ("LIST", "secret/metadata", ROOT),
        ("GET", "sys/internal/ui/mounts", ""),
        ("POST", "sys/wrapping/lookup", ""),
        ("POST", "auth/approle/login", ""),
        ("POST", "sys/wrapping/unwrap", ROOT),
    ];
    for (method, path, token) in requested {
        server.forget_audit();
        let body = if method == "POST" { json!({ "data": { "k": 1 } }) } else { Value::Null };
        let answer = server.call(method, path, token, body).await;
        let entries = server.entries();
        let kinds: Vec<_> = entries.iter().map(|e| e["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["request", "response"], "{method} {path} {}", answer.status);
        assert_eq!(entries[0]["request"]["id"], entries[1]["request"]["id"]);
        assert_eq!(
            entries[1]["error"].is_null(),
            answer.status < 400 || answer.error().is_empty(),
            "{method} {path}: {entries:?}"
        );
    }
}

#[tokio::test]
async fn sec_al06_the_exempt_paths_are_five() {
    let server = TestServer::new().await;
    server.forget_audit();
    for (method, path) in [
        ("GET", "sys/health"),
        ("GET", "sys/seal-status"),
        ("GET", "sys/leader"),
        ("GET", "sys/init"),
        ("POST", "sys/init"),
        ("POST", "sys/unseal"),
    ] {
        server.call(method, path, "", json!({ "key": "aa".repeat(33) })).await;
    }
    assert!(server.entries().is_empty());
}

#[tokio::test]
async fn sec_al07_without_a_written_entry_a_request_has_no_effect() {
    // Every write to this pipe fails once its reader is gone.
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let full = |path: &str| crate::settings::AuditSettings {
        options: [("file_path".to_owned(), path.to_owned())].into(),
        ..device(std::path::Path::new("/"), "full", &[])
    };
    let only = vec![full(&pipe.display().to_string())];
    let server = TestServer::with(|settings, _| settings.audit = only, keepfast_engines::all()).await;
    drop(reader);
    let version = async || server.unsealed().barrier.key_status().unwrap().term;
    let before = version().await;
    for (method, path, token) in [
        ("GET", "sys/mounts", ROOT),
        ("POST", "sys/rotate", ROOT),
        ("POST", "auth/token/create", ROOT),
        ("GET", "sys/mounts", ""),
        ("GET", "sys/internal/ui/mounts", ""),
    ] {
        let answer = server.call(method, path, token, Value::Null).await.is(500);
        assert_eq!(answer.body, json!({ "errors": ["internal error"] }), "{path}");
    }
    assert_eq!(version().await, before, "a request that is not recorded does not run");
    server.get("sys/health", "").await.is(200);
    // With a second device that works, requests succeed.
    let server = TestServer::with(|settings, _| settings.audit.push(full("/dev/full")), keepfast_engines::all()).await;
    server.get("sys/mounts", ROOT).await.is(200);
    assert!(!server.entries().is_empty());
}

#[tokio::test]
async fn sec_al03_log_raw_of_one_device_changes_no_other() {
    let server = TestServer::with(
        |settings, dir| {
            settings.audit.push(device(dir, "raw", &[("log_raw", "true")]));
            settings.audit.push(device(dir, "plain", &[("hmac_accessor", "false")]));
        },
        keepfast_engines::all(),
    )
    .await;
    let made =
        server.post("auth/token/create", ROOT, json!({ "policies": ["default"], "display_name": "x" })).await.ok();
    server.post("secret/data/a", &made.token(), json!({ "data": { "k": "canary-raw" } })).await;
    server.post("secret/data/a", ROOT, json!({ "data": { "k": "canary-raw" } })).await.ok();
    for (name, shows_secrets, shows_accessor) in [("audit", false, false), ("raw", true, true), ("plain", false, true)]
    {
        let log = server.audit(name);
        assert_eq!(log.contains("canary-raw"), shows_secrets, "{name}");
        assert_eq!(log.contains(&made.token()), shows_secrets, "{name}");
        assert_eq!(log.contains(&made.accessor()), shows_accessor, "{name}");
        assert_eq!(log.lines().count(), server.audit("audit").lines().count());
    }
    // Each device has a salt of its own; `sys/audit-hash` returns the HMAC with it.
    let hash = async |device: &str| {
        server.post(&format!("sys/audit-hash/{device}"), ROOT, json!({ "input": "canary-raw" })).await.ok().data()["hash"].as_str().unwrap().to_owned()
    };
    let (one, other) = (hash("audit").await, hash("plain").await);
    assert!(one != other && server.audit("audit").contains(&one) && server.audit("plain").contains(&other));
}

#[tokio::test]
async fn sec_al03_a_raw_value_cannot_fake_an_entry() {
    let server = TestServer::with(
        |settings, dir| settings.audit.push(device(dir, "raw", &[("log_raw", "true")])),
        keepfast_engines::all(),
    )
    .await;
    let forged = "{\n\"data\":\n{\"time\":\"x\",\"type\":\"request\"}\n}".to_owned();
    server
        .send(
            "POST",
            "secret/data/a",
            RequestOptions { token: Some(ROOT.to_owned()), body: Some(forged), ..RequestOptions::default() },
        )
        .await
        .ok();
    for line in server.audit("raw").lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert!(entry["request"]["id"].is_string(), "{line}");
    }
}

/// The encodings in which a secret could occur.
fn forms(secret: &str) -> Vec<String> {
    let escaped = serde_json::to_string(secret).unwrap();
    vec![secret.to_owned(), hex::encode(secret), STANDARD.encode(secret), escaped.trim_matches('"').to_owned()]
}

#[tokio::test]
async fn sec_al01_no_secret_is_in_the_audit_log_or_in_storage() {
    let server = TestServer::new().await;
    let mut secrets = vec![ROOT.to_owned()];
    secrets.extend(server.shares.iter().map(|s| hex::encode(s.expose())));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    // KV, in both versions.
    server.post("sys/mounts/one", ROOT, json!({ "type": "kv", "options": { "version": "1" } })).await.ok();
    server.post("one/a", ROOT, json!({ "k": "canary-v1 \"quoted\"", "n": 314159265358979i64 })).await.ok();
    server.get("one/a", ROOT).await.ok();
    server
        .post("secret/data/a", ROOT, json!({ "data": { "k": "canary-v2", "deep": [{ "x": "canary-deep" }] } }))
        .await
        .ok();
    server.get("secret/data/a", ROOT).await.ok();
    server.call("PATCH", "secret/data/a", ROOT, json!({ "data": { "p": "canary-patch" } })).await.ok();
    secrets.extend(
        ["canary-v1 \"quoted\"", "314159265358979", "canary-v2", "canary-deep", "canary-patch"].map(str::to_owned),
    );
    // Tokens: created, wrapped, looked up, and in refused requests.
    let made = server.post("auth/token/create", ROOT, json!({ "policies": ["default"] })).await.ok();
    server.post("auth/token/lookup", ROOT, json!({ "token": made.token() })).await.ok();
    server.post("cubbyhole/a", &made.token(), json!({ "k": "canary-cubbyhole" })).await.ok();
    server.get("sys/mounts", &made.token()).await.is(403);
    server.post("auth/token/renew-self", &made.token(), json!({})).await.ok();
    let wrapped = server.wrapped("GET", "secret/data/a", ROOT, Value::Null, 60).await.ok();
    server.post("sys/wrapping/unwrap", "", json!({ "token": wrapped.wrapping() })).await;
    server.post("sys/wrapping/unwrap", &wrapped.wrapping(), Value::Null).await.ok();
    let kept = server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": "canary-kept" }), 60).await.ok();
    let batch = server.token(json!({ "type": "batch", "policies": ["default"] })).await;
    server.accepts(&batch).await;
    secrets.extend(["canary-cubbyhole", "canary-kept"].map(str::to_owned));
    secrets.extend([made.token(), made.accessor(), wrapped.wrapping(), kept.wrapping(), batch]);
    // AppRole and userpass.
    server.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await.ok();
    server.post("auth/approle/role/r", ROOT, json!({ "token_policies": "default" })).await.ok();
    let role_id = server.get("auth/approle/role/r/role-id", ROOT).await.ok();
    let secret_id = server.post("auth/approle/role/r/secret-id", ROOT, json!({})).await.ok();
    server.post("auth/approle/role/r/custom-secret-id", ROOT, json!({ "secret_id": "canary-secret-id" })).await.ok();
    server
        .post("auth/approle/login", "", json!({ "role_id": role_id.data()["role_id"], "secret_id": "canary-wrong" }))
        .await
        .is(400);
    let login = server
        .post(
            "auth/approle/login",
            "",
            json!({ "role_id": role_id.data()["role_id"], "secret_id": secret_id.data()["secret_id"] }),
        )
        .await
        .ok();
    server
        .post(
            "auth/approle/login",
            "",
            json!({ "role_id": role_id.data()["role_id"], "secret_id": "canary-secret-id" }),
        )
        .await
        .ok();
    secrets.extend([
        text(&secret_id.data()["secret_id"]),
        login.token(),
        "canary-wrong".to_owned(),
        "canary-secret-id".to_owned(),
    ]);
    server.post("sys/auth/userpass", ROOT, json!({ "type": "userpass" })).await.ok();
    server.post("auth/userpass/users/u", ROOT, json!({ "password": "canary-password" })).await.ok();
    server.post("auth/userpass/login/u", "", json!({ "password": "canary-password" })).await.ok();
    server.post("auth/userpass/login/u", "", json!({ "password": "canary-mistyped" })).await;
    secrets.extend(["canary-password", "canary-mistyped"].map(str::to_owned));
    // Transit.
    server.post("sys/mounts/transit", ROOT, json!({ "type": "transit" })).await.ok();
    server.post("transit/keys/k", ROOT, json!({ "exportable": true })).await.ok();
    let sealed =
        server.post("transit/encrypt/k", ROOT, json!({ "plaintext": STANDARD.encode("canary-plain") })).await.ok();
    server.post("transit/decrypt/k", ROOT, json!({ "ciphertext": sealed.data()["ciphertext"] })).await.ok();
    secrets.push("canary-plain".to_owned());
    let exported = server.get("transit/export/encryption-key/k", ROOT).await;
    secrets.extend(exported.body["data"]["keys"]["1"].as_str().map(str::to_owned));
    // Refused requests of every kind, with the secret in wrong places.
    for (path, body) in [
        ("auth/token/create", json!({ "ttl": "canary-ttl", "policies": "canary-policy" })),
        ("auth/token/create", json!({ "role_name": "canary-role" })),
        ("secret/data/a", json!({ "options": { "cas": "canary-cas" }, "data": {} })),
        ("secret/data/a", json!({ "data": "canary-data" })),
        ("auth/approle/login", json!({ "role_id": ["canary-list"] })),
        ("sys/tools/random", json!({ "format": "canary-format" })),
        ("sys/tools/hash", json!({ "input": "canary-input!" })),
        ("sys/mounts/x", json!({ "type": "canary-type" })),
        ("sys/policies/acl/p", json!({ "policy": "canary-text {{{" })),
        ("auth/token/roles/r", json!({ "token_bound_cidrs": "canary-cidr" })),
        ("sys/audit-hash/canary-device", json!({ "input": "canary-hashed" })),
        ("sys/remount", json!({ "from": "canary-from", "to": "x" })),
    ] {
        server.post(path, ROOT, body.clone()).await;
        let canaries = body.to_string();
        let quoted = canaries.split('"').filter(|t| t.starts_with("canary-")).map(str::to_owned);
        secrets.extend(quoted.filter(|t| !path.contains(t.as_str())));
    }
    let log = server.audit("audit");
    for form in secrets.iter().flat_map(|s| forms(s)) {
        assert!(
            !log.contains(&form),
            "{form} is in the audit log: {}",
            log.lines().find(|l| l.contains(&form)).unwrap_or_default()
        );
    }
    assert!(server.entries().len() > 60);
    // The backend holds ciphertext and keys: neither values nor keys may disclose a secret.
    let names = crate::tests::tokens::stored(&server, "").await;
    for form in secrets.iter().filter(|s| s.len() > 8).flat_map(|s| forms(s)) {
        assert!(!names.iter().any(|n| n.contains(&form)), "{form} is a name in storage");
    }
    for (key, value) in raw(&server).await {
        for form in secrets.iter().filter(|s| s.len() > 8).flat_map(|s| forms(s)) {
            assert!(!value.windows(form.len()).any(|w| w == form.as_bytes()), "{form} is at {key}");
        }
    }
}

/// All stored records in their raw form.
async fn raw(server: &TestServer) -> Vec<(String, Vec<u8>)> {
    use keepfast_storage::{Backend, Key, Page};
    let mut folders = vec![String::new()];
    let mut out = Vec::new();
    while let Some(folder) = folders.pop() {
        for name in server.backend.list(&Key::prefix(folder.clone()).unwrap(), &Page::all()).await.unwrap() {
            let path = format!("{folder}{name}");
            if name.ends_with('/') {
                folders.push(path);
            } else if let Some(value) = server.backend.get(&Key::new(path.as_str()).unwrap()).await.unwrap() {
                out.push((path, value.to_vec()));
            }
        }
    }
    assert!(out.len() > 20);
    out
}
