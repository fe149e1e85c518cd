//! `sys/audit`: devices that the API creates, only where the configuration allows it.

use std::panic::AssertUnwindSafe;

use crate::audit::{OwnFiles, created};
use crate::settings::Settings;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use crate::tests::fixture::{House, ROOT};

async fn house(change: fn(&mut Settings)) -> House {
    House::with(
        |settings, _| {
            settings.allow_api_audit_creation = true;
            change(settings);
        },
        keepfast_engines::all(),
    )
    .await
}

fn file(house: &House, name: &str, options: &[(&str, &str)]) -> Value {
    let mut all = serde_json::Map::from_iter([(
        "file_path".to_owned(),
        json!(house.dir.path().join(name).to_string_lossy().into_owned()),
    )]);
    all.extend(options.iter().map(|(k, v)| ((*k).to_owned(), json!(v))));
    json!({ "type": "file", "options": all })
}

#[tokio::test]
async fn sec_kf42_without_the_setting_the_api_creates_no_device() {
    let house = House::new().await;
    let refused = house.post("sys/audit/x", ROOT, file(&house, "x", &[])).await.is(400);
    assert!(refused.error().starts_with("cannot enable audit device via API"));
    assert!(!house.dir.path().join("x").exists());
    house.delete("sys/audit/none", ROOT).await.is(204);
    assert_eq!(
        house.delete("sys/audit/audit", ROOT).await.is(400).error(),
        "cannot disable configuration-managed audit device"
    );
}

#[tokio::test]
async fn sys_audit_refuses_what_openbao_refuses() {
    let house = house(|_| {}).await;
    house.post("sys/audit/a", ROOT, file(&house, "a", &[])).await.is(204);
    let at = |path: &str| json!({ "type": "file", "options": { "file_path": path } });
    for (path, body, text) in [
        ("x", json!({}), "unknown backend type: \"\""),
        ("x", json!({ "type": "nope" }), "unknown backend type: \"nope\""),
        ("x", json!({ "type": "file" }), "file_path is required"),
        ("a", file(&house, "b", &[]), "path already in use"),
        ("a/b", file(&house, "b", &[]), "path already in use"),
        ("audit", file(&house, "b", &[]), "path already in use"),
        ("x", file(&house, "b", &[("prefix", "p")]), "audit log prefixing is not allowed"),
        ("x", file(&house, "b", &[("format", "jsonx")]), "jsonx formatting has been removed"),
        ("x", file(&house, "b", &[("format", "xml")]), "unknown format type \"xml\""),
        ("x", file(&house, "b", &[("mode", "abc")]), "mode is not an octal number"),
        ("x", file(&house, "b", &[("mode", "0755")]), "executable"),
        ("x", file(&house, "b", &[("log_raw", "maybe")]), "log_raw"),
        ("x", at(&house.dir.path().to_string_lossy()), "sanity check failed"),
        ("x", at("/proc/nope/x.log"), "sanity check failed"),
        ("x", at("/dev/full"), "No space left"),
    ] {
        let refused = house.post(&format!("sys/audit/{path}"), ROOT, body.clone()).await.is(400);
        assert!(refused.error().contains(text), "{body}: {refused:?}");
    }
    house.token(json!({ "id": "weak", "policies": ["default"] })).await;
    house.post("sys/audit/x", "weak", file(&house, "b", &[])).await.is(403);
    let listed = house.get("sys/audit", ROOT).await.ok();
    assert_eq!(listed.data().as_object().unwrap().keys().collect::<Vec<_>>(), ["a/", "audit/"]);
    assert!(!house.dir.path().join("b").exists());
}

