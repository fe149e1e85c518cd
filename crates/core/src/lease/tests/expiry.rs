//! What the worker does with entries of the expiry index that do not match their lease, and when storage fails; and what
//! the expiry queue reads.

use keepfast_framework::Timestamp;

use super::*;
use crate::lease::expiry_queue::folder_of;
use crate::lease::record::LeaseRecord;
use crate::tests::gate::Gated;

async fn record(fixture: &LeaseFixture, path: &str, id: &LeaseId) -> LeaseRecord {
    fixture.unsealed.leases.store.at(&crate::namespace::NamespaceId::root(), path, id).await.unwrap().unwrap()
}

/// Adds an entry for a lease to the expiry index of a mount.
async fn enter(fixture: &LeaseFixture, mount: &str, name: &str) -> String {
    let key = format!("{}{name}", folder_of(mount));
    let mut tx = fixture.unsealed.barrier.begin();
    tx.put(&fixture.unsealed.barrier.view("token/"), &key, Bytes::new());
    tx.commit().await.unwrap();
    key
}

async fn exists(fixture: &LeaseFixture, key: &str) -> bool {
    let view = fixture.unsealed.barrier.view("token/");
    fixture.unsealed.barrier.begin_read().get(&view, key).await.unwrap().is_some()
}

fn uuid(fixture: &LeaseFixture, path: &str) -> String {
    fixture.unsealed.engines.mounts.router().at(path).unwrap().entry.uuid.clone()
}

#[test]
fn a_lease_is_due_when_its_whole_second_has_passed() {
    for (end, second) in [(5, 6), (0, 1), (-3, 1)] {
        assert_eq!(index::second_of(Timestamp::from_unix(end)), second);
    }
}

#[tokio::test]
async fn an_entry_at_another_second_is_dropped_and_its_lease_kept() {
    let fixture = LeaseFixture::new().await;
    let (_, id, _) = fixture.user(&fixture.root, "a").await;
    let stale = enter(&fixture, &uuid(&fixture, "a/"), &format!("0000000001{}", id.as_str())).await;
    fixture.pass(Duration::ZERO).await;
    assert_eq!((fixture.users(), exists(&fixture, &stale).await), (1, false));
}

#[tokio::test]
async fn an_entry_of_another_mount_is_dropped_and_revokes_nothing() {
    let fixture = LeaseFixture::new().await;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    let name = index::end_name(&id, &record(&fixture, &path, &id).await);
    let other = uuid(&fixture, "b/");
    let stray = enter(&fixture, &other, &name).await;
    fixture.clock.advance(HOUR * 2);
    fixture.unsealed.leases.expiry.revoke_expired_of(&other, fixture.clock.now()).await.unwrap();
    assert_eq!((fixture.users(), exists(&fixture, &stray).await), (1, false));
}

#[tokio::test]
async fn an_entry_of_an_irrevocable_lease_is_dropped_without_an_attempt() {
    let fixture = LeaseFixture::new().await;
    *fixture.external.back_off.lock() = Some(BackOff { attempts: 1, pause: 1, longest: 1 });
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    fixture.external.down.store(true, Ordering::Relaxed);
    fixture.pass(HOUR * 2).await;
    let irrevocable = record(&fixture, &path, &id).await;
    assert!(matches!(irrevocable.state, State::Irrevocable { .. }));
    let attempts = fixture.external.revocations.load(Ordering::Relaxed);
    let stale = enter(&fixture, &irrevocable.mount, &index::end_name(&id, &irrevocable)).await;
    fixture.pass(HOUR).await;
    assert_eq!(
        (fixture.external.revocations.load(Ordering::Relaxed), exists(&fixture, &stale).await),
        (attempts, false)
    );
}

#[tokio::test]
async fn a_failing_storage_ends_the_look_at_due_leases_with_its_error() {
    let backend = Arc::new(Gated::default());
    let fixture = LeaseFixture::on(backend.clone(), "here").await;
    fixture.user(&fixture.root, "a").await;
    fixture.clock.advance(HOUR * 2);
    backend.refuse(|_| Some(StorageError::Full));
    let failed = fixture.unsealed.leases.expiry.revoke_expired_of(&uuid(&fixture, "a/"), fixture.clock.now()).await;
    assert!(failed.is_err_and(|error| crate::unreadable::storage_fails(&error)));
}

