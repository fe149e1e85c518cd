//! What the worker does with entries of the expiry index that do not match their lease, and when storage fails; and what
//! the expiry queue reads.

use keepfast_framework::Timestamp;

use super::*;
use crate::lease::expiry_queue::folder_of;
use crate::lease::record::LeaseRecord;
use crate::tests::gate::Gated;

async fn record(rig: &Rig, path: &str, id: &LeaseId) -> LeaseRecord {
    rig.unsealed.leases.store.at(path, id).await.unwrap().unwrap()
}

/// Adds an entry for a lease to the expiry index of a mount.
async fn enter(rig: &Rig, mount: &str, name: &str) -> String {
    let key = format!("{}{name}", folder_of(mount));
    let mut tx = rig.unsealed.barrier.begin();
    tx.put(&rig.unsealed.barrier.view("token/"), &key, Bytes::new());
    tx.commit().await.unwrap();
    key
}

async fn exists(rig: &Rig, key: &str) -> bool {
    let view = rig.unsealed.barrier.view("token/");
    rig.unsealed.barrier.begin_read().get(&view, key).await.unwrap().is_some()
}

fn uuid(rig: &Rig, path: &str) -> String {
    rig.unsealed.engines.mounts.router().at(path).unwrap().entry.uuid.clone()
}

#[tokio::test]
async fn an_entry_at_another_second_is_dropped_and_its_lease_kept() {
    let rig = Rig::new().await;
    let (_, id, _) = rig.user(&rig.root, "a").await;
    let stale = enter(&rig, &uuid(&rig, "a/"), &format!("0000000001{}", id.as_str())).await;
    rig.pass(Duration::ZERO).await;
    assert_eq!((rig.users(), exists(&rig, &stale).await), (1, false));
}

#[tokio::test]
async fn an_entry_of_another_mount_is_dropped_and_revokes_nothing() {
    let rig = Rig::new().await;
    let (path, id, _) = rig.user(&rig.root, "a").await;
    let name = index::end_name(&id, &record(&rig, &path, &id).await);
    let other = uuid(&rig, "b/");
    let stray = enter(&rig, &other, &name).await;
    rig.clock.advance(HOUR * 2);
    rig.unsealed.leases.expiry.revoke_due_of(&other, rig.clock.now()).await.unwrap();
    assert_eq!((rig.users(), exists(&rig, &stray).await), (1, false));
}

#[tokio::test]
async fn an_entry_of_an_irrevocable_lease_is_dropped_without_an_attempt() {
    let rig = Rig::new().await;
    *rig.world.back_off.lock() = Some(BackOff { attempts: 1, pause: 1, longest: 1 });
    let (path, id, _) = rig.user(&rig.root, "a").await;
    rig.world.down.store(true, Ordering::Relaxed);
    rig.pass(HOUR * 2).await;
    let irrevocable = record(&rig, &path, &id).await;
    assert!(matches!(irrevocable.state, State::Irrevocable { .. }));
    let attempts = rig.world.revocations.load(Ordering::Relaxed);
    let stale = enter(&rig, &irrevocable.mount, &index::end_name(&id, &irrevocable)).await;
    rig.pass(HOUR).await;
    assert_eq!((rig.world.revocations.load(Ordering::Relaxed), exists(&rig, &stale).await), (attempts, false));
}

#[tokio::test]
async fn a_failing_storage_ends_the_look_at_due_leases_with_its_error() {
    let backend = Arc::new(Gated::default());
    let rig = Rig::on(backend.clone(), "here").await;
    rig.user(&rig.root, "a").await;
    rig.clock.advance(HOUR * 2);
    backend.refuse(|_| Some(StorageError::Full));
    let failed = rig.unsealed.leases.expiry.revoke_due_of(&uuid(&rig, "a/"), rig.clock.now()).await;
    assert!(failed.is_err_and(|error| crate::damaged::storage_fails(&error)));
}

