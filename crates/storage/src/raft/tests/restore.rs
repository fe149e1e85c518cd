//! Restores that are not completed, and batches that cross one.

use std::sync::Weak;

use async_trait::async_trait;
use keepfast_crypto::random;
use parking_lot::Mutex;

use super::*;
use crate::{Barrier, Consensus, Index, LocalBackend, Page, SnapshotParts, Watch};

/// A snapshot whose parts never come.
pub(super) struct Never;

#[async_trait]
impl SnapshotParts for Never {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        std::future::pending().await
    }
}

/// Runs a restore until its beginning is applied, and drops its future.
async fn begin_and_drop(node: &LocalBackend) {
    let consensus = node.consensus().unwrap();
    let (head, _) = consensus.snapshot().unwrap();
    let began = async {
        while !node.is_restoring() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(node.commit(put("k", "w")).await, Err(StorageError::NoLeader)));
        let (head, mut parts) = consensus.snapshot().unwrap();
        let second = consensus.restore(head, &mut *parts, Bytes::new()).await;
        assert!(matches!(second, Err(StorageError::InProgress)), "{second:?}");
    };
    let mut never = Never;
    tokio::select! {
        restored = consensus.restore(head, &mut never, Bytes::new()) => panic!("{restored:?}"),
        () = began => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_caller_is_gone_is_dropped() {
    for count in [1, 2] {
        let cluster = if count == 1 { Cluster::lone() } else { Cluster::of(count).await };
        let node = &cluster.nodes[cluster.leader().await];
        begin_and_drop(&node.backend()).await;
        let index = node.commit_until(put("k", "v")).await;
        assert!(!node.backend().is_restoring());
        for node in &cluster.nodes {
            node.applies(index.0).await;
            assert_eq!(node.get("k").await.as_deref(), Some("v"));
        }
    }
}

/// As after a `RestoreBegin` whose outcome was unknown to its caller.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_drops_a_restore_that_it_does_not_run() {
    let cluster = Cluster::of(3).await;
    let leader = &cluster.nodes[cluster.leader().await];
    leader.backend().begin_restore().await.unwrap();
    let written = async {
        while leader.backend().is_restoring() {
            tokio::task::yield_now().await;
        }
        leader.commit_until(put("k", "v")).await
    };
    tokio::time::timeout(PATIENCE, written).await.unwrap();
}

/// Runs a restore before the next commit.
struct Crossing {
    node: Arc<LocalBackend>,
    restores: Mutex<Option<(crate::SnapshotHead, Vec<Bytes>)>>,
}

#[async_trait]
impl Backend for Crossing {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        self.node.get(key).await
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.node.list(prefix, page).await
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        let restore = self.restores.lock().take();
        if let Some((head, parts)) = restore {
            let consensus = self.node.consensus().unwrap();
            consensus.restore(head, &mut transport::Cut(parts), Bytes::new()).await?;
        }
        self.node.commit(batch).await
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.node.watch(watcher);
    }

    fn consensus(&self) -> Option<Arc<dyn Consensus>> {
        self.node.consensus()
    }
}

/// Nobody could decrypt its records.
#[tokio::test(flavor = "multi_thread")]
async fn sec_a_batch_that_crosses_a_restore_is_not_written() {
    let cluster = Cluster::of(2).await;
    let node = cluster.nodes[cluster.leader().await].backend();
    let backend = Arc::new(Crossing { node: node.clone(), restores: Mutex::default() });
    let root = random::key();
    Barrier::create(backend.clone(), &root, "seal".into(), 0).await.unwrap();
    let barrier = Barrier::open(backend.clone(), &root).await.unwrap();
    let (head, mut parts) = node.consensus().unwrap().snapshot().unwrap();
    let mut stored = Vec::new();
    while let Some(part) = parts.next().await.unwrap() {
        stored.push(part);
    }
    barrier.rotate(1).await.unwrap();
    let write = async |value: &str| {
        let mut tx = barrier.begin();
        tx.put(&barrier.view("t"), "k", value.to_owned().into());
        tx.commit().await
    };
    write("before").await.unwrap();
    *backend.restores.lock() = Some((head, stored));
    let crossed = write("after").await;
    assert!(matches!(crossed, Err(StorageError::Conflict)), "{crossed:?}");
    assert!(node.get(&key("t/k")).await.unwrap().is_none());
    assert!(barrier.is_replaced());
}
