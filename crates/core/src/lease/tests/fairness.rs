//! A stalled database holds only its share of the concurrent revocations and delays no other mount.

use std::sync::atomic::Ordering;

use super::{HOUR, LeaseFixture};
use crate::lease::revoke_by_path::OF_ONE_MOUNT;
use keepfast_framework::Clock;

#[tokio::test]
async fn a_stalled_mount_holds_only_its_share() {
    let fixture = LeaseFixture::new().await;
    for _ in 0..100 {
        fixture.user(&fixture.root, "a").await;
    }
    *fixture.external.stuck.lock() = fixture.external.users.lock().clone();
    for _ in 0..300 {
        fixture.user(&fixture.root, "b").await;
    }
    fixture.clock.advance(HOUR * 2);
    let (unsealed, now) = (fixture.unsealed.clone(), fixture.clock.now());
    let worker = tokio::spawn(async move { unsealed.leases.expiry.revoke_expired_leases(now).await });
    for _ in 0..1_000_000 {
        if fixture.users() == 100 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.users(), 100, "all of b are gone");
    assert_eq!(fixture.external.standing.load(Ordering::Relaxed), OF_ONE_MOUNT);
    worker.abort();
}