#[tokio::test]
async fn the_next_expiry_of_tokens_alone_ignores_leases() {
    let rig = Rig::new().await;
    rig.user(&rig.root, "a").await;
    rig.token(None, reader(false, HOUR * 5)).await;
    let queue = &rig.unsealed.leases.store.expiry_queue;
    let in_hours = |hours: u32| Timestamp::from_unix(index::second_of(rig.clock.now().after(HOUR * hours)));
    assert_eq!(queue.next(false).await.unwrap(), Some(in_hours(5)));
    assert_eq!(queue.next(true).await.unwrap(), Some(in_hours(1)));
}

#[tokio::test]
async fn only_a_new_entry_before_the_planned_time_wakes_the_worker() {
    let rig = Rig::new().await;
    rig.user(&rig.root, "a").await;
    let queue = &rig.unsealed.leases.store.expiry_queue;
    let planned = queue.next(true).await.unwrap().unwrap().unix();
    let folder = folder_of("no-mount");
    let applied = |second: i64, exists| queue.applied(&format!("{folder}{second:010x}{:024}", 0), exists);
    assert!(!applied(planned - 1, false) && !applied(planned, true) && !applied(planned + 1, true));
    assert!(applied(planned - 1, true));
    assert!(!applied(planned - 1, true), "that is the planned time now");
}

#[tokio::test]
async fn a_deleted_entry_of_an_unknown_mount_adds_no_mount() {
    let rig = Rig::new().await;
    let queue = &rig.unsealed.leases.store.expiry_queue;
    queue.applied(&format!("{}{:010x}{:024}", folder_of("gone"), 1, 0), false);
    assert!(!queue.mounts().await.unwrap().contains(&"gone".to_owned()));
    queue.applied(&format!("{}{:010x}{:024}", folder_of("new"), 1, 0), true);
    assert!(queue.mounts().await.unwrap().contains(&"new".to_owned()));
}

#[tokio::test]
async fn a_sooner_expiry_and_a_quarantine_wake_the_worker() {
    let rig = Rig::new().await;
    let store = &rig.unsealed.leases.store;
    let is_woken = || futures_util::FutureExt::now_or_never(store.wake.notified()).is_some();
    while is_woken() {}
    rig.user(&rig.root, "a").await;
    assert!(is_woken() && !is_woken());
    store.set_quarantine(true, rig.clock.now()).await.unwrap();
    assert!(is_woken());
}

#[tokio::test]
async fn an_unmount_removes_the_mount_from_the_queue() {
    let rig = Rig::new().await;
    rig.user(&rig.root, "a").await;
    let (mount, entry) = (uuid(&rig, "a/"), rig.unsealed.engines.mounts.router().at("a/").unwrap().entry.clone());
    let queue = &rig.unsealed.leases.store.expiry_queue;
    let (view, at) = (rig.unsealed.barrier.view("sys/"), format!("mount/{mount}"));
    let mut tx = rig.unsealed.barrier.begin();
    let stored = tx.get(&view, &at).await.unwrap().unwrap();
    tx.put(&view, &at, stored);
    tx.commit().await.unwrap();
    assert!(queue.mounts().await.unwrap().contains(&mount), "a changed mount stays");
    rig.unsealed.engines.changes.unmount(&entry).await.unwrap();
    assert!(!queue.mounts().await.unwrap().contains(&mount));
}

#[tokio::test]
async fn a_renewed_token_is_deleted_at_its_new_expiry() {
    let house = crate::tests::fixture::House::new().await;
    let records = async || crate::tests::tokens::stored(&house, "token/id/").await.len();
    let before = records().await;
    let token = house.token(json!({ "ttl": "1h" })).await;
    let body = json!({ "token": token, "increment": "3h" });
    house.post("auth/token/renew", crate::tests::fixture::ROOT, body).await.ok();
    house.pass(2 * 3600).await;
    assert!(house.accepts(&token).await);
    house.pass(2 * 3600).await;
    assert_eq!(records().await, before);
}
