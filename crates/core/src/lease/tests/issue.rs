//! The bounds, the owner and the counters of issued and renewed leases.

use super::*;
use crate::lease::count::Counts;
use crate::lease::expiry_queue::folder_of;
use keepfast_framework::throttle::Throttle;

#[tokio::test]
async fn a_lease_gets_at_most_the_max_ttl_of_its_engine() {
    let fixture = LeaseFixture::new().await;
    *fixture.external.ttl.lock() = Some(HOUR * 48);
    let (_, _, ttl) = fixture.user(&fixture.root, "a").await;
    assert_eq!(ttl, 24 * 3600);
}

#[tokio::test]
async fn a_renewal_without_an_increment_gets_the_ttl_of_the_engine() {
    let fixture = LeaseFixture::new().await;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    let renewer = &fixture.unsealed.leases.renewer;
    let granted = renewer.renew_lease(&RequestPermit::new(), &path, &id, Duration::ZERO).await.unwrap();
    assert_eq!(granted.ttl, HOUR);
}

#[tokio::test]
async fn a_service_token_bounds_no_renewal_of_its_leases() {
    let fixture = LeaseFixture::new().await;
    let service = fixture.token(None, reader(false, HOUR * 2)).await;
    let (path, id, _) = fixture.user(&service.id, "a").await;
    let renewer = &fixture.unsealed.leases.renewer;
    let granted = renewer.renew_lease(&RequestPermit::new(), &path, &id, HOUR * 5).await.unwrap();
    assert_eq!(granted.ttl, HOUR * 5, "the lease is revoked with its token");
    fixture.unsealed.access.tokens.revoke(service.key.as_ref().unwrap()).await.unwrap();
    fixture.pass(Duration::ZERO).await;
    assert_eq!(fixture.users(), 0);
}

#[tokio::test]
async fn a_confirmed_lease_is_counted_and_not_abandoned() {
    let fixture = LeaseFixture::new().await;
    let store = &fixture.unsealed.leases.store;
    fixture.user(&fixture.root, "a").await;
    assert!(store.abandoned.lock().is_empty() && store.under_way.lock().is_empty());
    assert_eq!(store.metrics.leases.register.count(), 1);
    assert_eq!(store.metrics.lease_creation.items("created").len(), 1);
    fixture.external.fails_after.store(true, Ordering::Relaxed);
    fixture.send(&fixture.root, "a/creds").await;
    assert_eq!((store.abandoned.lock().len(), store.metrics.lease_creation.items("created").len()), (1, 1));
}

#[tokio::test]
async fn a_quarantine_has_its_start_and_its_reason() {
    let mut fixture = LeaseFixture::new().await;
    assert!(fixture.unsealed.leases.store.quarantine().await.unwrap().is_none());
    fixture.restart("elsewhere").await;
    let quarantine = fixture.unsealed.leases.store.quarantine().await.unwrap().unwrap();
    assert_eq!(quarantine.since, fixture.clock.now());
    assert_eq!(quarantine.reason, "the data directory was restored, copied or moved");
}

#[test]
fn a_lease_id_is_24_letters_and_digits() {
    let parsed = |text: &str| LeaseId::parse(text).map(|id| id.as_str().to_owned());
    let valid = "000000aBcDeFgHiJkLmNoP12";
    assert_eq!(parsed(valid), Some(valid.to_owned()));
    for invalid in ["", "000000aBcDeFgHiJkLmNoP1", "000000aBcDeFgHiJkLmNoP123", "000000aBcDeFgHiJkLmNoP1/"] {
        assert_eq!(parsed(invalid), None, "{invalid}");
    }
}

#[tokio::test]
async fn the_path_of_a_lease_within_its_mount_has_no_mount() {
    let fixture = LeaseFixture::new().await;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    let record =
        fixture.unsealed.leases.store.at(&crate::namespace::NamespaceId::root(), &path, &id).await.unwrap().unwrap();
    assert_eq!([record.path_within("a/"), record.path_within("moved/")], ["creds", "a/creds"]);
}

#[tokio::test]
async fn revocations_by_prefix_and_by_force_are_timed_apart() {
    let fixture = LeaseFixture::new().await;
    let timings = &fixture.unsealed.leases.store.metrics.leases;
    let counts = || (timings.revoke_prefix.count(), timings.revoke_force.count());
    for (mode, expected) in [(RevokeMode::Now, (1, 0)), (RevokeMode::Queued, (2, 0)), (RevokeMode::Forced, (2, 1))] {
        fixture.unsealed.leases.revoker.revoke_prefix("a", mode).await.unwrap();
        assert_eq!(counts(), expected);
    }
}

#[tokio::test]
async fn an_entry_behind_the_page_that_was_counted_is_counted_once() {
    let fixture = LeaseFixture::new().await;
    let view = fixture.unsealed.barrier.view("token/");
    let put = async |keys: &mut dyn Iterator<Item = usize>| {
        let mut tx = fixture.unsealed.barrier.begin();
        keys.for_each(|number| tx.put(&view, &format!("{}{number:010x}{:024}", folder_of("one"), 0), Bytes::new()));
        tx.commit().await.unwrap();
    };
    put(&mut (0..1500)).await;
    let store = &fixture.unsealed.leases.store;
    let mut pace = Throttle::new(Arc::new(fixture.clock.clone()));
    // The pace rests after the first page.
    fixture.clock.advance(Duration::from_millis(10));
    {
        let mut counting = std::pin::pin!(store.count(&mut pace));
        assert!(futures_util::poll!(&mut counting).is_pending());
        put(&mut (1500..1501)).await;
        fixture.clock.advance(HOUR);
        counting.await.unwrap();
    }
    assert_eq!(store.counts.read(), Some(Counts { waiting: 1501, irrevocable: 0 }));
}

#[tokio::test]
async fn all_pages_of_all_folders_are_counted() {
    let fixture = LeaseFixture::new().await;
    let mount = |number: usize| if number < 1000 { folder_of("one") } else { folder_of("two") };
    let ends = (0..2001).map(|number| format!("{}{number:010x}{number:024}", mount(number)));
    let irrevocable = (0..3).map(|number| format!("{}m{number}/{number:024}", index::IRREVOCABLE));
    let mut tx = fixture.unsealed.barrier.begin();
    let view = fixture.unsealed.barrier.view("token/");
    ends.chain(irrevocable).for_each(|key| tx.put(&view, &key, Bytes::new()));
    tx.commit().await.unwrap();
    let store = &fixture.unsealed.leases.store;
    store.count(&mut Throttle::new(Arc::new(fixture.clock.clone()))).await.unwrap();
    assert_eq!(store.counts.read(), Some(Counts { waiting: 2001, irrevocable: 3 }));
}