#[tokio::test]
async fn sec_kf42_a_created_device_records_survives_and_is_removed() {
    let mut house = house(|settings| settings.allow_audit_log_prefixing = true).await;
    let mut body = file(&house, "logs/second", &[("prefix", "> "), ("hmac_accessor", "false")]);
    (body["description"], body["local"]) = (json!("for people"), json!(true));
    house.post("sys/audit/deep/second", ROOT, body.clone()).await.is(204);
    let shown = json!({ "type": "file", "path": "deep/second/", "description": "for people", "local": true,
                        "options": body["options"] });
    assert_eq!(house.get("sys/audit", ROOT).await.ok().data()["deep/second/"], shown);
    let hash = async |house: &House| {
        house.post("sys/audit-hash/deep/second", ROOT, json!({ "input": "x" })).await.ok().data()["hash"].clone()
    };
    let before = hash(&house).await;
    house.restarted().await;
    assert_eq!(house.get("sys/audit", ROOT).await.ok().data()["deep/second/"], shown);
    assert_eq!(hash(&house).await, before, "the salt was stored with the device");
    let lines = house.audit("logs/second").lines().count();
    house.get("sys/mounts", ROOT).await.ok();
    let log = house.audit("logs/second");
    assert_eq!((log.lines().count(), log.lines().all(|line| line.starts_with("> {"))), (lines + 2, true));
    assert!(!log.contains(ROOT));
    // A target that cannot be opened at unseal does not block requests, as long as another device takes entries.
    std::fs::remove_dir_all(house.dir.path().join("logs")).unwrap();
    std::fs::write(house.dir.path().join("logs"), "").unwrap();
    house.restarted().await;
    house.get("sys/mounts", ROOT).await.ok();
    std::fs::remove_file(house.dir.path().join("logs")).unwrap();
    house.node.reopen_audit();
    house.get("sys/mounts", ROOT).await.ok();
    assert_eq!(house.audit("logs/second").lines().count(), 2, "after a reopen");
    house.delete("sys/audit/deep/second", ROOT).await.is(204);
    house.delete("sys/audit/deep/second", ROOT).await.is(204);
    let lines = house.audit("logs/second").lines().count();
    house.restarted().await;
    house.get("sys/mounts", ROOT).await.ok();
    assert_eq!(house.audit("logs/second").lines().count(), lines);
    assert!(
        !crate::tests::tokens::stored(&house, "audit/").await.iter().any(|key| key.contains("deep")),
        "its salt is gone"
    );
}

#[tokio::test]
async fn sec_kf45_no_created_device_is_a_file_of_the_server_or_no_file() {
    let mut house = House::with(
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
        let refused = house.post("sys/audit/x", ROOT, file(&house, path, &[])).await.is(400);
        assert!(refused.error().contains(text), "{path}: {refused:?}");
    }
    assert_eq!(std::fs::read(house.dir.path().join("tls.key")).unwrap(), b"kept");
    assert_eq!(std::fs::read_dir(house.dir.path().join("data")).unwrap().count(), 1);
    // A stored device whose file has become the server's own takes no entries after an unseal.
    house.post("sys/audit/x", ROOT, file(&house, "later/log", &[])).await.is(204);
    let later = house.dir.path().join("later");
    let own = OwnFiles { directories: vec![("storage", later.clone())], ..OwnFiles::default() };
    house.settings.own_files = std::sync::Arc::new(own);
    house.restarted().await;
    let before = std::fs::read(later.join("log")).unwrap();
    house.get("sys/mounts", ROOT).await.ok();
    assert_eq!(std::fs::read(later.join("log")).unwrap(), before);
}

#[tokio::test]
async fn a_created_device_with_options_of_an_older_version_stops_no_unseal() {
    let mut house = house(|_| {}).await;
    house.post("sys/audit/x", ROOT, file(&house, "x", &[])).await.is(204);
    let unsealed = house.unsealed();
    let (view, mut tx) = (unsealed.barrier.view("audit/"), unsealed.barrier.begin());
    let at = format!("device/{}", hex::encode("x"));
    let mut stored: Value = serde_json::from_slice(&tx.get(&view, &at).await.unwrap().unwrap()).unwrap();
    stored["options"]["format"] = json!("jsonx");
    tx.put(&view, &at, stored.to_string().into());
    tx.commit().await.unwrap();
    house.restarted().await;
    house.get("sys/mounts", ROOT).await.ok();
    assert!(house.get("sys/audit", ROOT).await.ok().data()["x/"].is_object(), "it can be seen and removed");
    house.delete("sys/audit/x", ROOT).await.is(204);
}

#[tokio::test]
async fn a_device_whose_opening_panics_is_opened_before_the_next_entry() {
    let change = |settings: &mut crate::Settings, _: &std::path::Path| settings.allow_api_audit_creation = true;
    let house = House::with(change, keepfast_engines::all()).await;
    let unsealed = house.unsealed();
    let view = unsealed.barrier.view("audit/");
    let mut device = crate::tests::fixture::device(house.dir.path(), "late", &[]);
    // More than the storage cache holds.
    device.description = "x".repeat(4 << 20);
    let mut tx = unsealed.barrier.begin();
    created::create(&unsealed.observed.audit, &mut tx, &view, device, false, &house.settings).await.unwrap();
    tx.commit().await.unwrap();
    house.backend.panic_at("audit/device/");
    let followed =
        AssertUnwindSafe(unsealed.observed.stored_devices.follow(&unsealed.observed.audit)).catch_unwind().await;
    assert!(followed.is_err() && unsealed.observed.stored_devices.is_behind());
    house.get("sys/mounts/canary", ROOT).await;
    assert!(house.audit("late").contains("canary") && !unsealed.observed.stored_devices.is_behind());
}
