//! Intents of failed requests while storage fails.

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_storage::{Batch, Index, Key, Page, Watch};

use super::*;

/// Storage that is full if so set.
#[derive(Default)]
struct Limited {
    memory: MemoryBackend,
    is_full: AtomicBool,
}

#[async_trait]
impl Backend for Limited {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        self.memory.get(key).await
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.memory.list(prefix, page).await
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        if self.is_full.load(Ordering::Relaxed) { Err(StorageError::Full) } else { self.memory.commit(batch).await }
    }

    fn watch(&self, watcher: std::sync::Weak<dyn Watch>) {
        self.memory.watch(watcher);
    }
}

/// A server with two users of failed requests.
async fn fixture() -> (LeaseFixture, Arc<Limited>) {
    let backend = Arc::new(Limited::default());
    let fixture = LeaseFixture::on(backend.clone(), "here").await;
    fixture.external.fails_after.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(fixture.send(&fixture.root, "a/creds").await.0, 400);
    }
    assert_eq!(fixture.users(), 2);
    (fixture, backend)
}

#[tokio::test]
async fn an_abandoned_intent_survives_a_failed_commit() {
    let (fixture, backend) = fixture().await;
    backend.is_full.store(true, Ordering::Relaxed);
    assert!(fixture.unsealed.leases.expiry.queue_abandoned().await.is_err(), "the failure is reported");
    backend.is_full.store(false, Ordering::Relaxed);
    fixture.pass(Duration::ZERO).await;
    assert_eq!(fixture.users(), 0, "the next call revokes both");
}

#[tokio::test]
async fn an_abandoned_intent_survives_a_failed_read() {
    let (fixture, _) = fixture().await;
    fixture.unsealed.barrier.close();
    assert!(fixture.unsealed.leases.expiry.queue_abandoned().await.is_err(), "the failure is reported");
    assert_eq!(fixture.unsealed.leases.store.abandoned.lock().len(), 2);
}

#[tokio::test]
async fn a_confirmed_lease_outlives_its_abandoned_intent() {
    let fixture = LeaseFixture::new().await;
    let (_, id, _) = fixture.user(&fixture.root, "a").await;
    fixture.unsealed.leases.store.abandoned.lock().push(id);
    fixture.pass(Duration::ZERO).await;
    assert_eq!(fixture.users(), 1);
}

#[tokio::test]
async fn an_unreadable_intent_does_not_keep_others_from_their_revocation() {
    let (fixture, _) = fixture().await;
    let last = fixture.unsealed.leases.store.abandoned.lock().last().unwrap().as_str().to_owned();
    let mut tx = fixture.unsealed.barrier.begin();
    tx.put(&fixture.unsealed.barrier.view("token/"), &format!("secret/{last}"), Bytes::from_static(b"{\"path\":7"));
    tx.commit().await.unwrap();
    fixture.unsealed.leases.expiry.queue_abandoned().await.unwrap();
    fixture.pass(Duration::ZERO).await;
    assert_eq!(fixture.users(), 1, "only the damaged one waits for an operator");
}
