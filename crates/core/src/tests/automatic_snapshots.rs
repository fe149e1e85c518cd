//! Automatic snapshots of the leader, and `sys/storage/raft/snapshot-auto/`.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keepfast_framework::Timestamp;
use serde_json::{Value, json};

use crate::cluster::fake::{FakeConsensus, parts_of, status};
use crate::cluster::snapshots::VerifiedSnapshot;
use crate::cluster::snapshots::directory::SnapshotDirectory;
use crate::cluster::snapshots::scheduled::advance;
use crate::settings::SnapshotSettings;
use crate::tests::fixture::{ROOT, RequestOptions, TestServer, incoming};
use crate::tests::gate::Gated;
use crate::tests::raft::{RAFT, leader, upload};

/// A leader, and the settings of its automatic snapshots, which the test takes itself.
async fn manual() -> (TestServer, Arc<FakeConsensus>, SnapshotSettings) {
    let (server, consensus) = leader(status(&[1])).await;
    *consensus.parts.lock() = parts_of(&server.backend.memory().records());
    let directory = server.dir.path().join("snapshots");
    (server, consensus, SnapshotSettings { directory, interval: Duration::from_secs(600), retain: 2 })
}

fn files(settings: &SnapshotSettings) -> Vec<PathBuf> {
    let entries = fs::read_dir(&settings.directory).map(|found| found.map(|entry| entry.unwrap().path()).collect());
    let mut files: Vec<_> = entries.unwrap_or_default();
    files.sort();
    files
}

#[tokio::test]
async fn a_snapshot_is_saved_at_each_interval_and_the_oldest_are_deleted() {
    let (server, _, settings) = manual().await;
    let lifecycle = &server.node.lifecycle;
    let mut saved = Vec::new();
    for _ in 0..3 {
        let due = advance(&**lifecycle, &settings).await;
        assert_eq!(due.since(lifecycle.parts.clock.now()).as_secs(), 600);
        saved.push(files(&settings).last().unwrap().clone());
        // A leader that begins in the meantime finds the newest file.
        server.pass(599).await;
        advance(&**lifecycle, &settings).await;
        assert_eq!(files(&settings).last(), saved.last(), "not due");
        server.pass(1).await;
    }
    assert_eq!(files(&settings), saved[1..]);
    let verified = VerifiedSnapshot::read(fs::File::open(&saved[2]).unwrap(), 1 << 30).unwrap();
    let key = server.unsealed().barrier.derive(1, crate::cluster::snapshots::SNAPSHOTS).unwrap();
    assert!(verified.is_sealed_by(&key));
    let file = Bytes::from(fs::read(&saved[2]).unwrap());
    assert_eq!(upload(&server, &format!("{RAFT}/snapshot"), &file).await.0, 204, "it can be restored");
    assert_eq!(lifecycle.parts.metrics.snapshots.saved.count(), 3);
}

#[tokio::test]
async fn sec_a_snapshot_with_a_record_that_no_key_opens_is_not_kept() {
    let (server, consensus, settings) = manual().await;
    let lifecycle = &server.node.lifecycle;
    let records = server.backend.memory().records();
    let mut damaged = records.clone();
    let (_, value) = damaged.iter_mut().rev().find(|(key, _)| !key.as_str().starts_with("barrier/")).unwrap();
    let mut bytes = value.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    *value = bytes.into();
    let whole = parts_of(&records);
    for (parts, expected) in
        [(parts_of(&damaged), "does not authenticate"), (whole[..whole.len() - 1].to_vec(), "damaged or incomplete")]
    {
        *consensus.parts.lock() = parts;
        advance(&**lifecycle, &settings).await;
        assert_eq!(files(&settings), Vec::<PathBuf>::new(), "nothing incomplete stays");
        let attempts = lifecycle.administration.automatic_snapshots.attempts();
        assert!(attempts.error.contains(expected), "{}", attempts.error);
        server.pass(3600).await;
    }
    assert_eq!(lifecycle.parts.metrics.snapshots.save_failed.read(), 2);
    *consensus.parts.lock() = whole;
    advance(&**lifecycle, &settings).await;
    assert_eq!(files(&settings).len(), 1);
    let attempts = lifecycle.administration.automatic_snapshots.attempts();
    assert_eq!((attempts.failures, attempts.error.as_str()), (0, ""));
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_a_failure_that_is_repeated() {
    let (server, _, settings) = manual().await;
    let lifecycle = &server.node.lifecycle;
    fs::write(&settings.directory, "a file").unwrap();
    let due = advance(&**lifecycle, &settings).await;
    assert_eq!(due.since(lifecycle.parts.clock.now()).as_secs(), 60);
    let attempts = lifecycle.administration.automatic_snapshots.attempts();
    assert!(attempts.failures == 1 && attempts.error.contains("cannot be used"), "{attempts:?}");
    fs::remove_file(&settings.directory).unwrap();
    server.pass(60).await;
    advance(&**lifecycle, &settings).await;
    assert_eq!(files(&settings).len(), 1);
}

/// A leader whose configuration has automatic snapshots. Its first attempt has failed, because its parts are none.
async fn configured() -> (TestServer, Arc<FakeConsensus>) {
    let consensus = FakeConsensus::new(status(&[1]));
    let change = |settings: &mut crate::Settings, dir: &std::path::Path| {
        let directory = dir.join("snapshots");
        settings.snapshots = Some(SnapshotSettings { directory, interval: Duration::from_secs(600), retain: 2 });
    };
    let server = TestServer::on(Gated::in_cluster(consensus.clone()), change, keepfast_engines::all()).await;
    let failed = async {
        while server.node.lifecycle.administration.automatic_snapshots.attempts().failures == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), failed).await.unwrap();
    (server, consensus)
}

