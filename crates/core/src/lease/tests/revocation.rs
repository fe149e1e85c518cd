//! What a revocation does under quarantine, without a mount, by force, and when it fails.

use super::*;
use crate::lease::record::LeaseRecord;

async fn record(fixture: &LeaseFixture, path: &str, id: &LeaseId) -> Option<LeaseRecord> {
    fixture.unsealed.leases.store.at(&crate::namespace::NamespaceId::root(), path, id).await.unwrap()
}

#[tokio::test]
async fn under_quarantine_only_a_forced_revocation_deletes_a_lease() {
    let mut fixture = LeaseFixture::new().await;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    fixture.restart("elsewhere").await;
    let revoker = &fixture.unsealed.leases.revoker;
    let refused = revoker.revoke_lease(&path, &id, RevokeMode::Now).await.unwrap_err();
    assert_eq!((refused.status().0, refused.public().contains("quarantine")), (503, true));
    let kept = record(&fixture, &path, &id).await.unwrap();
    assert_eq!(kept.state, State::Ending { attempts: 0 }, "no failed attempt is stored");
    assert_eq!(fixture.external.revocations.load(Ordering::Relaxed), 0);
    revoker.revoke_lease(&path, &id, RevokeMode::Queued).await.unwrap();
    assert_eq!(fixture.users(), 1);
    revoker.revoke_lease(&path, &id, RevokeMode::Forced).await.unwrap();
    assert!(record(&fixture, &path, &id).await.is_none());
    assert_eq!(fixture.users(), 0, "the engine is asked first");
}

#[tokio::test]
async fn a_lease_without_a_mount_is_deleted_by_force_only() {
    let fixture = LeaseFixture::new().await;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    let revoker = &fixture.unsealed.leases.revoker.revoker;
    let refused = revoker.revoke(None, &id, RevokeMode::Now).await.unwrap_err();
    assert_eq!(refused.public(), "failed to revoke entry: its engine is not mounted");
    assert_eq!(record(&fixture, &path, &id).await.unwrap().state, State::Ending { attempts: 1 });
    revoker.revoke(None, &id, RevokeMode::Forced).await.unwrap();
    assert!(record(&fixture, &path, &id).await.is_none());
    assert_eq!(fixture.users(), 1, "nobody could ask the engine");
    revoker.revoke(None, &id, RevokeMode::Now).await.unwrap();
}

#[tokio::test]
async fn a_failed_revocation_is_repeated_after_growing_pauses() {
    let fixture = LeaseFixture::new().await;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    fixture.external.down.store(true, Ordering::Relaxed);
    let revoker = &fixture.unsealed.leases.revoker;
    for (attempts, pause) in [(1, 10), (2, 20), (3, 40)] {
        let failed =
            revoker.revoker.revoke(fixture.unsealed.engines.mounts.router().at("a/"), &id, RevokeMode::Now).await;
        assert!(failed.is_err());
        let stored = record(&fixture, &path, &id).await.unwrap();
        assert_eq!(stored.state, State::Ending { attempts });
        assert_eq!(stored.due, fixture.clock.now().after(Duration::from_secs(pause)), "{attempts}");
    }
}

