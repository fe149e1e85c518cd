//! A lease that cannot be revoked, for any reason, does not prevent the expiry of other leases.

use std::collections::BTreeSet;

use super::{HOUR, LeaseFixture};
use crate::lease::index;
use keepfast_framework::Page;

#[tokio::test]
async fn sec_kf02_a_panic_or_a_damaged_role_keeps_no_other_lease() {
    let fixture = LeaseFixture::new().await;
    for _ in 0..20 {
        fixture.user(&fixture.root, "a").await;
    }
    let faulty: BTreeSet<String> = fixture.external.users.lock().iter().take(10).cloned().collect();
    *fixture.external.panics.lock() = faulty.iter().take(5).cloned().collect();
    *fixture.external.damaged.lock() = faulty.iter().skip(5).cloned().collect();
    fixture.pass(HOUR * 2).await;
    assert_eq!(*fixture.external.users.lock(), faulty, "the others end at the first pass");
    // Each failure is counted: at last the leases are irrevocable and wait for an operator.
    for _ in 0..10 {
        fixture.pass(HOUR * 2).await;
    }
    let mount = fixture.unsealed.leases.store.irrevocable_mounts().await.unwrap().remove(0);
    let set_aside = fixture.unsealed.leases.store.of_mount(index::IRREVOCABLE, &mount, &Page::all()).await.unwrap();
    assert_eq!(set_aside.len(), 10);
}
