//! The snapshots that `sys/storage/raft/snapshot` saves and takes, and the secrets in their files.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Query;
use serde_json::{Value, json};

use crate::cluster::fake::{FakeConsensus, parts_of, status};
use crate::cluster::snapshots::{ContainedMount, SealedContents, UnsealedContents};
use crate::tests::fixture::{ROOT, RequestOptions, TestServer, incoming};
use crate::tests::raft::{RAFT, leader, upload};
use crate::tests::seal_wrap::{rewrapped, with_transit};

/// The file of a snapshot that the server saves.
async fn saved(server: &TestServer) -> Bytes {
    let get = RequestOptions { token: Some(ROOT.to_owned()), ..RequestOptions::default() };
    server.node.handle(incoming("GET", &format!("{RAFT}/snapshot"), get)).await.into_body()
}

/// Lets the fake cluster save what the server has stored.
async fn current(server: &TestServer, consensus: &FakeConsensus) -> Bytes {
    *consensus.parts.lock() = parts_of(&server.backend.memory().records());
    saved(server).await
}

#[tokio::test]
async fn sec_ds08_a_snapshot_that_expands_a_hundredfold_is_refused() {
    let (server, consensus) = leader(status(&[1])).await;
    // More than any file may become.
    const PARTS: usize = 260;
    *consensus.parts.lock() = vec![Bytes::from(vec![0; 256 * 1024]); PARTS];
    let file = saved(&server).await;
    assert!(file.len() * 100 < PARTS * 256 * 1024, "{}", file.len());
    for path in ["snapshot", "snapshot-force"] {
        let refused = upload(&server, &format!("{RAFT}/{path}"), &file).await;
        assert!(refused.0 == 400 && refused.1.contains("is larger than"), "{refused:?}");
    }
    assert!(consensus.restored.lock().is_empty());
}

/// The response to a restore that changes nothing.
async fn dry_run(server: &TestServer, file: &Bytes) -> (u16, String) {
    upload(server, &format!("{RAFT}/snapshot-dry-run"), file).await
}

#[tokio::test]
async fn a_dry_run_tells_what_would_change_and_changes_nothing() {
    let (server, consensus) = leader(status(&[1])).await;
    server.post("secret/data/a", ROOT, json!({ "data": { "n": 1 } })).await.ok();
    let file = current(&server, &consensus).await;
    server.post("secret/data/a", ROOT, json!({ "data": { "n": 2 } })).await.ok();
    server.post("secret/data/b", ROOT, json!({ "data": { "n": 2 } })).await.ok();
    *consensus.parts.lock() = parts_of(&server.backend.memory().records());
    let (code, text) = dry_run(&server, &file).await;
    assert_eq!(code, 200, "{text}");
    let response: Value = serde_json::from_str(&text).unwrap();
    let data = &response["data"];
    let flag = |name| data[name].as_bool().unwrap();
    assert_eq!(["authenticated", "same_cluster", "same_seal", "needs_unseal"].map(flag), [true, true, true, false]);
    let counts = ["added", "changed", "deleted", "unreadable"].map(|name| data[name].as_u64().unwrap());
    // The second version of one secret, with its first one beside it, and another secret.
    assert_eq!(counts, [0, 1, 2, 0], "{data}");
    assert!(data["unchanged"].as_u64().unwrap() > 5);
    assert!(consensus.restored.lock().is_empty());
    assert_eq!(server.get("secret/data/a", ROOT).await.ok().data()["data"], json!({ "n": 2 }));
}

#[tokio::test]
async fn a_dry_run_reads_values_under_the_wrap_keys_of_the_snapshot() {
    let (server, consensus) = leader(status(&[1])).await;
    with_transit(&server).await;
    let file = current(&server, &consensus).await;
    assert_eq!(rewrapped(&server).await, [1, 1, 0]);
    *consensus.parts.lock() = parts_of(&server.backend.memory().records());
    let (code, text) = dry_run(&server, &file).await;
    assert_eq!(code, 200, "{text}");
    let data = serde_json::from_str::<Value>(&text).unwrap()["data"].clone();
    assert_eq!(
        [&data["unreadable"], &data["needs_unseal"], &data["same_seal"]],
        [&json!(0), &json!(false), &json!(false)]
    );
}

#[tokio::test]
async fn sec_a_forced_restore_of_a_changed_seal_record_is_refused() {
    let (server, consensus) = leader(status(&[1])).await;
    let file = current(&server, &consensus).await;
    server.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    *consensus.parts.lock() = parts_of(&server.backend.memory().records());
    let (code, text) = dry_run(&server, &file).await;
    assert!(code == 200 && text.contains("\"needs_unseal\":false"), "the slot has the same key: {text}");
    let mut records = server.backend.memory().records();
    let (_, seal) = records.iter_mut().find(|(key, _)| key.as_str() == "barrier/seal").unwrap();
    let changed = String::from_utf8(seal.to_vec()).unwrap().replace("\"cluster_name\":\"", "\"cluster_name\":\"x");
    assert_ne!(changed.as_bytes(), &seal[..]);
    *seal = changed.into();
    *consensus.parts.lock() = parts_of(&records);
    let file = saved(&server).await;
    let (code, text) = dry_run(&server, &file).await;
    assert!(code == 200 && text.contains("\"needs_unseal\":true"), "{text}");
    let refused = upload(&server, &format!("{RAFT}/snapshot-force"), &file).await;
    assert!(refused.0 == 400 && refused.1.contains("changed by someone without the root key"), "{refused:?}");
    assert!(consensus.restored.lock().is_empty());
}

