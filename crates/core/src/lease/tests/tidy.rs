//! Tidy: deletes index entries without a record, and nothing else.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use keepfast_framework::Clock;

use super::{HOUR, Rig, below, reader, seeded};
use crate::lease::record::LeaseId;

/// Writes below the view of tokens and leases, directly to storage.
async fn put(rig: &Rig, keys: &[String], value: &'static [u8]) {
    let view = rig.unsealed.barrier.view("token/");
    let mut tx = rig.unsealed.barrier.begin();
    for key in keys {
        tx.put(&view, key, Bytes::from_static(value));
    }
    tx.commit().await.unwrap();
}

fn stray(rig: &Rig, path: &str) -> String {
    format!("lease/{path}/{}", LeaseId::new(rig.clock.now()).as_str())
}

async fn tidy(rig: &Rig) -> usize {
    rig.unsealed.leases.tidier.tidy(rig.clock.now()).await.unwrap()
}

#[tokio::test]
async fn entries_that_lead_nowhere_go_and_all_others_stay() {
    let rig = Rig::new().await;
    let (path, _, _) = rig.user(&rig.root, "a").await;
    let (_, broken, _) = rig.user(&rig.root, "b").await;
    let token = rig.token(None, reader(false, HOUR)).await;
    put(&rig, &[format!("secret/{}", broken.as_str())], b"{\"path\":7").await;
    let before = rig.stored().await;
    assert_eq!(tidy(&rig).await, 0);
    let strays = [
        stray(&rig, &path),
        stray(&rig, "a/gone/deep/down"),
        format!("lease/auth/token/create/h{}", "0".repeat(40)),
        "lease/a/creds/no-id-at-all".to_owned(),
        "lease/alone".to_owned(),
    ];
    put(&rig, &strays, b"").await;
    assert_eq!((tidy(&rig).await, tidy(&rig).await), (strays.len(), 0));
    assert_eq!(rig.stored().await, before, "what stands stays, and what cannot be read waits for an operator");
    assert!(rig.unsealed.leases.store.is_listed("b/creds", broken.as_str()).await.unwrap());
    let named = format!("h{}", token.key.as_ref().unwrap().as_str());
    assert!(rig.unsealed.leases.store.is_listed("auth/token/create", &named).await.unwrap());
    rig.pass(HOUR * 2).await;
    assert_eq!(rig.users(), 1, "all but the damaged one ended on time");
}

#[tokio::test]
async fn more_strays_than_a_page_go_in_one_run() {
    let rig = Rig::new().await;
    rig.user(&rig.root, "a").await;
    let strays: Vec<String> = (0..1203).map(|n| stray(&rig, if n % 2 == 0 { "a/creds" } else { "x" })).collect();
    put(&rig, &strays, b"").await;
    assert_eq!((tidy(&rig).await, tidy(&rig).await), (1203, 0));
    assert_eq!(
        (
            rig.unsealed.leases.store.below("a/creds", &keepfast_framework::Page::all()).await.unwrap().len(),
            rig.users()
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn tokens_that_are_due_end_and_the_worker_is_called_for_leases() {
    let rig = Rig::new().await;
    let parent = rig.token(None, reader(false, Duration::from_secs(60))).await;
    rig.user(&parent.id, "a").await;
    rig.pass(Duration::ZERO).await;
    // `Notify` stores at most one permit.
    rig.unsealed.leases.store.wake.notified().now_or_never();
    assert!(rig.unsealed.leases.store.wake.notified().now_or_never().is_none());
    rig.clock.advance(HOUR);
    assert_eq!(tidy(&rig).await, 0);
    let mut tx = rig.unsealed.barrier.begin_read();
    assert!(rig.unsealed.access.tokens.record(&mut tx, parent.key.as_ref().unwrap()).await.unwrap().is_none());
    assert!(rig.unsealed.leases.store.wake.notified().now_or_never().is_some());
    assert_eq!(rig.users(), 1, "only the worker revokes leases");
    rig.pass(Duration::ZERO).await;
    assert_eq!((rig.users(), rig.stored().await), (0, vec![]));
}

#[tokio::test]
async fn what_is_made_and_ended_meanwhile_is_left_alone() {
    let (rig, mut rng) = (Rig::new().await, seeded());
    let work = async {
        for _ in 0..40 {
            let (path, id, _) = rig.user(&rig.root, "a").await;
            if below(&mut rng, 2) == 0 {
                rig.unsealed
                    .leases
                    .revoker
                    .revoke_lease(&path, &id, crate::lease::revoke::RevokeMode::Now)
                    .await
                    .unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let tidying = async {
        for _ in 0..40 {
            assert_eq!(tidy(&rig).await, 0, "no entry is without its record at any moment");
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(work, tidying);
    rig.pass(HOUR * 2).await;
    assert_eq!((rig.users(), rig.stored().await), (0, vec![]));
}