#[tokio::test]
async fn the_next_expiry_of_tokens_alone_ignores_leases() {
    let fixture = LeaseFixture::new().await;
    fixture.user(&fixture.root, "a").await;
    fixture.token(None, reader(false, HOUR * 5)).await;
    let queue = &fixture.unsealed.leases.store.expiry_queue;
    let in_hours = |hours: u32| Timestamp::from_unix(index::second_of(fixture.clock.now().after(HOUR * hours)));
    assert_eq!(queue.next(false).await.unwrap(), Some(in_hours(5)));
    assert_eq!(queue.next(true).await.unwrap(), Some(in_hours(1)));
}

#[tokio::test]
async fn only_a_new_entry_before_the_planned_time_wakes_the_worker() {
    let fixture = LeaseFixture::new().await;
    fixture.user(&fixture.root, "a").await;
    let queue = &fixture.unsealed.leases.store.expiry_queue;
    let planned = queue.next(true).await.unwrap().unwrap().unix();
    let folder = folder_of("no-mount");
    let applied = |second: i64, exists| queue.applied(&format!("{folder}{second:010x}{:024}", 0), exists);
    assert!(!applied(planned - 1, false) && !applied(planned, true) && !applied(planned + 1, true));
    assert!(applied(planned - 1, true));
    assert!(!applied(planned - 1, true), "that is the planned time now");
}

#[tokio::test]
async fn a_deleted_entry_of_an_unknown_mount_adds_no_mount() {
    let fixture = LeaseFixture::new().await;
    let queue = &fixture.unsealed.leases.store.expiry_queue;
    queue.applied(&format!("{}{:010x}{:024}", folder_of("gone"), 1, 0), false);
    assert!(!queue.mounts().await.unwrap().contains(&"gone".to_owned()));
    queue.applied(&format!("{}{:010x}{:024}", folder_of("new"), 1, 0), true);
    assert!(queue.mounts().await.unwrap().contains(&"new".to_owned()));
}

#[tokio::test]
async fn a_sooner_expiry_and_a_quarantine_wake_the_worker() {
    let fixture = LeaseFixture::new().await;
    let store = &fixture.unsealed.leases.store;
    let is_woken = || futures_util::FutureExt::now_or_never(store.wake.notified()).is_some();
    while is_woken() {}
    fixture.user(&fixture.root, "a").await;
    assert!(is_woken() && !is_woken());
    store.set_quarantine(true, fixture.clock.now()).await.unwrap();
    assert!(is_woken());
}

#[tokio::test]
async fn an_unmount_removes_the_mount_from_the_queue() {
    let fixture = LeaseFixture::new().await;
    fixture.user(&fixture.root, "a").await;
    let (mount, entry) =
        (uuid(&fixture, "a/"), fixture.unsealed.engines.mounts.router().at("a/").unwrap().entry.clone());
    let queue = &fixture.unsealed.leases.store.expiry_queue;
    let (view, at) = (fixture.unsealed.barrier.view("sys/"), format!("mount/{mount}"));
    let mut tx = fixture.unsealed.barrier.begin();
    let stored = tx.get(&view, &at).await.unwrap().unwrap();
    tx.put(&view, &at, stored);
    tx.commit().await.unwrap();
    assert!(queue.mounts().await.unwrap().contains(&mount), "a changed mount stays");
    fixture.unsealed.engines.changes.unmount(&entry).await.unwrap();
    assert!(!queue.mounts().await.unwrap().contains(&mount));
}

#[tokio::test]
async fn a_renewed_token_is_deleted_at_its_new_expiry() {
    let server = crate::tests::fixture::TestServer::new().await;
    let records = async || crate::tests::tokens::stored(&server, "token/id/").await.len();
    let before = records().await;
    let token = server.token(json!({ "ttl": "1h" })).await;
    let body = json!({ "token": token, "increment": "3h" });
    server.post("auth/token/renew", crate::tests::fixture::ROOT, body).await.ok();
    server.pass(2 * 3600).await;
    assert!(server.accepts(&token).await);
    server.pass(2 * 3600).await;
    assert_eq!(records().await, before);
}