#[tokio::test]
async fn a_dry_run_of_another_cluster_tells_that_its_shares_are_needed() {
    let ((server, consensus), (other, others)) = (leader(status(&[1])).await, leader(status(&[1])).await);
    let file = current(&other, &others).await;
    *consensus.parts.lock() = parts_of(&server.backend.memory().records());
    let (code, text) = dry_run(&server, &file).await;
    assert_eq!(code, 200, "{text}");
    let response: Value = serde_json::from_str(&text).unwrap();
    let flag = |name| response["data"][name].as_bool().unwrap();
    assert_eq!(["authenticated", "same_cluster", "same_seal", "needs_unseal"].map(flag), [false, false, false, true]);
    assert!(response["data"]["unreadable"].as_u64().unwrap() > 5);
    // A file whose parts are no records.
    *others.parts.lock() = vec![Bytes::from_static(b"no records")];
    let damaged = saved(&other).await;
    let refused = dry_run(&server, &damaged).await;
    assert!(refused.0 == 400 && refused.1.contains("damaged"), "{refused:?}");
    assert!(consensus.restored.lock().is_empty());
}

/// Writes a file below the directory of the server.
fn stored(server: &TestServer, file: &[u8]) -> PathBuf {
    let path = server.dir.path().join("a.snap");
    std::fs::write(&path, file).unwrap();
    path
}

fn encoded(server: &TestServer) -> Vec<SecretString> {
    server.shares.iter().map(|share| SecretString::new(STANDARD.encode(share.expose()))).collect()
}

async fn unsealed(server: &TestServer, path: &PathBuf) -> UnsealedContents {
    let sealed = SealedContents::open(File::open(path).unwrap(), 1 << 30).await.unwrap();
    assert_eq!(sealed.threshold(), 1);
    let clock = Arc::new(server.clock.clone());
    sealed.unseal(&encoded(server), keepfast_engines::all(), clock).await.unwrap()
}

async fn read(contents: &UnsealedContents, path: &str, version: Option<&str>) -> Option<Value> {
    let query: Query = version.map(|version| ("version".to_owned(), version.to_owned())).into_iter().collect();
    let response = contents.read("kv", path, query).await.unwrap()?;
    Some(serde_json::from_slice::<Value>(response.expose()).unwrap()["data"].clone())
}

#[tokio::test]
async fn secrets_of_a_snapshot_are_read_without_a_server() {
    let (server, consensus) = leader(status(&[1])).await;
    server.post("sys/mounts/old", ROOT, json!({ "type": "kv" })).await.is(204);
    server.post("old/app/db", ROOT, json!({ "password": "v1" })).await.is(204);
    for number in [1, 2] {
        server.post("secret/data/app/db", ROOT, json!({ "data": { "n": number } })).await.ok();
    }
    let path = stored(&server, &current(&server, &consensus).await);
    let contents = unsealed(&server, &path).await;
    let mount = |path: &str, version: Option<&str>| ContainedMount {
        path: path.to_owned(),
        engine: "kv".to_owned(),
        version: version.map(ToOwned::to_owned),
    };
    assert_eq!(contents.mount("secret/app/db"), Some(mount("secret", Some("2"))));
    assert_eq!(contents.mount("old").unwrap().path, "old");
    assert_eq!(contents.mount("auth/token/create"), None);
    assert_eq!(read(&contents, "old/app/db", None).await.unwrap(), json!({ "password": "v1" }));
    let second = read(&contents, "secret/data/app/db", None).await.unwrap();
    assert_eq!((&second["data"], &second["metadata"]["version"]), (&json!({ "n": 2 }), &json!(2)));
    let first = read(&contents, "secret/data/app/db", Some("1")).await.unwrap();
    assert_eq!(first["data"], json!({ "n": 1 }));
    assert_eq!(read(&contents, "secret/data/app/db", Some("3")).await, None);
    assert_eq!(read(&contents, "secret/data/none", None).await, None);
}

#[tokio::test]
async fn sec_a_snapshot_discloses_nothing_without_its_shares() {
    let (server, consensus) = leader(status(&[1])).await;
    let file = current(&server, &consensus).await;
    let path = stored(&server, &file);
    let clock = || Arc::new(server.clock.clone());
    for wrong in ["AAAA", "not a share", &STANDARD.encode([7; 32])] {
        let sealed = SealedContents::open(File::open(&path).unwrap(), 1 << 30).await.unwrap();
        let shares = [SecretString::new(wrong.to_owned())];
        assert!(sealed.unseal(&shares, keepfast_engines::all(), clock()).await.is_err(), "{wrong}");
    }
    // A file that another keyring has authenticated is refused, although its records open.
    let (other, others) = leader(status(&[1])).await;
    let parts = consensus.parts.lock().clone();
    *others.parts.lock() = parts;
    let path = stored(&server, &saved(&other).await);
    let sealed = SealedContents::open(File::open(&path).unwrap(), 1 << 30).await.unwrap();
    let refused = sealed.unseal(&encoded(&server), keepfast_engines::all(), clock()).await.err().unwrap();
    assert!(refused.public().contains("has not authenticated"), "{refused}");
}

#[tokio::test]
async fn sec_only_the_engine_that_is_named_reads_a_snapshot() {
    let (server, consensus) = leader(status(&[1])).await;
    server.post("sys/mounts/transit", ROOT, json!({ "type": "transit" })).await.is(204);
    server.post("transit/keys/k", ROOT, json!({})).await.ok();
    let path = stored(&server, &current(&server, &consensus).await);
    let contents = unsealed(&server, &path).await;
    for path in ["transit/keys/k", "sys/mounts", "auth/token/lookup-self", "none/x"] {
        let refused = contents.read("kv", path, Query::default()).await.err().unwrap();
        assert!(refused.public().contains("no mount of type kv"), "{path}: {refused}");
    }
}
