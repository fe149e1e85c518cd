//! `sys/audit`: devices that the API creates, only where the configuration allows it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use crate::audit::{OwnFiles, stored_devices};
use crate::settings::Settings;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestServer};

async fn server(change: fn(&mut Settings)) -> TestServer {
    TestServer::with(
        |settings, _| {
            settings.allow_api_audit_creation = true;
            change(settings);
        },
        keepfast_engines::all(),
    )
    .await
}

fn file(server: &TestServer, name: &str, options: &[(&str, &str)]) -> Value {
    let mut all = serde_json::Map::from_iter([(
        "file_path".to_owned(),
        json!(server.dir.path().join(name).to_string_lossy().into_owned()),
    )]);
    all.extend(options.iter().map(|(k, v)| ((*k).to_owned(), json!(v))));
    json!({ "type": "file", "options": all })
}

#[tokio::test]
async fn sec_kf42_without_the_setting_the_api_creates_no_device() {
    let server = TestServer::new().await;
    let refused = server.post("sys/audit/x", ROOT, file(&server, "x", &[])).await.is(400);
    assert!(refused.error().starts_with("cannot enable audit device via API"));
    assert!(!server.dir.path().join("x").exists());
    server.delete("sys/audit/none", ROOT).await.is(204);
    assert_eq!(
        server.delete("sys/audit/audit", ROOT).await.is(400).error(),
        "cannot disable configuration-managed audit device"
    );
}

#[tokio::test]
async fn sys_audit_refuses_what_openbao_refuses() {
    let server = server(|_| {}).await;
    server.post("sys/audit/a", ROOT, file(&server, "a", &[])).await.is(204);
    let at = |path: &str| json!({ "type": "file", "options": { "file_path": path } });
    for (path, body, text) in [
        ("x", json!({}), "unknown backend type: \"\""),
        ("x", json!({ "type": "nope" }), "unknown backend type: \"nope\""),
        ("x", json!({ "type": "file" }), "file_path is required"),
        ("a", file(&server, "b", &[]), "path already in use"),
        ("a/b", file(&server, "b", &[]), "path already in use"),
        ("audit", file(&server, "b", &[]), "path already in use"),
        ("x", file(&server, "b", &[("prefix", "p")]), "audit log prefixing is not allowed"),
        ("x", file(&server, "b", &[("format", "jsonx")]), "jsonx formatting has been removed"),
        ("x", file(&server, "b", &[("format", "xml")]), "unknown format type \"xml\""),
        ("x", file(&server, "b", &[("mode", "abc")]), "mode is not an octal number"),
        ("x", file(&server, "b", &[("mode", "0755")]), "executable"),
        ("x", file(&server, "b", &[("log_raw", "maybe")]), "log_raw"),
        ("x", at(&server.dir.path().to_string_lossy()), "sanity check failed"),
        ("x", at("/proc/nope/x.log"), "sanity check failed"),
        ("x", at("/dev/full"), "No space left"),
    ] {
        let refused = server.post(&format!("sys/audit/{path}"), ROOT, body.clone()).await.is(400);
        assert!(refused.error().contains(text), "{body}: {refused:?}");
    }
    server.token(json!({ "id": "weak", "policies": ["default"] })).await;
    server.post("sys/audit/x", "weak", file(&server, "b", &[])).await.is(403);
    let listed = server.get("sys/audit", ROOT).await.ok();
    assert_eq!(listed.data().as_object().unwrap().keys().collect::<Vec<_>>(), ["a/", "audit/"]);
    assert!(!server.dir.path().join("b").exists());
}

