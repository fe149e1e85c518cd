//! What must not happen to the ways to the root key: the last one that opens is dropped, a change without authority, an
//! unseal against the operator.

use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::seal::SealErrorClass;
use serde_json::{Value, json};

use crate::SealSet;
use crate::lifecycle::unseal_by_seal;
use crate::seal::test_seal::{Behaviour, TestSeal};
use crate::seal::{BreakGlass, WayIn};
use crate::tests::fixture::{ROOT, TestResponse, TestServer};
use crate::tests::seals::{SHAPE, config, initialized, manual, server, set, unseal, until};
use crate::unseal::by_seals::{RoundOutcome, round};

const NONE_OPENS: &str = "no seal opens its slot now";

/// Runs the background tasks at this time.
async fn run_tasks() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// An unsealed server with the seal `a`, and `b` on request only, both enrolled.
async fn with_manual(a: &Arc<TestSeal>, b: &Arc<TestSeal>) -> TestServer {
    let seals = SealSet::new(vec![a.configured("a"), manual(b, "b")]).unwrap();
    let server = initialized(TestServer::with_seals(seals, |_| {}), Some(SHAPE)).await;
    if config(&server).await.slot_named("b").is_none() {
        server.post("sys/seals/b", ROOT, Value::Null).await.is(204);
    }
    server
}

#[tokio::test]
async fn sec_break_glass_is_forbidden_only_once_a_seal_opens() {
    let seal = TestSeal::new();
    let mut server = server(&[&seal]).await;
    server.settings.disable_break_glass = true;
    seal.fails(SealErrorClass::Unreachable);
    let server = server.under(set(&[&seal]));
    assert_eq!(unseal(&server, &server.shares[..2]).await.ok().body["sealed"], false);
    for _ in 0..10 {
        server.clock.advance(Duration::from_secs(600));
        run_tasks().await;
    }
    assert!(config(&server).await.opens_by_shares(), "the recovery keys are the only way in");
    server.delete("sys/seals/break-glass", ROOT).await.is(503);
    seal.set(Behaviour::Well);
    until(&server, async || config(&server).await.break_glass == BreakGlass::Forbidden).await;
    assert!(!config(&server).await.opens_by_shares());
}

#[tokio::test]
async fn sec_the_last_way_in_that_opens_is_not_removed() {
    let (a, b) = (TestSeal::new(), TestSeal::of_kind("transit"));
    let server = with_manual(&a, &b).await;
    for seal in [&a, &b] {
        seal.fails(SealErrorClass::Denied);
    }
    let refused = server.delete("sys/seals/break-glass", ROOT).await.is(503);
    assert_eq!(refused.error(), NONE_OPENS);
    assert!(config(&server).await.opens_by_shares());
    b.set(Behaviour::Well);
    server.delete("sys/seals/break-glass", ROOT).await.is(204);
    let before = config(&server).await;
    server.delete("sys/seals/break-glass", ROOT).await.is(204);
    assert_eq!(config(&server).await, before, "it is off already");
    // A slot that does not open is no way in.
    assert_eq!(server.delete("sys/seals/b", ROOT).await.is(503).error(), NONE_OPENS);
    assert_eq!(config(&server).await.seal_slots().count(), 2);
    a.set(Behaviour::Well);
    server.delete("sys/seals/b", ROOT).await.is(204);
}

#[tokio::test]
async fn sec_a_seal_without_a_stanza_is_no_way_in() {
    let (a, b) = (TestSeal::new(), TestSeal::new());
    let server = with_manual(&a, &b).await.under(SealSet::new(vec![manual(&b, "b")]).unwrap());
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed));
    let status = server.get("sys/seal-backend-status", "").await.ok();
    assert_eq!(status.body["healthy"], false, "{status:?}");
    server.delete("sys/seals/break-glass", ROOT).await.is(204);
    assert_eq!(server.delete("sys/seals/b", ROOT).await.is(503).error(), NONE_OPENS);
}

