//! What must not come back with the records of a snapshot, and the rotation that a removal needs.

use std::time::Duration;

use bytes::Bytes;
use keepfast_storage::{Backend as _, Batch, MemoryBackend, RestoreMark};
use serde_json::json;

use crate::cluster::fake::FakeConsensus;
use crate::cluster::members::removed_directories;
use crate::tests::fixture::{ROOT, RequestOptions, TestServer, incoming};
use crate::tests::raft::{RAFT, leader, three, upload};

/// A snapshot file, and the records that it is of.
async fn saved(server: &TestServer) -> (Bytes, MemoryBackend) {
    let send = RequestOptions { token: Some(ROOT.to_owned()), ..RequestOptions::default() };
    let response = server.node.handle(incoming("GET", &format!("{RAFT}/snapshot"), send)).await;
    let records = MemoryBackend::new();
    records.replace_with(server.backend.memory());
    (response.into_body(), records)
}

/// Restores a snapshot, and waits until the node has opened its services again.
async fn restore(server: &TestServer, consensus: &FakeConsensus, path: &str, (file, records): (&Bytes, MemoryBackend)) {
    let backend = server.backend.clone();
    *consensus.on_restore.lock() = Some(Box::new(move |mark| {
        let put = Batch::put(RestoreMark::key().unwrap(), mark);
        futures_util::FutureExt::now_or_never(records.commit(put)).unwrap().unwrap();
        backend.memory().replace_with(&records);
    }));
    assert_eq!(upload(server, &format!("{RAFT}/{path}"), file).await.0, 204);
    let lifecycle = &server.node.lifecycle;
    let opened = async {
        while lifecycle.is_sealed() || RestoreMark::load(&*server.backend).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), opened).await.unwrap();
}

async fn remove(server: &TestServer, node: &str) {
    server.post(&format!("{RAFT}/remove-peer"), ROOT, json!({ "server_id": node })).await.is(204);
}

fn term(server: &TestServer) -> u32 {
    server.unsealed().barrier.key_status().unwrap().term
}

#[tokio::test]
async fn sec_a_restore_revives_neither_keys_nor_removed_members() {
    for path in ["snapshot", "snapshot-force"] {
        let (server, consensus) = leader(three()).await;
        let (file, records) = saved(&server).await;
        remove(&server, "n3").await;
        let before = server.unsealed().barrier.derive(2, "test").unwrap();
        assert_eq!(term(&server), 2);
        restore(&server, &consensus, path, (&file, records)).await;
        assert_eq!(term(&server), 3, "{path}: after every term of before");
        assert_ne!(server.unsealed().barrier.derive(2, "test").unwrap().expose(), before.expose());
        let removed = removed_directories(&server.unsealed().barrier).await.unwrap();
        assert!(removed.contain([3; 16]), "{path}");
        // Once: another takeover rotates nothing.
        server.node.lifecycle.parts.take_over(&server.unsealed().barrier).await.unwrap();
        assert_eq!(term(&server), 3);
    }
}

#[tokio::test]
async fn sec_a_restore_by_force_starts_the_quarantine_on_a_cluster() {
    for (path, expected) in [("snapshot", false), ("snapshot-force", true)] {
        let (server, consensus) = leader(three()).await;
        let (file, records) = saved(&server).await;
        restore(&server, &consensus, path, (&file, records)).await;
        assert_eq!(server.unsealed().leases.store.is_quarantined(), expected, "{path}");
        let stored = server.get("sys/leases/quarantine", ROOT).await.ok();
        assert_eq!(stored.body.to_string().contains("a snapshot was restored by force"), expected, "{stored:?}");
    }
}

/// A standby reads no mark of its own: the next leader starts the quarantine. Until then it revokes nothing either.
#[tokio::test]
async fn sec_a_node_holds_leases_until_the_leader_has_completed_a_restore() {
    let (server, _) = leader(three()).await;
    let mark = crate::cluster::restored::mark(&server.unsealed().barrier, true).await.unwrap();
    server.node.shutdown().await;
    server.backend.memory().commit(Batch::put(RestoreMark::key().unwrap(), mark)).await.unwrap();
    server.node.lifecycle.unseal_as_standby(&server.shares).await.unwrap();
    assert!(server.unsealed().leases.store.is_quarantined());
    server.node.shutdown().await;
    // A mark that cannot be read counts as that of a restore by force.
    server.backend.memory().commit(Batch::put(RestoreMark::key().unwrap(), Bytes::from_static(b"?"))).await.unwrap();
    assert!(server.node.lifecycle.unseal(&server.shares).await.unwrap());
    assert!(server.unsealed().leases.store.is_quarantined() && term(&server) == 2);
}

#[tokio::test]
async fn sec_the_next_leader_rotates_the_keyring_after_a_leader_removed_itself() {
    let (server, consensus) = leader(three()).await;
    remove(&server, "n1").await;
    assert_eq!((term(&server), consensus.status.lock().members.len()), (1, 2), "it cannot write any more");
    let (parts, unsealed) = (&server.node.lifecycle.parts, server.unsealed());
    for _ in 0..2 {
        parts.take_over(&unsealed.barrier).await.unwrap();
        assert_eq!(term(&server), 2);
    }
    remove(&server, "n2").await;
    parts.take_over(&unsealed.barrier).await.unwrap();
    assert_eq!(term(&server), 3, "that of another member is followed at once");
}
