//! Snapshots.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_storage::{MAX_SNAPSHOT_PART, SnapshotParts, StorageError};

use super::{TestNode, origin, soon};

/// Parts of growing length, and an error in place of the one with this number.
struct Parts {
    next: usize,
    count: usize,
    fails_at: Option<usize>,
}

fn part(number: usize) -> Bytes {
    vec![number as u8; 1 + number * 7919 % MAX_SNAPSHOT_PART].into()
}

#[async_trait]
impl SnapshotParts for Parts {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let number = self.next;
        self.next += 1;
        if self.fails_at == Some(number) {
            return Err(StorageError::Stopped("source".into()));
        }
        Ok((number < self.count).then(|| part(number)))
    }
}

async fn send(a: &TestNode, b: &TestNode, count: usize, fails_at: Option<usize>) -> Result<(), StorageError> {
    let parts = Box::new(Parts { next: 0, count, fails_at });
    soon(a.transport.send_snapshot(&b.member, Bytes::from_static(b"head"), parts)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_many_parts_arrives() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    send(&a, &b, 300, None).await.unwrap();
    send(&a, &b, 0, None).await.unwrap();
    let snapshots = b.service.storage.snapshots.lock();
    let [(from, head, parts), (_, _, none)] = &snapshots[..] else { panic!("{}", snapshots.len()) };
    assert_eq!((from, &head[..]), (&origin("a"), &b"head"[..]));
    assert!(parts.len() == 300 && parts.iter().enumerate().all(|(number, received)| *received == part(number)));
    assert!(none.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_snapshot_is_an_error_for_its_sender() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    *b.service.storage.refuses_after.lock() = Some(3);
    for count in [3, 2000] {
        assert!(matches!(send(&a, &b, count, None).await, Err(StorageError::Full)));
    }
    *b.service.storage.refuses_after.lock() = None;
    send(&a, &b, 3, None).await.unwrap();
    assert_eq!(b.service.storage.snapshots.lock().len(), 1);
}

#[tokio::test]
async fn an_incomplete_snapshot_is_an_error_at_both_ends() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let failed = send(&a, &b, 9, Some(5)).await;
    assert!(matches!(failed, Err(StorageError::Stopped(_))), "{failed:?}");
    let storage = b.service.storage.clone();
    let noticed = async {
        while storage.snapshot_errors.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon(noticed).await;
    assert!(b.service.storage.snapshots.lock().is_empty());
}

#[tokio::test]
async fn a_snapshot_counts_as_stored_when_its_last_part_was_read() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    *b.service.storage.stores_after.lock() = Some(3);
    assert!(send(&a, &b, 3, None).await.is_err());
}

#[tokio::test]
async fn a_part_beyond_its_bound_is_not_sent() {
    struct Long;
    #[async_trait]
    impl SnapshotParts for Long {
        async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
            Ok(Some(vec![0; MAX_SNAPSHOT_PART + 1].into()))
        }
    }
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let transport = Arc::clone(&a.transport);
    let sent = soon(transport.send_snapshot(&b.member, Bytes::new(), Box::new(Long))).await;
    assert!(matches!(sent, Err(StorageError::TooLarge { .. })));
}