#[tokio::test]
async fn an_automatic_snapshot_is_restored_by_its_name() {
    let (server, consensus) = configured().await;
    let parts = parts_of(&server.backend.memory().records());
    *consensus.parts.lock() = parts.clone();
    let send = || RequestOptions { token: Some(ROOT.to_owned()), ..RequestOptions::default() };
    let file = server.node.handle(incoming("GET", &format!("{RAFT}/snapshot"), send())).await.into_body();
    let directory = SnapshotDirectory::new(&server.dir.path().join("snapshots"));
    let (incomplete, mut out) = directory.begin(Timestamp::from_unix(5)).unwrap();
    out.write_all(&file).unwrap();
    let stored = incomplete.complete(file.len() as u64).unwrap();
    let name = stored.path.file_name().unwrap().to_str().unwrap();
    let restore = async |path: &str, name: &str, body: Value| {
        server.post(&format!("{RAFT}/snapshot-auto/{path}/{name}"), ROOT, body).await
    };
    restore("restore", "keepfast-snapshot-6.snap", json!({})).await.is(400);
    restore("restore", "snapshots%2fkeepfast-snapshot-5000000000.snap", json!({})).await.is(404);
    let compared = restore("restore", name, json!({ "dry_run": true })).await.ok();
    assert_eq!((&compared.data()["deleted"], &compared.data()["authenticated"]), (&json!(0), &json!(true)));
    assert!(consensus.restored.lock().is_empty());
    for path in ["restore", "restore-force"] {
        consensus.restored.lock().clear();
        restore(path, name, json!({})).await.is(204);
        assert_eq!(*consensus.restored.lock(), parts, "{path}");
    }
}

#[tokio::test]
async fn the_status_of_the_automatic_snapshots_has_the_names_of_vault() {
    let (server, _) = configured().await;
    let at = format!("{RAFT}/snapshot-auto");
    assert_eq!(server.list(&format!("{at}/config"), ROOT).await.ok().data()["keys"], json!(["default"]));
    let config = server.get(&format!("{at}/config/default"), ROOT).await.ok();
    let directory = server.dir.path().join("snapshots").display().to_string();
    let expected = json!({
        "interval": 600, "retain": 2, "path_prefix": directory, "file_prefix": "keepfast-snapshot", "storage_type": "local"
    });
    assert_eq!(config.data(), &expected);
    let status = server.get(&format!("{at}/status/default"), ROOT).await.ok();
    assert_eq!(status.data()["consecutive_errors"], 1);
    assert!(status.data()["last_snapshot_error"].as_str().unwrap().contains("damaged"), "{status:?}");
    assert_eq!(status.data()["available_snapshots"], json!([]));
    assert!(status.data()["next_snapshot_start"].is_string());
    server.get(&format!("{at}/status/other"), ROOT).await.is(404);
    server.get(&format!("{at}/config/other"), ROOT).await.is(404);
}

#[tokio::test]
async fn sec_the_api_names_no_directory_of_snapshots() {
    let (server, _) = configured().await;
    for method in ["POST", "DELETE"] {
        let body = json!({ "storage_type": "local", "path_prefix": "/tmp", "interval": "1h" });
        let path = format!("{RAFT}/snapshot-auto/config/default");
        assert_eq!(server.call(method, &path, ROOT, body).await.status, 405, "{method}");
    }
    server.policy("reader", "path \"sys/storage/raft/*\" { capabilities = [\"read\", \"list\"] }").await;
    let token = server.token(json!({ "policies": ["reader"] })).await;
    server.get(&format!("{RAFT}/snapshot-auto/config/default"), &token).await.is(403);
    server.get(&format!("{RAFT}/snapshot-auto/status/default"), &token).await.ok();
}

#[tokio::test]
async fn a_leader_without_the_stanza_has_no_automatic_snapshots() {
    let (server, _) = leader(status(&[1])).await;
    server.get(&format!("{RAFT}/snapshot-auto/status/default"), ROOT).await.is(404);
    server.list(&format!("{RAFT}/snapshot-auto/config"), ROOT).await.is(404);
    let get = RequestOptions { token: Some(ROOT.to_owned()), ..RequestOptions::default() };
    let metrics = server.node.handle(incoming("GET", "sys/metrics", get)).await.into_body();
    let metrics: Value = serde_json::from_slice(&metrics).unwrap();
    assert!(!metrics.to_string().contains("autosnapshots.last.success.time"));
}
