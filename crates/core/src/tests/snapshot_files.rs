//! Snapshots on request that are in files.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use keepfast_framework::file_body::FileBodyWriter;
use keepfast_framework::{Body, FileBody};
use serde_json::json;

use crate::cluster::fake::{FakeConsensus, status};
use crate::settings::SnapshotFiles;
use crate::tests::fixture::{ROOT, RequestOptions, TestServer, incoming};
use crate::tests::gate::Gated;
use crate::tests::raft::RAFT;

/// A leader whose snapshots are in files of at most this length.
async fn server(longest: u64) -> (TestServer, Arc<FakeConsensus>) {
    let consensus = FakeConsensus::new(status(&[1]));
    let files = |settings: &mut crate::Settings, directory: &Path| {
        settings.snapshot_files = Some(SnapshotFiles { directory: directory.to_owned(), longest });
    };
    let server = TestServer::on(Gated::in_cluster(consensus.clone()), files, keepfast_engines::all()).await;
    (server, consensus)
}

fn options(token: &str) -> RequestOptions {
    RequestOptions { token: Some(token.to_owned()), ..RequestOptions::default() }
}

fn in_file(server: &TestServer, content: &[u8]) -> FileBody {
    let directory = server.settings.snapshot_files.clone().unwrap().directory;
    let mut writer = FileBodyWriter::new(&directory, u64::MAX).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

async fn restore(server: &TestServer, file: FileBody) -> (u16, String) {
    let mut request = incoming("POST", &format!("{RAFT}/snapshot"), options(ROOT));
    request.input.body = Body::of_file(file);
    let response = server.node.handle(request).await;
    (response.status().0, String::from_utf8_lossy(&response.into_body()).into_owned())
}

#[tokio::test]
async fn a_snapshot_is_saved_to_a_file_and_restored_from_one() {
    let (server, consensus) = server(1 << 20).await;
    *consensus.parts.lock() = vec![Bytes::from(vec![1; 1000]), Bytes::from_static(b"last")];
    let saved = server.node.handle(incoming("GET", &format!("{RAFT}/snapshot"), options(ROOT))).await;
    assert_eq!((saved.status().0, &**saved.content_type()), (200, "application/gzip"));
    let file = saved.file().cloned().unwrap();
    assert!(saved.into_body().is_empty());
    let mut damaged = file.read_at(0, 1 << 20).unwrap().to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let refused = restore(&server, in_file(&server, &damaged)).await;
    assert!(refused.0 == 400 && consensus.restored.lock().is_empty(), "verified before anything is replaced");
    assert_eq!(restore(&server, file).await, (204, String::new()));
    assert_eq!(*consensus.restored.lock(), *consensus.parts.lock());
}

#[tokio::test]
async fn a_snapshot_above_max_snapshot_size_is_not_saved() {
    let (server, consensus) = server(2000).await;
    // Nothing shrinks it.
    let random = keepfast_crypto::random::bytes::<32>();
    let block = |number: u32| keepfast_crypto::hash::sha256(&[&random[..], &number.to_le_bytes()].concat());
    *consensus.parts.lock() = vec![(0..500).flat_map(block).collect::<Vec<u8>>().into()];
    let refused = server.get(&format!("{RAFT}/snapshot"), ROOT).await.is(400);
    assert_eq!(refused.error(), "the snapshot is larger than 2000 bytes (max_snapshot_size)");
}

#[tokio::test]
async fn sec_only_one_permitted_body_at_a_time_is_in_a_file() {
    let (server, _) = server(2000).await;
    let path = format!("{RAFT}/snapshot");
    let place = async |token: &str| {
        let head = incoming("POST", &path, options(token));
        server.node.preliminaries().upload(&head, false).await.map(|place| place.map(|place| place.turn))
    };
    let held = place(ROOT).await.unwrap();
    assert!(held.is_some());
    assert_eq!(place(ROOT).await.map(|_| ()).unwrap_err().status().0, 503, "one at a time");
    drop(held);
    let other = server.token(json!({ "policies": ["default"] })).await;
    assert!(place(&other).await.unwrap().is_none() && place("unknown").await.unwrap().is_none());
    let policy = json!({ "policy": format!("path \"{path}\" {{ capabilities = [\"update\"] }}") });
    server.post("sys/policies/acl/restorers", ROOT, policy).await.is(204);
    let allowed = server.token(json!({ "policies": ["restorers"] })).await;
    assert!(place(&allowed).await.unwrap().is_some());
    assert!(place(ROOT).await.unwrap().is_some(), "the guard ends with its request");
}