#[tokio::test]
async fn sec_kf42_a_created_device_records_survives_and_is_removed() {
    let mut server = server(|settings| settings.allow_audit_log_prefixing = true).await;
    let mut body = file(&server, "logs/second", &[("prefix", "> "), ("hmac_accessor", "false")]);
    (body["description"], body["local"]) = (json!("for people"), json!(true));
    server.post("sys/audit/deep/second", ROOT, body.clone()).await.is(204);
    let shown = json!({ "type": "file", "path": "deep/second/", "description": "for people", "local": true,
                        "options": body["options"] });
    assert_eq!(server.get("sys/audit", ROOT).await.ok().data()["deep/second/"], shown);
    let hash = async |server: &TestServer| {
        server.post("sys/audit-hash/deep/second", ROOT, json!({ "input": "x" })).await.ok().data()["hash"].clone()
    };
    let before = hash(&server).await;
    server.restarted().await;
    assert_eq!(server.get("sys/audit", ROOT).await.ok().data()["deep/second/"], shown);
    assert_eq!(hash(&server).await, before, "the salt was stored with the device");
    let lines = server.audit("logs/second").lines().count();
    server.get("sys/mounts", ROOT).await.ok();
    let log = server.audit("logs/second");
    assert_eq!((log.lines().count(), log.lines().all(|line| line.starts_with("> {"))), (lines + 2, true));
    assert!(!log.contains(ROOT));
    // A target that cannot be opened at unseal does not block requests, as long as another device takes entries.
    std::fs::remove_dir_all(server.dir.path().join("logs")).unwrap();
    std::fs::write(server.dir.path().join("logs"), "").unwrap();
    server.restarted().await;
    server.get("sys/mounts", ROOT).await.ok();
    std::fs::remove_file(server.dir.path().join("logs")).unwrap();
    server.node.reload(None, None);
    server.get("sys/mounts", ROOT).await.ok();
    assert_eq!(server.audit("logs/second").lines().count(), 2, "after a reopen");
    server.delete("sys/audit/deep/second", ROOT).await.is(204);
    server.delete("sys/audit/deep/second", ROOT).await.is(204);
    let lines = server.audit("logs/second").lines().count();
    server.restarted().await;
    server.get("sys/mounts", ROOT).await.ok();
    assert_eq!(server.audit("logs/second").lines().count(), lines);
    assert!(
        !crate::tests::tokens::stored(&server, "audit/").await.iter().any(|key| key.contains("deep")),
        "its salt is gone"
    );
}

#[tokio::test]
async fn sec_kf45_no_created_device_is_a_file_of_the_server_or_no_file() {
    let mut server = TestServer::with(
        |settings, dir| {
            settings.allow_api_audit_creation = true;
            std::fs::create_dir(dir.join("data")).unwrap();
            for name in ["data/log-1", "tls.key"] {
                std::fs::write(dir.join(name), "kept").unwrap();
            }
            std::os::unix::fs::symlink(dir.join("data"), dir.join("link")).unwrap();
            settings.own_files = std::sync::Arc::new(OwnFiles {
                directories: vec![("storage", dir.join("data"))],
                files: vec![("tls_key_file", dir.join("tls.key"))],
                ..OwnFiles::default()
            });
        },
        keepfast_engines::all(),
    )
    .await;
    for (path, text) in [
        ("data/log-1", "the server itself uses this file (storage)"),
        ("data/new/log", "the server itself uses this file (storage)"),
        ("link/new", "the server itself uses this file (storage)"),
        ("tls.key", "the server itself uses this file (tls_key_file)"),
        ("/proc/self/mem", "it is a file of the kernel"),
        ("/dev/zero", "not a regular file"),
        ("/dev/ptmx", "not a regular file"),
    ] {
        let refused = server.post("sys/audit/x", ROOT, file(&server, path, &[])).await.is(400);
        assert!(refused.error().contains(text), "{path}: {refused:?}");
    }
    assert_eq!(std::fs::read(server.dir.path().join("tls.key")).unwrap(), b"kept");
    assert_eq!(std::fs::read_dir(server.dir.path().join("data")).unwrap().count(), 1);
    // A stored device whose file has become the server's own takes no entries after an unseal.
    server.post("sys/audit/x", ROOT, file(&server, "later/log", &[])).await.is(204);
    let later = server.dir.path().join("later");
    let own = OwnFiles { directories: vec![("storage", later.clone())], ..OwnFiles::default() };
    server.settings.own_files = std::sync::Arc::new(own);
    server.restarted().await;
    let before = std::fs::read(later.join("log")).unwrap();
    server.get("sys/mounts", ROOT).await.ok();
    assert_eq!(std::fs::read(later.join("log")).unwrap(), before);
}

#[tokio::test]
async fn a_created_device_with_options_of_an_older_version_stops_no_unseal() {
    let mut server = server(|_| {}).await;
    server.post("sys/audit/x", ROOT, file(&server, "x", &[])).await.is(204);
    let unsealed = server.unsealed();
    let (view, mut tx) = (unsealed.barrier.view("audit/"), unsealed.barrier.begin());
    let at = format!("device/{}", hex::encode("x"));
    let mut stored: Value = serde_json::from_slice(&tx.get(&view, &at).await.unwrap().unwrap()).unwrap();
    stored["options"]["format"] = json!("jsonx");
    tx.put(&view, &at, stored.to_string().into());
    tx.commit().await.unwrap();
    server.restarted().await;
    server.get("sys/mounts", ROOT).await.ok();
    assert!(server.get("sys/audit", ROOT).await.ok().data()["x/"].is_object(), "it can be seen and removed");
    server.delete("sys/audit/x", ROOT).await.is(204);
}