#[tokio::test]
async fn a_removed_seal_stays_removed() {
    let (a, b) = (TestSeal::new(), TestSeal::new());
    let server = with_manual(&a, &b).await;
    let refused = server.delete("sys/seals/a", ROOT).await.is(400);
    assert!(refused.error().contains("would be enrolled again"), "{refused:?}");
    server.delete("sys/seals/b", ROOT).await.is(204);
    server.delete("sys/seals/b", ROOT).await.is(400);
    for _ in 0..20 {
        server.clock.advance(Duration::from_secs(60));
        run_tasks().await;
    }
    let config = config(&server).await;
    assert!(config.slot_named("b").is_none() && config.slot_named("a").is_some());
}

#[tokio::test]
async fn the_first_seal_of_a_server_forbids_break_glass_as_configured() {
    let seal = TestSeal::new();
    let mut server = TestServer::sealed(SHAPE).await;
    server.settings.disable_break_glass = true;
    let server = server.under(SealSet::new(vec![manual(&seal, "a")]).unwrap());
    assert!(server.node.lifecycle.unseal(&server.shares[..2]).await.unwrap());
    run_tasks().await;
    server.post("sys/seals/a", ROOT, Value::Null).await.is(204);
    run_tasks().await;
    assert_eq!(config(&server).await.break_glass, BreakGlass::Forbidden);
}

fn shares(made: &TestResponse) -> Vec<SecretBytes> {
    let keys = made.data()["keys"].as_array().unwrap();
    keys.iter().map(|key| SecretBytes::new(hex::decode(key.as_str().unwrap()).unwrap())).collect()
}

async fn give(server: &TestServer, path: &str, share: &SecretBytes, nonce: &Value) -> TestResponse {
    server.post(path, ROOT, json!({ "key": hex::encode(share.expose()), "nonce": nonce })).await
}

#[tokio::test]
async fn sec_new_shares_are_not_committed_after_others_replaced_the_old() {
    let seal = TestSeal::new();
    let server = TestServer::sealed(SHAPE).await.under(SealSet::new(vec![manual(&seal, "a")]).unwrap());
    assert!(server.node.lifecycle.unseal(&server.shares[..2]).await.unwrap());
    let issue = async |path: &str, verify: bool| {
        let init = json!({ "secret_shares": 3, "secret_threshold": 2, "require_verification": verify });
        let started = server.post(&format!("sys/rotate/{path}/init"), ROOT, init).await.ok();
        let update = format!("sys/rotate/{path}/update");
        give(&server, &update, &server.shares[0], &started.data()["nonce"]).await.ok();
        give(&server, &update, &server.shares[1], &started.data()["nonce"]).await.ok()
    };
    let stale = issue("root", true).await;
    server.post("sys/seals/a", ROOT, Value::Null).await.is(204);
    let current = shares(&issue("recovery", false).await);
    let nonce = &stale.data()["verification_nonce"];
    give(&server, "sys/rotate/root/verify", &shares(&stale)[0], nonce).await.ok();
    let refused = give(&server, "sys/rotate/root/verify", &shares(&stale)[1], nonce).await.is(400);
    assert_eq!(refused.error(), "the shares have changed since; begin again");
    let config = config(&server).await;
    assert!(config.quorum(&current[..2]).is_some() && config.quorum(&shares(&stale)[..2]).is_none());
    assert_eq!(server.get("sys/rotate/root/init", ROOT).await.ok().data()["started"], false, "it is over");
}

#[tokio::test]
async fn sec_a_round_that_is_running_does_not_undo_a_seal_on_request() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    let (lifecycle, config) = (&server.node.lifecycle, config(&server).await);
    let slot = config.slot_named("a").unwrap();
    let kek = lifecycle.seals.named("a").unwrap().unwrap(slot, &server.clock).await.unwrap();
    let way = WayIn::Slot(slot.id, kek);
    lifecycle.seal().await;
    assert_eq!(unseal_by_seal(lifecycle, &way).await.unwrap(), None);
    assert!(lifecycle.is_sealed() && lifecycle.seals.is_manual());
    // A quorum still unseals; a seal on request that waits for its end is not forgotten.
    let changing = lifecycle.changing.lock().await;
    let (unsealed, ()) = tokio::join!(lifecycle.unseal_by(way), async {
        let sealed = tokio::join!(lifecycle.seal(), async { drop(changing) });
        let ((), ()) = sealed;
    });
    assert!(unsealed.unwrap() && lifecycle.is_sealed() && lifecycle.seals.is_manual());
    assert!(matches!(round(lifecycle).await.unwrap(), RoundOutcome::Idle));
}