#[tokio::test]
async fn an_unconfirmed_lease_is_revoked_twice_with_half_a_minute_between() {
    let fixture = LeaseFixture::new().await;
    fixture.external.fails_after.store(true, Ordering::Relaxed);
    assert_eq!(fixture.send(&fixture.root, "a/creds").await.0, 400);
    fixture.pass(Duration::ZERO).await;
    assert_eq!(fixture.external.revocations.load(Ordering::Relaxed), 1);
    let name =
        fixture.stored().await.into_iter().find_map(|key| key.strip_prefix("secret/").map(str::to_owned)).unwrap();
    let stored = record(&fixture, "a/creds", &LeaseId::parse(&name).unwrap()).await.unwrap();
    assert_eq!((stored.state, stored.unconfirmed), (State::Ending { attempts: 0 }, false));
    assert_eq!(stored.due, fixture.clock.now().after(Duration::from_secs(30)));
    fixture.pass(Duration::from_secs(29)).await;
    assert_eq!(fixture.external.revocations.load(Ordering::Relaxed), 1);
    fixture.pass(Duration::from_secs(3)).await;
    assert_eq!(fixture.external.revocations.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_queued_revocation_ends_the_lease_at_once_and_wakes_the_worker() {
    let fixture = LeaseFixture::new().await;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    let before = record(&fixture, &path, &id).await.unwrap();
    fixture.unsealed.leases.revoker.revoker.queue(std::slice::from_ref(&id)).await.unwrap();
    let queued = record(&fixture, &path, &id).await.unwrap();
    let now = fixture.clock.now();
    assert_eq!((queued.state, queued.end, before.end), (State::Ending { attempts: 0 }, now, now.after(HOUR)));
    assert!(queued.due < now);
    let woken = fixture.unsealed.leases.store.wake.notified();
    assert!(futures_util::poll!(std::pin::pin!(woken)).is_ready());
}

#[tokio::test]
async fn a_renewal_needs_a_live_renewable_lease_that_has_not_expired() {
    let fixture = LeaseFixture::new().await;
    let renew = async |path: &str, id: &LeaseId| {
        let renewed = fixture.unsealed.leases.renewer.renew_lease(&RequestPermit::new(), path, id, HOUR).await;
        renewed.map(|granted| granted.ttl).map_err(|error| error.public().to_owned())
    };
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    assert_eq!(renew(&path, &id).await, Ok(HOUR));
    assert_eq!(renew("b/creds", &id).await, Err("lease not found".to_owned()));
    fixture.clock.advance(HOUR - Duration::from_nanos(1));
    assert_eq!(renew(&path, &id).await, Ok(HOUR));
    fixture.clock.advance(HOUR);
    assert_eq!(renew(&path, &id).await, Err("lease not found".to_owned()), "it has expired");
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    fixture.unsealed.leases.revoker.revoker.queue(std::slice::from_ref(&id)).await.unwrap();
    assert_eq!(renew(&path, &id).await, Err("lease not found".to_owned()), "it is to be revoked");
}

/// Whether the next commit of the test of a full disk fails.
static IS_FULL: AtomicBool = AtomicBool::new(false);

#[tokio::test]
async fn a_failing_storage_is_no_failed_attempt_of_the_engine() {
    let backend = Arc::new(crate::tests::gate::Gated::default());
    let fixture = LeaseFixture::on(backend.clone(), "here").await;
    backend.refuse(|_| IS_FULL.swap(false, Ordering::Relaxed).then_some(StorageError::Full));
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    let mounted = fixture.unsealed.engines.mounts.router().at("a/").unwrap().clone();
    IS_FULL.store(true, Ordering::Relaxed);
    assert!(fixture.unsealed.leases.revoker.revoker.revoke(Some(&mounted), &id, RevokeMode::Now).await.is_err());
    assert_eq!(record(&fixture, &path, &id).await.unwrap().state, State::Live);
}

#[tokio::test]
async fn locks_of_revoked_leases_are_dropped() {
    let fixture = LeaseFixture::new().await;
    for _ in 0..3 {
        let (path, id, _) = fixture.user(&fixture.root, "a").await;
        fixture.unsealed.leases.revoker.revoke_lease(&path, &id, RevokeMode::Now).await.unwrap();
    }
    assert_eq!(fixture.unsealed.leases.store.locked(), 0);
}

/// Whether the next commit of [`conflicting`] conflicts.
static CONFLICTS: AtomicBool = AtomicBool::new(false);

async fn conflicting() -> LeaseFixture {
    let backend = Arc::new(crate::tests::gate::Gated::default());
    let fixture = LeaseFixture::on(backend.clone(), "here").await;
    backend.refuse(|_| CONFLICTS.swap(false, Ordering::Relaxed).then_some(StorageError::Conflict));
    fixture
}

#[tokio::test]
async fn a_renewal_and_a_revocation_run_again_after_a_conflict() {
    let fixture = conflicting().await;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    CONFLICTS.store(true, Ordering::Relaxed);
    fixture.unsealed.leases.renewer.renew_lease(&RequestPermit::new(), &path, &id, HOUR * 2).await.unwrap();
    assert!(!CONFLICTS.load(Ordering::Relaxed));
    let mounted = fixture.unsealed.engines.mounts.router().at("a/").unwrap().clone();
    CONFLICTS.store(true, Ordering::Relaxed);
    fixture.unsealed.leases.revoker.revoker.revoke(Some(&mounted), &id, RevokeMode::Now).await.unwrap();
    assert_eq!((fixture.users(), fixture.external.revocations.load(Ordering::Relaxed)), (0, 2));
}
