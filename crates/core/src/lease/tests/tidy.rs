//! Tidy: deletes index entries without a record, and nothing else.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use keepfast_framework::Clock;

use super::{HOUR, LeaseFixture, below, reader, seeded};
use crate::lease::record::LeaseId;

/// Writes below the view of tokens and leases, directly to storage.
async fn put(fixture: &LeaseFixture, keys: &[String], value: &'static [u8]) {
    let view = fixture.unsealed.barrier.view("token/");
    let mut tx = fixture.unsealed.barrier.begin();
    for key in keys {
        tx.put(&view, key, Bytes::from_static(value));
    }
    tx.commit().await.unwrap();
}

fn stray(fixture: &LeaseFixture, path: &str) -> String {
    format!("lease/{path}/{}", LeaseId::new(fixture.clock.now()).as_str())
}

async fn tidy(fixture: &LeaseFixture) -> usize {
    fixture.unsealed.leases.tidier.tidy(fixture.clock.now()).await.unwrap()
}

#[tokio::test]
async fn entries_that_lead_nowhere_go_and_all_others_stay() {
    let fixture = LeaseFixture::new().await;
    let (path, _, _) = fixture.user(&fixture.root, "a").await;
    let (_, broken, _) = fixture.user(&fixture.root, "b").await;
    let token = fixture.token(None, reader(false, HOUR)).await;
    put(&fixture, &[format!("secret/{}", broken.as_str())], b"{\"path\":7").await;
    let before = fixture.stored().await;
    assert_eq!(tidy(&fixture).await, 0);
    let strays = [
        stray(&fixture, &path),
        stray(&fixture, "a/gone/deep/down"),
        format!("lease/auth/token/create/h{}", "0".repeat(40)),
        "lease/a/creds/no-id-at-all".to_owned(),
        "lease/alone".to_owned(),
    ];
    put(&fixture, &strays, b"").await;
    assert_eq!((tidy(&fixture).await, tidy(&fixture).await), (strays.len(), 0));
    assert_eq!(fixture.stored().await, before, "what stands stays, and what cannot be read waits for an operator");
    assert!(
        fixture
            .unsealed
            .leases
            .store
            .is_listed(&crate::namespace::NamespaceId::root(), "b/creds", broken.as_str())
            .await
            .unwrap()
    );
    let named = format!("h{}", token.key.as_ref().unwrap().as_str());
    assert!(
        fixture
            .unsealed
            .leases
            .store
            .is_listed(&crate::namespace::NamespaceId::root(), "auth/token/create", &named)
            .await
            .unwrap()
    );
    fixture.pass(HOUR * 2).await;
    assert_eq!(fixture.users(), 1, "all but the damaged one ended on time");
}

#[tokio::test]
async fn more_strays_than_a_page_go_in_one_run() {
    let fixture = LeaseFixture::new().await;
    fixture.user(&fixture.root, "a").await;
    let strays: Vec<String> = (0..1203).map(|n| stray(&fixture, if n % 2 == 0 { "a/creds" } else { "x" })).collect();
    put(&fixture, &strays, b"").await;
    assert_eq!((tidy(&fixture).await, tidy(&fixture).await), (1203, 0));
    assert_eq!(
        (
            fixture
                .unsealed
                .leases
                .store
                .below(&crate::namespace::NamespaceId::root(), "a/creds", &keepfast_framework::Page::all())
                .await
                .unwrap()
                .len(),
            fixture.users()
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn tidy_revokes_expired_tokens_and_wakes_the_worker_for_leases() {
    let fixture = LeaseFixture::new().await;
    let parent = fixture.token(None, reader(false, Duration::from_secs(60))).await;
    fixture.user(&parent.id, "a").await;
    fixture.pass(Duration::ZERO).await;
    // `Notify` stores at most one permit.
    fixture.unsealed.leases.store.wake.notified().now_or_never();
    assert!(fixture.unsealed.leases.store.wake.notified().now_or_never().is_none());
    fixture.clock.advance(HOUR);
    assert_eq!(tidy(&fixture).await, 0);
    let mut tx = fixture.unsealed.barrier.begin_read();
    assert!(fixture.unsealed.access.tokens.record(&mut tx, parent.key.as_ref().unwrap()).await.unwrap().is_none());
    assert!(fixture.unsealed.leases.store.wake.notified().now_or_never().is_some());
    assert_eq!(fixture.users(), 1, "only the worker revokes leases");
    fixture.pass(Duration::ZERO).await;
    assert_eq!((fixture.users(), fixture.stored().await), (0, vec![]));
}

#[tokio::test]
async fn leases_created_or_revoked_during_tidy_are_not_changed() {
    let (fixture, mut rng) = (LeaseFixture::new().await, seeded());
    let work = async {
        for _ in 0..40 {
            let (path, id, _) = fixture.user(&fixture.root, "a").await;
            if below(&mut rng, 2) == 0 {
                fixture
                    .unsealed
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
            assert_eq!(tidy(&fixture).await, 0, "no entry is without its record at any moment");
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(work, tidying);
    fixture.pass(HOUR * 2).await;
    assert_eq!((fixture.users(), fixture.stored().await), (0, vec![]));
}
