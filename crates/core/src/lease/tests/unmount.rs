//! Leases of a mount that is unmounted, and leases that are deleted by force.

use super::*;

#[tokio::test]
async fn an_unmount_revokes_first_and_a_failure_leaves_the_mount() {
    let fixture = LeaseFixture::new().await;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    let entry = fixture.unsealed.engines.mounts.router().at("a/").unwrap().entry.clone();
    fixture.external.down.store(true, Ordering::Relaxed);
    let refused = fixture.unsealed.engines.changes.unmount(&entry).await.unwrap_err();
    assert_eq!(
        refused.public(),
        format!("failed to revoke \"{path}/{}\": failed to revoke entry: connection refused", id.as_str())
    );
    assert!(fixture.unsealed.engines.mounts.router().at("a/").is_some());
    fixture.external.down.store(false, Ordering::Relaxed);
    fixture.unsealed.engines.changes.unmount(&entry).await.unwrap();
    assert!(fixture.unsealed.engines.mounts.router().at("a/").is_none());
    assert_eq!(fixture.users(), 0);
    assert_eq!(fixture.stored().await, Vec::<String>::new());
}

#[tokio::test]
async fn force_deletes_leases_that_cannot_be_revoked() {
    let fixture = LeaseFixture::new().await;
    fixture.user(&fixture.root, "a").await;
    fixture.external.down.store(true, Ordering::Relaxed);
    assert!(fixture.unsealed.leases.revoker.revoke_prefix("a", RevokeMode::Now).await.is_err());
    fixture.unsealed.leases.revoker.revoke_prefix("a", RevokeMode::Forced).await.unwrap();
    assert_eq!(fixture.stored().await, Vec::<String>::new());
}
