//! Claims that only one lease can have, and withdrawn intents.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::{HOUR, Rig};
use crate::lease::revoke::RevokeMode;
use crate::mount::permit::RequestPermit;

/// All requests create a user of the same name.
async fn rig() -> Rig {
    let rig = Rig::new().await;
    rig.world.one_name.store(true, Ordering::Relaxed);
    rig
}

async fn is_refused(rig: &Rig) -> bool {
    let (status, answer) = rig.ask(&rig.root, "a/creds").await;
    assert!(status == 200 || answer["errors"] == json!(["the name is held"]), "{answer}");
    status == 400
}

#[tokio::test]
async fn a_claim_is_held_until_its_lease_is_gone() {
    let mut rig = rig().await;
    let (path, id, _) = rig.user(&rig.root, "a").await;
    assert!(is_refused(&rig).await);
    rig.user(&rig.root, "b").await;
    rig.restart("here").await;
    assert!(is_refused(&rig).await, "also after a restart");
    rig.unsealed.leases.renewer.renew_lease(&RequestPermit::new(), &path, &id, HOUR).await.unwrap();
    assert!(is_refused(&rig).await);
    rig.unsealed.leases.revoker.revoke_lease(&path, &id, RevokeMode::Now).await.unwrap();
    assert!(!is_refused(&rig).await);
    rig.world.down.store(true, Ordering::Relaxed);
    rig.unsealed.leases.revoker.revoke_prefix("a", RevokeMode::Forced).await.unwrap();
    assert!(!is_refused(&rig).await, "what is forgotten by force holds nothing");
    rig.world.down.store(false, Ordering::Relaxed);
    for prefix in ["a", "b"] {
        rig.unsealed.leases.revoker.revoke_prefix(prefix, RevokeMode::Now).await.unwrap();
    }
    assert_eq!(rig.stored().await, Vec::<String>::new());
}

#[tokio::test]
async fn of_many_that_claim_one_name_at_once_one_gets_it() {
    let rig = rig().await;
    let asked = futures_util::future::join_all((0..8).map(|_| rig.ask(&rig.root, "a/creds"))).await;
    assert_eq!(asked.iter().filter(|(status, _)| *status == 200).count(), 1);
    rig.unsealed.leases.revoker.revoke_prefix("a", RevokeMode::Now).await.unwrap();
    rig.pass(HOUR).await;
    assert_eq!(rig.stored().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_undone_intent_keeps_its_claim_until_the_second_revocation() {
    let rig = rig().await;
    rig.world.fails_after.store(true, Ordering::Relaxed);
    assert_eq!(rig.ask(&rig.root, "a/creds").await.0, 400);
    rig.world.fails_after.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        assert!(is_refused(&rig).await);
        rig.pass(Duration::from_secs(40)).await;
        assert_eq!(*rig.world.unconfirmed.lock(), json!("proof"));
    }
    assert_eq!((rig.stored().await, rig.users()), (vec![], 0));
    let (path, id, _) = rig.user(&rig.root, "a").await;
    rig.unsealed.leases.revoker.revoke_lease(&path, &id, RevokeMode::Now).await.unwrap();
    assert_eq!(*rig.world.unconfirmed.lock(), Value::Null, "a confirmed lease has it no more");
}

#[tokio::test]
async fn what_is_withdrawn_is_not_undone() {
    let mut rig = rig().await;
    rig.world.withdraws.store(true, Ordering::Relaxed);
    rig.world.users.lock().insert("same".to_owned());
    let (status, answer) = rig.ask(&rig.root, "a/creds").await;
    assert_eq!((status, &answer["errors"]), (400, &json!(["it is there"])));
    assert_eq!(rig.stored().await, Vec::<String>::new());
    for restarts in [false, true] {
        if restarts {
            rig.restart("here").await;
        }
        rig.pass(HOUR * 2).await;
        assert_eq!((rig.users(), rig.world.revocations.load(Ordering::Relaxed)), (1, 0));
    }
}