#[tokio::test]
async fn a_device_whose_opening_panics_is_opened_before_the_next_entry() {
    let change = |settings: &mut crate::Settings, _: &std::path::Path| settings.allow_api_audit_creation = true;
    let server = TestServer::with(change, keepfast_engines::all()).await;
    let unsealed = server.unsealed();
    let view = unsealed.barrier.view("audit/");
    let mut device = crate::tests::fixture::device(server.dir.path(), "late", &[]);
    // More than the storage cache holds.
    device.description = "x".repeat(4 << 20);
    let mut tx = unsealed.barrier.begin();
    stored_devices::create(&unsealed.observability.audit, &mut tx, &view, device, false, &server.settings)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    server.backend.panic_at("audit/device/");
    let followed = AssertUnwindSafe(unsealed.observability.stored_devices.follow(&unsealed.observability.audit))
        .catch_unwind()
        .await;
    assert!(followed.is_err() && unsealed.observability.stored_devices.is_behind());
    server.get("sys/mounts/canary", ROOT).await;
    assert!(server.audit("late").contains("canary") && !unsealed.observability.stored_devices.is_behind());
}

#[tokio::test]
async fn sec_a_stored_device_that_the_configuration_forbids_is_not_opened() {
    let change = |settings: &mut crate::Settings, _: &std::path::Path| settings.allow_api_audit_creation = true;
    let mut server = TestServer::with(change, keepfast_engines::all()).await;
    let target = server.dir.path().join("planted");
    let device = json!({ "type": "file", "options": { "file_path": target } });
    server.post("sys/audit/x", ROOT, device).await.is(204);
    server.restarted().await;
    server.get("sys/mounts", ROOT).await.ok();
    assert!(std::fs::metadata(&target).unwrap().len() > 0);
    std::fs::remove_file(&target).unwrap();
    server.settings.allow_api_audit_creation = false;
    server.restarted().await;
    server.get("sys/mounts", ROOT).await.ok();
    assert!(!target.exists(), "as after the restore of a snapshot");
    // Nor when another node of the cluster stores it.
    let unsealed = server.unsealed();
    let mut tx = unsealed.barrier.begin();
    let view = unsealed.barrier.view(crate::layout::AUDIT_STORAGE);
    let key = format!("{}{}", crate::layout::AUDIT_DEVICES, hex::encode("x"));
    let stored = tx.get(&view, &key).await.unwrap().unwrap();
    tx.put(&view, &key, stored);
    tx.commit().await.unwrap();
    server.get("sys/mounts", ROOT).await.ok();
    assert!(!target.exists());
}

#[tokio::test]
async fn sec_a_node_whose_only_devices_are_forbidden_serves_nothing() {
    let change = |settings: &mut crate::Settings, _: &std::path::Path| {
        settings.allow_api_audit_creation = true;
        settings.audit.clear();
    };
    let server = TestServer::with(change, keepfast_engines::all()).await;
    let target = server.dir.path().join("only");
    let device = json!({ "type": "file", "options": { "file_path": target } });
    server.post("sys/audit/x", ROOT, device.clone()).await.is(204);
    let backend: Arc<dyn keepfast_storage::Backend> = server.backend.clone();
    let restarted = |allows: bool, audit: Vec<crate::settings::AuditSettings>| {
        let settings = crate::Settings { allow_api_audit_creation: allows, audit, ..server.settings.clone() };
        crate::Node::new(backend.clone(), keepfast_engines::all(), Arc::new(server.clock.clone()), settings)
    };
    server.node.shutdown().await;
    let refused = restarted(false, Vec::new()).lifecycle.unseal(&server.shares).await.unwrap_err();
    assert!(refused.public().contains("unsafe_allow_api_audit_creation"), "{refused}");
    // With a device of the configuration it serves, and shows the other one.
    let declared = crate::tests::fixture::device(server.dir.path(), "declared", &[]);
    assert!(restarted(false, vec![declared]).lifecycle.unseal(&server.shares).await.unwrap());
    assert!(restarted(true, Vec::new()).lifecycle.unseal(&server.shares).await.unwrap());
}
