//! Revocation by a path prefix and of a mount: what is revoked, when, and what an error stops.

use async_trait::async_trait;
use keepfast_storage::{Batch, Index, Key, Watch};

use super::*;

/// Storage whose reads of one key fail.
#[derive(Default)]
struct FailingReads {
    memory: MemoryBackend,
    key: Mutex<Option<String>>,
}

#[async_trait]
impl Backend for FailingReads {
    async fn get(&self, key: &Key) -> std::result::Result<Option<Bytes>, StorageError> {
        let fails = self.key.lock().as_deref() == Some(key.as_str());
        if fails {
            return Err(StorageError::Stopped("as the test wants it".into()));
        }
        self.memory.get(key).await
    }

    async fn list(&self, prefix: &Key, page: &Page) -> std::result::Result<Vec<String>, StorageError> {
        self.memory.list(prefix, page).await
    }

    async fn commit(&self, batch: Batch) -> std::result::Result<Index, StorageError> {
        self.memory.commit(batch).await
    }

    fn watch(&self, watcher: std::sync::Weak<dyn Watch>) {
        self.memory.watch(watcher);
    }
}

async fn damage(fixture: &LeaseFixture, id: &LeaseId) {
    let mut tx = fixture.unsealed.barrier.begin();
    let view = fixture.unsealed.barrier.view("token/");
    tx.put(&view, &format!("secret/{}", id.as_str()), Bytes::from_static(b"{\"path\":7"));
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_prefix_revokes_the_tokens_that_its_paths_issued() {
    let fixture = LeaseFixture::new().await;
    let inside = fixture.token(None, reader(false, HOUR)).await;
    let mut tx = fixture.unsealed.barrier.begin();
    let elsewhere = Spec { path: "auth/other/login".into(), ..reader(false, HOUR) };
    let outside = fixture
        .unsealed
        .access
        .tokens
        .create(&mut tx, &crate::namespace::NamespaceId::root(), elsewhere, fixture.clock.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    fixture.unsealed.leases.revoker.revoke_prefix("auth/token/", RevokeMode::Now).await.unwrap();
    assert_eq!(fixture.send(&inside.id, "a/creds").await.0, 403);
    assert_eq!(fixture.send(&outside.id, "a/creds").await.0, 200);
}

#[tokio::test]
async fn a_queued_prefix_leaves_the_engines_to_the_worker() {
    let fixture = LeaseFixture::new().await;
    fixture.user(&fixture.root, "a").await;
    fixture.unsealed.leases.revoker.revoke_prefix("a", RevokeMode::Queued).await.unwrap();
    assert_eq!((fixture.users(), fixture.external.revocations.load(Ordering::Relaxed)), (1, 0));
    fixture.pass(Duration::ZERO).await;
    assert_eq!(fixture.users(), 0);
}

#[tokio::test]
async fn the_error_of_a_prefix_says_which_of_how_many_leases_failed() {
    let fixture = LeaseFixture::new().await;
    for _ in 0..2 {
        fixture.user(&fixture.root, "a").await;
    }
    fixture.external.down.store(true, Ordering::Relaxed);
    let refused = fixture.unsealed.leases.revoker.revoke_prefix("a/creds", RevokeMode::Now).await.unwrap_err();
    assert!(refused.public().contains(" (1 / 2): failed to revoke entry: connection refused"), "{}", refused.public());
}

#[tokio::test]
async fn a_prefix_passes_over_an_unreadable_lease() {
    let fixture = LeaseFixture::new().await;
    let (_, broken, _) = fixture.user(&fixture.root, "a").await;
    fixture.user(&fixture.root, "a").await;
    damage(&fixture, &broken).await;
    fixture.unsealed.leases.revoker.revoke_prefix("a", RevokeMode::Now).await.unwrap();
    assert_eq!(fixture.users(), 1, "that of the other lease is gone");
}

#[tokio::test]
async fn an_unmount_stops_at_an_unreadable_lease_and_when_storage_fails() {
    let backend = Arc::new(FailingReads::default());
    let mut fixture = LeaseFixture::on(backend.clone(), "here").await;
    let mounted =
        |fixture: &LeaseFixture, path: &str| fixture.unsealed.engines.mounts.router().at(path).unwrap().clone();
    let (_, broken, _) = fixture.user(&fixture.root, "a").await;
    damage(&fixture, &broken).await;
    let refused = fixture.unsealed.leases.revoker.revoke_mount(&mounted(&fixture, "a/")).await.unwrap_err();
    assert_eq!(refused.public(), format!("the record of the lease {:?} cannot be read", broken.as_str()));
    let (_, other, _) = fixture.user(&fixture.root, "b").await;
    // A new barrier has no cached records.
    fixture.restart("here").await;
    *backend.key.lock() = Some(format!("token/secret/{}", other.as_str()));
    let failed = fixture.unsealed.leases.revoker.revoke_mount(&mounted(&fixture, "b/")).await;
    assert!(failed.is_err_and(|error| crate::unreadable::storage_fails(&error)));
}

#[tokio::test]
async fn a_folder_that_looks_like_a_lease_id_is_a_prefix() {
    let fixture = LeaseFixture::new().await;
    let mut tx = fixture.unsealed.barrier.begin();
    let path = "auth/x/000000aBcDeFgHiJkLmNoP12";
    let spec = Spec { path: path.into(), ..reader(false, HOUR) };
    let made = fixture
        .unsealed
        .access
        .tokens
        .create(&mut tx, &crate::namespace::NamespaceId::root(), spec, fixture.clock.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    fixture.unsealed.leases.revoker.revoke_prefix(path, RevokeMode::Now).await.unwrap();
    assert_eq!(fixture.send(&made.id, "a/creds").await.0, 403);
}

#[tokio::test]
async fn a_queue_and_a_tidy_fail_when_storage_fails() {
    let backend = Arc::new(FailingReads::default());
    let mut fixture = LeaseFixture::on(backend.clone(), "here").await;
    let (_, id, _) = fixture.user(&fixture.root, "a").await;
    fixture.restart("here").await;
    *backend.key.lock() = Some(format!("token/secret/{}", id.as_str()));
    let fails = |result: Result<()>| result.is_err_and(|error| crate::unreadable::storage_fails(&error));
    let leases = &fixture.unsealed.leases;
    assert!(fails(leases.revoker.revoker.queue(std::slice::from_ref(&id)).await));
    assert!(fails(leases.tidier.tidy(fixture.clock.now()).await.map(drop)));
    fixture.clock.advance(HOUR * 2);
    let mount = fixture.unsealed.engines.mounts.router().at("a/").unwrap().entry.uuid.clone();
    assert!(fails(leases.expiry.revoke_expired_of(&mount, fixture.clock.now()).await));
    *backend.key.lock() = None;
    assert!(leases.store.irrevocable_mounts().await.unwrap().is_empty(), "it is not set aside");
}
