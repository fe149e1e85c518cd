//! A stalled database holds only its share of the concurrent revocations and delays no other mount.

use std::sync::atomic::Ordering;

use super::{HOUR, Rig};
use crate::lease::by_path::OF_ONE_MOUNT;
use keepfast_framework::Clock;

#[tokio::test]
async fn a_mount_that_stands_still_holds_no_more_than_its_share() {
    let rig = Rig::new().await;
    for _ in 0..100 {
        rig.user(&rig.root, "a").await;
    }
    *rig.world.stuck.lock() = rig.world.users.lock().clone();
    for _ in 0..300 {
        rig.user(&rig.root, "b").await;
    }
    rig.clock.advance(HOUR * 2);
    let (unsealed, now) = (rig.unsealed.clone(), rig.clock.now());
    let worker = tokio::spawn(async move { unsealed.leases.expiry.revoke_due_leases(now).await });
    for _ in 0..1_000_000 {
        if rig.users() == 100 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.users(), 100, "all of b are gone");
    assert_eq!(rig.world.standing.load(Ordering::Relaxed), OF_ONE_MOUNT);
    worker.abort();
}
