//! Leases of engines count for the lease count quota of their path until they are gone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{HOUR, LeaseFixture};
use crate::lease::quotas::{self, LeaseQuota, QUOTAS};
use crate::lease::recount;
use crate::lease::revoke::RevokeMode;
use crate::namespace::NamespaceId;
use crate::quota::target::Target;

async fn put_quota(fixture: &LeaseFixture, max_leases: u64) {
    let target = Target { path: "a/".into(), is_mount: true, ..Target::default() };
    let quota =
        LeaseQuota { namespace: NamespaceId::root(), name: "q".into(), target, max_leases, counter: String::new() };
    let mut tx = fixture.unsealed.barrier.begin();
    quotas::put(&mut tx, &fixture.unsealed.barrier.view("sys/"), quota).await.unwrap();
    tx.commit().await.unwrap();
    recount::run(&fixture.unsealed).await.unwrap();
}

async fn counted(fixture: &LeaseFixture) -> i64 {
    let (barrier, view) = (&fixture.unsealed.barrier, fixture.unsealed.barrier.view("sys/"));
    let mut tx = barrier.begin_read();
    let quota = QUOTAS.get_in(&mut tx, &view, "q").await.unwrap().unwrap();
    quotas::counted(&mut tx, &view, &quota).await.unwrap()
}

#[tokio::test]
async fn a_lease_counts_from_its_intent_until_it_is_gone() {
    let mut fixture = LeaseFixture::new().await;
    fixture.user(&fixture.root, "a").await;
    fixture.user(&fixture.root, "b").await;
    put_quota(&fixture, 2).await;
    assert_eq!(counted(&fixture).await, 1, "the lease that is older, and none of another mount");
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    let users = fixture.users();
    let (status, body) = fixture.send(&fixture.root, "a/creds").await;
    assert_eq!((status, fixture.users()), (429, users), "the engine has not acted");
    assert_eq!(body["errors"][0], "request path \"a/creds\": lease count quota exceeded");
    fixture.user(&fixture.root, "b").await;

    fixture.unsealed.leases.revoker.revoke_lease(&path, &id, RevokeMode::Now).await.unwrap();
    assert_eq!(counted(&fixture).await, 1);
    // A failed request counts until its intent is revoked, twice.
    fixture.external.fails_after.store(true, Ordering::Relaxed);
    assert_eq!(fixture.send(&fixture.root, "a/creds").await.0, 400);
    fixture.external.fails_after.store(false, Ordering::Relaxed);
    assert_eq!(counted(&fixture).await, 2);
    fixture.restart("here").await;
    assert_eq!(counted(&fixture).await, 2);
    assert_eq!(fixture.send(&fixture.root, "a/creds").await.0, 429);
    fixture.pass(Duration::from_secs(40)).await;
    fixture.pass(Duration::from_secs(40)).await;
    assert_eq!(counted(&fixture).await, 1);
    fixture.pass(HOUR).await;
    assert_eq!(counted(&fixture).await, 0);
    let forced = fixture.user(&fixture.root, "a").await;
    fixture.unsealed.leases.revoker.revoke_lease(&forced.0, &forced.1, RevokeMode::Forced).await.unwrap();
    assert_eq!(counted(&fixture).await, 0);
}

#[tokio::test]
async fn an_unmount_releases_its_leases_and_deletes_their_quota() {
    let fixture = LeaseFixture::new().await;
    put_quota(&fixture, 2).await;
    fixture.user(&fixture.root, "a").await;
    let entry = fixture.unsealed.engines.mounts.router().at("a/").unwrap().entry.clone();
    fixture.unsealed.engines.changes.unmount(&entry).await.unwrap();
    let (mut tx, view) = (fixture.unsealed.barrier.begin_read(), fixture.unsealed.barrier.view("sys/"));
    assert!(QUOTAS.get_in(&mut tx, &view, "q").await.unwrap().is_none());
}
