//! Claims that only one lease can have, and withdrawn intents.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::{HOUR, LeaseFixture};
use crate::lease::revoke::RevokeMode;
use crate::mount::permit::RequestPermit;

/// All requests create a user of the same name.
async fn fixture() -> LeaseFixture {
    let fixture = LeaseFixture::new().await;
    fixture.external.one_name.store(true, Ordering::Relaxed);
    fixture
}

async fn is_refused(fixture: &LeaseFixture) -> bool {
    let (status, answer) = fixture.send(&fixture.root, "a/creds").await;
    assert!(status == 200 || answer["errors"] == json!(["the name is held"]), "{answer}");
    status == 400
}

#[tokio::test]
async fn a_claim_is_held_until_its_lease_is_gone() {
    let mut fixture = fixture().await;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    assert!(is_refused(&fixture).await);
    fixture.user(&fixture.root, "b").await;
    fixture.restart("here").await;
    assert!(is_refused(&fixture).await, "also after a restart");
    fixture.unsealed.leases.renewer.renew_lease(&RequestPermit::new(), &path, &id, HOUR).await.unwrap();
    assert!(is_refused(&fixture).await);
    fixture.unsealed.leases.revoker.revoke_lease(&path, &id, RevokeMode::Now).await.unwrap();
    assert!(!is_refused(&fixture).await);
    fixture.external.down.store(true, Ordering::Relaxed);
    fixture.unsealed.leases.revoker.revoke_prefix("a", RevokeMode::Forced).await.unwrap();
    assert!(!is_refused(&fixture).await, "what is forgotten by force holds nothing");
    fixture.external.down.store(false, Ordering::Relaxed);
    for prefix in ["a", "b"] {
        fixture.unsealed.leases.revoker.revoke_prefix(prefix, RevokeMode::Now).await.unwrap();
    }
    assert_eq!(fixture.stored().await, Vec::<String>::new());
}

#[tokio::test]
async fn of_many_that_claim_one_name_at_once_one_gets_it() {
    let fixture = fixture().await;
    let requested = futures_util::future::join_all((0..8).map(|_| fixture.send(&fixture.root, "a/creds"))).await;
    assert_eq!(requested.iter().filter(|(status, _)| *status == 200).count(), 1);
    fixture.unsealed.leases.revoker.revoke_prefix("a", RevokeMode::Now).await.unwrap();
    fixture.pass(HOUR).await;
    assert_eq!(fixture.stored().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_revoked_intent_keeps_its_claim_until_the_second_revocation() {
    let fixture = fixture().await;
    fixture.external.fails_after.store(true, Ordering::Relaxed);
    assert_eq!(fixture.send(&fixture.root, "a/creds").await.0, 400);
    fixture.external.fails_after.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        assert!(is_refused(&fixture).await);
        fixture.pass(Duration::from_secs(40)).await;
        assert_eq!(*fixture.external.unconfirmed.lock(), json!("proof"));
    }
    assert_eq!((fixture.stored().await, fixture.users()), (vec![], 0));
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    fixture.unsealed.leases.revoker.revoke_lease(&path, &id, RevokeMode::Now).await.unwrap();
    assert_eq!(*fixture.external.unconfirmed.lock(), Value::Null, "a confirmed lease has it no more");
}

#[tokio::test]
async fn a_withdrawn_intent_is_not_revoked() {
    let mut fixture = fixture().await;
    fixture.external.withdraws.store(true, Ordering::Relaxed);
    fixture.external.users.lock().insert("same".to_owned());
    let (status, answer) = fixture.send(&fixture.root, "a/creds").await;
    assert_eq!((status, &answer["errors"]), (400, &json!(["it is there"])));
    assert_eq!(fixture.stored().await, Vec::<String>::new());
    for restarts in [false, true] {
        if restarts {
            fixture.restart("here").await;
        }
        fixture.pass(HOUR * 2).await;
        assert_eq!((fixture.users(), fixture.external.revocations.load(Ordering::Relaxed)), (1, 0));
    }
}
