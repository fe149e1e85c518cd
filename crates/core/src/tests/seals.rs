//! Seals whose keys are outside of the server: init, start, failures, healing.

use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::seal::SealErrorClass;
use keepfast_storage::{Backend as _, Batch, Key};
use serde_json::{Value, json};

use crate::seal::test_seal::{Behaviour, TestSeal, set_of};
use crate::seal::{SealConfig, SealShape};
use crate::tests::fixture::{ROOT, TestResponse, TestServer};
use crate::unseal::by_seals::{RoundOutcome, round, round_now};

pub(super) const SHAPE: SealShape = SealShape { shares: 3, threshold: 2 };

/// An unsealed server with these seals, named `a`, `b` and so on, and recovery keys.
pub(super) async fn server(seals: &[&Arc<TestSeal>]) -> TestServer {
    initialized(TestServer::with_seals(set(seals), |_| {}), Some(SHAPE)).await
}

pub(super) async fn initialized(server: TestServer, shape: Option<SealShape>) -> TestServer {
    let root = Some(SecretString::new(ROOT.to_owned()));
    let made = crate::init::initialize(&server.node.lifecycle, shape, root, Ok).await.unwrap();
    TestServer { shares: made.shares, ..server }
}

pub(super) fn set(seals: &[&Arc<TestSeal>]) -> crate::SealSet {
    let names = ["a", "b", "c", "d"];
    set_of(&seals.iter().zip(names).map(|(seal, name)| (name, *seal)).collect::<Vec<_>>())
}

/// A seal that gets a slot on request only.
pub(super) fn manual(seal: &Arc<TestSeal>, name: &str) -> crate::ConfiguredSeal {
    crate::ConfiguredSeal { enroll_manually: true, ..seal.configured(name) }
}

pub(super) async fn config(server: &TestServer) -> SealConfig {
    server.node.lifecycle.parts.seal_config().await.unwrap().unwrap()
}

pub(super) async fn unseal(server: &TestServer, shares: &[SecretBytes]) -> TestResponse {
    let mut last = None;
    for share in shares {
        last = Some(server.post("sys/unseal", "", json!({ "key": hex::encode(share.expose()) })).await);
    }
    last.unwrap()
}

/// Runs the background tasks, with time passing in seconds, until the condition holds.
pub(super) async fn until(server: &TestServer, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        if holds().await {
            return;
        }
        server.clock.advance(Duration::from_secs(1));
    }
    panic!("it does not happen");
}

async fn opens_by(server: TestServer, seals: &[&Arc<TestSeal>]) -> (TestServer, bool) {
    let server = server.under(set(seals));
    let opened = matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed);
    (server, opened)
}

#[tokio::test]
async fn init_with_a_seal_responds_as_openbao_and_unseals() {
    let seal = TestSeal::new();
    let server = TestServer::with_seals(set(&[&seal]), |_| {});
    let before = server.get("sys/seal-status", "").await.ok();
    let (t, n) = (&before.body["t"], &before.body["n"]);
    assert_eq!(
        (&before.body["type"], t, n, &before.body["recovery_seal"]),
        (&json!("static"), &json!(0), &json!(0), &json!(true))
    );
    let refused = server.post("sys/init", "", json!({ "secret_shares": 3, "secret_threshold": 2 })).await.is(400);
    assert_eq!(refused.error(), "parameters secret_shares,secret_threshold not applicable to seal type static");
    let refused = server.post("sys/init", "", json!({ "recovery_shares": 3, "recovery_threshold": 4 })).await.is(400);
    assert!(refused.error().starts_with("invalid recovery configuration: "), "{refused:?}");
    let made = server.post("sys/init", "", json!({ "recovery_shares": 3, "recovery_threshold": 2 })).await.ok();
    assert_eq!((&made.body["keys"], &made.body["keys_base64"]), (&json!([]), &json!([])));
    assert_eq!(made.body["recovery_keys"].as_array().unwrap().len(), 3);
    assert_eq!(made.body["recovery_keys_base64"].as_array().unwrap().len(), 3);
    let after = server.get("sys/seal-status", "").await.ok();
    for (field, value) in [
        ("type", json!("static")),
        ("sealed", json!(false)),
        ("t", json!(2)),
        ("n", json!(3)),
        ("recovery_seal", json!(true)),
        ("recovery_seal_type", json!("shamir")),
        ("migration", json!(false)),
    ] {
        assert_eq!(after.body[field], value, "{field}");
    }
    assert!(server.accepts(made.body["root_token"].as_str().unwrap()).await);
    let again = server.post("sys/init", "", json!({ "recovery_shares": 1, "recovery_threshold": 1 })).await.is(400);
    assert_eq!(again.error(), "Vault is already initialized");
}

#[tokio::test]
async fn init_writes_nothing_unless_a_seal_works() {
    let (dead, garbage) = (TestSeal::new(), TestSeal::new());
    dead.fails(SealErrorClass::Unreachable);
    garbage.set(Behaviour::WrapsGarbage);
    let server = TestServer::with_seals(set(&[&dead, &garbage]), |_| {});
    let refused = server.post("sys/init", "", json!({})).await.is(503);
    assert!(refused.error().contains("a (unreachable), b (wrong_key)"), "{refused:?}");
    assert_eq!(server.get("sys/init", "").await.ok().body["initialized"], false);
    garbage.set(Behaviour::Well);
    let made = server.post("sys/init", "", json!({})).await.ok();
    assert!(made.body.get("recovery_keys").is_none());
    assert_eq!(config(&server).await.slots.len(), 1, "only the seal that works has a slot");
    let refused = server.post("sys/unseal", "", json!({ "key": "00".repeat(33) })).await.ok();
    assert_eq!(refused.body["sealed"], false);
}

#[tokio::test]
async fn each_seal_unseals_alone_and_in_any_state_of_the_others() {
    let (a, b, c) = (TestSeal::new(), TestSeal::of_kind("transit"), TestSeal::new());
    let mut server = server(&[&a, &b, &c]).await;
    assert_eq!(config(&server).await.seal_slots().count(), 3);
    let classes = [SealErrorClass::Unreachable, SealErrorClass::Denied, SealErrorClass::WrongKey];
    for (at, alive) in [&a, &b, &c].into_iter().enumerate() {
        for (other, class) in [&a, &b, &c].into_iter().zip(classes) {
            other.fails(class);
        }
        alive.set(Behaviour::Well);
        let opened;
        (server, opened) = opens_by(server, &[&a, &b, &c]).await;
        assert!(opened && server.accepts(ROOT).await, "seal {at}");
    }
    for seal in [&a, &b, &c] {
        seal.fails(SealErrorClass::Denied);
    }
    let (server, opened) = opens_by(server, &[&a, &b, &c]).await;
    assert!(!opened);
    let status = server.get("sys/seal-status", "").await.ok();
    assert_eq!((&status.body["sealed"], &status.body["sealed_reason"]), (&json!(true), &json!("denied")));
    server.get("sys/health", "").await.is(503);
}

#[tokio::test]
async fn a_seal_that_hangs_delays_the_start_by_a_second_only() {
    let (slow, well) = (TestSeal::new(), TestSeal::new());
    let server = server(&[&slow, &well]).await;
    slow.set(Behaviour::Hangs);
    let server = server.under(set(&[&slow, &well]));
    server.node.start();
    let started = keepfast_framework::Clock::now(&server.clock);
    until(&server, async || !server.node.state().is_sealed).await;
    assert!(keepfast_framework::Clock::now(&server.clock).since(started) <= Duration::from_secs(2));
}

#[tokio::test]
async fn rl22_start_waits_with_backoff_and_says_why() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    seal.fails(SealErrorClass::Unreachable);
    let server = server.under(set(&[&seal]));
    let before = seal.calls();
    server.node.start();
    until(&server, async || seal.calls() >= before + 8).await;
    assert_eq!(server.get("sys/seal-status", "").await.ok().body["sealed_reason"], "unreachable");
    let started = seal.calls();
    for _ in 0..300 {
        server.clock.advance(Duration::from_secs(1));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    let calls = seal.calls() - started;
    assert!((4..=7).contains(&calls), "{calls} calls in 5 minutes");
    seal.set(Behaviour::Well);
    until(&server, async || !server.node.state().is_sealed).await;
    assert!(server.accepts(ROOT).await);
}

#[tokio::test]
async fn a_server_that_is_sealed_on_request_waits_for_a_quorum() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    server.node.start();
    server.post("sys/seal", ROOT, Value::Null).await.is(204);
    until(&server, async || server.node.state().is_sealed).await;
    let calls = seal.calls();
    for _ in 0..100 {
        server.clock.advance(Duration::from_secs(60));
        tokio::task::yield_now().await;
    }
    assert!(server.node.state().is_sealed && seal.calls() == calls);
    assert_eq!(server.get("sys/seal-status", "").await.ok().body["sealed_reason"], "manual");
    assert_eq!(unseal(&server, &server.shares[..2]).await.ok().body["sealed"], false);
    assert!(server.accepts(ROOT).await);
}

#[tokio::test]
async fn sec_a_stolen_store_with_its_configuration_opens_nothing() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    // The same configuration, with another key of the seal.
    let other = TestSeal::new();
    let (server, opened) = opens_by(server, &[&other]).await;
    assert!(!opened && server.node.state().is_sealed);
    assert_eq!(server.get("sys/seal-status", "").await.ok().body["sealed_reason"], "wrong_key");
    for key in ["00".repeat(33), "ab".repeat(32)] {
        assert!(server.post("sys/unseal", "", json!({ "key": key })).await.body["sealed"] != false);
    }
}

#[tokio::test]
async fn sec_cs06_a_changed_record_does_not_unseal() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    let stored = String::from_utf8(config(&server).await.to_bytes().unwrap().to_vec()).unwrap();
    let changed = stored.replace("\"threshold\":2", "\"threshold\":1");
    assert_ne!(stored, changed);
    // An unsealed server does not continue such a record.
    server.backend.commit(Batch::put(Key::new("barrier/seal").unwrap(), changed)).await.unwrap();
    let refused = server.post("sys/rotate/root", ROOT, Value::Null).await.is(500);
    assert!(refused.error().contains("changed by someone without the root key"), "{refused:?}");
    let (server, opened) = opens_by(server, &[&seal]).await;
    assert!(!opened && server.node.state().is_sealed);
    // One share would be a quorum.
    assert_ne!(unseal(&server, &server.shares[..2]).await.body["sealed"], false);
    server.backend.commit(Batch::put(Key::new("barrier/seal").unwrap(), stored)).await.unwrap();
    assert!(opens_by(server, &[&seal]).await.1);
}

#[tokio::test]
async fn a_new_root_key_needs_no_seal_and_opens_by_all_of_them() {
    let (a, b) = (TestSeal::new(), TestSeal::new());
    let mut server = server(&[&a, &b]).await;
    for seal in [&a, &b] {
        seal.set(Behaviour::Hangs);
    }
    for _ in 0..3 {
        server.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    }
    let generation = config(&server).await.generation;
    assert_eq!(generation, 4);
    for seal in [&a, &b] {
        seal.set(Behaviour::Well);
        let opened;
        (server, opened) = opens_by(server, &[seal]).await;
        assert_eq!(opened, Arc::ptr_eq(seal, &a), "the first seal is configured as a, the second is not");
    }
    let (server, opened) = opens_by(server, &[&TestSeal::new(), &b]).await;
    assert!(opened && server.accepts(ROOT).await);
}

#[tokio::test]
async fn slots_are_renewed_after_a_new_root_key_and_a_new_key_of_the_seal() {
    let (a, b) = (TestSeal::new(), TestSeal::new());
    let server = server(&[&a, &b]).await;
    server.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    until(&server, async || config(&server).await.slots.iter().filter(|s| s.kek_generation == 2).count() >= 2).await;
    a.rotate();
    let key_of = async |name: &str| {
        let config = config(&server).await;
        config.slot_named(name).unwrap().kek.as_ref().unwrap().key_id.clone()
    };
    until(&server, async || key_of("a").await == "v2").await;
    assert_eq!(key_of("b").await, "v1");
    let status = server.get("sys/seal-backend-status", "").await.ok();
    assert_eq!((&status.body["healthy"], &status.body["fully_wrapped"]), (&json!(true), &json!(true)), "{status:?}");
    let (server, opened) = opens_by(server, &[&a]).await;
    assert!(opened && server.accepts(ROOT).await);
}

#[tokio::test]
async fn a_seal_that_was_down_at_init_is_enrolled_later() {
    let (a, b) = (TestSeal::new(), TestSeal::new());
    b.fails(SealErrorClass::Unreachable);
    let server = server(&[&a, &b]).await;
    assert!(config(&server).await.slot_named("b").is_none());
    let status = server.get("sys/seal-backend-status", "").await.ok();
    assert_eq!((&status.body["healthy"], &status.body["fully_wrapped"]), (&json!(false), &json!(false)));
    b.set(Behaviour::Well);
    until(&server, async || config(&server).await.slot_named("b").is_some()).await;
    let (server, opened) = opens_by(server, &[&TestSeal::new(), &b]).await;
    assert!(opened && server.accepts(ROOT).await);
}

#[tokio::test]
async fn operators_add_remove_order_and_check_seals() {
    let (a, b) = (TestSeal::new(), TestSeal::of_kind("transit"));
    let seals = [a.configured("a"), manual(&b, "b")];
    let server = TestServer::with_seals(crate::SealSet::new(seals.into()).unwrap(), |_| {});
    let server = initialized(server, Some(SHAPE)).await;
    server.delete("sys/seals/b", ROOT).await;
    assert!(config(&server).await.slot_named("b").is_none());
    server.post("sys/seals/none", ROOT, Value::Null).await.is(400);
    b.fails(SealErrorClass::Denied);
    let refused = server.post("sys/seals/b", ROOT, Value::Null).await.is(503);
    assert!(refused.error().contains("denied"), "{refused:?}");
    b.set(Behaviour::Well);
    server.post("sys/seals/b", ROOT, Value::Null).await.is(204);
    server.post("sys/seals/b", ROOT, Value::Null).await.is(400);
    server.post("sys/seals/order", ROOT, json!({ "names": ["b"] })).await.is(400);
    server.post("sys/seals/order", ROOT, json!({ "names": ["b", "a"] })).await.is(204);
    let listed = server.get("sys/seals", ROOT).await.ok();
    let seals = listed.data()["seals"].as_array().unwrap();
    assert_eq!(
        (&seals[0]["name"], &seals[0]["type"], &seals[0]["enrolled"]),
        (&json!("b"), &json!("transit"), &json!(true))
    );
    a.set(Behaviour::OnlyWraps);
    let checked = server.post("sys/seals/a/check", ROOT, Value::Null).await.ok();
    assert_eq!((&checked.data()["healthy"], &checked.data()["error"]), (&json!(false), &json!("denied")));
    let refused = server.delete("sys/seals/a", ROOT).await.is(400);
    assert!(refused.error().contains("it would be enrolled again"), "{refused:?}");
    let server = server.under(crate::SealSet::new(vec![manual(&a, "a"), manual(&b, "b")]).unwrap());
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed));
    server.delete("sys/seals/a", ROOT).await.is(204);
    assert_eq!(config(&server).await.seal_slots().count(), 1);
    server.delete("sys/seals/break-glass", ROOT).await.is(204);
    let last = server.delete("sys/seals/b", ROOT).await.is(400);
    assert!(last.error().contains("the last seal cannot be removed"), "{last:?}");
    for (method, path) in
        [("GET", "sys/seals"), ("POST", "sys/seals/a"), ("DELETE", "sys/seals/a"), ("POST", "sys/seals/order")]
    {
        server.call(method, path, "", Value::Null).await.is(403);
    }
}

#[tokio::test]
async fn a_failed_check_never_seals_and_heals_nothing() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    let before = config(&server).await;
    for behaviour in [Behaviour::Hangs, Behaviour::OnlyWraps, Behaviour::WrapsGarbage] {
        seal.rotate();
        seal.set(behaviour);
        for _ in 0..20 {
            server.clock.advance(Duration::from_secs(120));
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        assert!(!server.node.state().is_sealed && server.accepts(ROOT).await);
        assert_eq!(config(&server).await, before, "{behaviour:?}");
    }
    let status = server.get("sys/seal-backend-status", "").await.ok();
    assert_eq!(status.body["healthy"], false);
}

#[tokio::test]
async fn a_round_without_slots_of_the_configuration_fails() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    let server = server.under(set_of(&[("other", &seal)]));
    let outcome = round_now(&server.node.lifecycle).await.unwrap();
    assert!(matches!(outcome, RoundOutcome::Failed(classes) if classes == [SealErrorClass::Misconfigured]));
    // The recovery keys still open.
    assert_eq!(unseal(&server, &server.shares[..2]).await.ok().body["sealed"], false);
}

#[tokio::test]
async fn rl22_requests_do_not_slow_down_while_every_seal_hangs() {
    let (a, b) = (TestSeal::new(), TestSeal::new());
    let server = server(&[&a, &b]).await;
    for behaviour in [Behaviour::Hangs, Behaviour::Fails(SealErrorClass::Denied), Behaviour::OnlyWraps] {
        a.set(behaviour);
        b.set(Behaviour::Hangs);
        server.clock.advance(Duration::from_secs(3600));
        tokio::task::yield_now().await;
        // The clock stands still: a request that waited for a seal would never end.
        for n in 0..100 {
            let path = format!("secret/data/{n}");
            server.post(&path, ROOT, json!({ "data": { "n": n } })).await;
            server.get("sys/seal-status", "").await.ok();
        }
        server.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
        server.post("sys/rotate", ROOT, json!({})).await.ok();
        assert!(server.accepts(ROOT).await && !server.node.state().is_sealed);
    }
}

#[tokio::test]
async fn sixteen_seals_fit_into_the_record() {
    let seals: Vec<_> = (0..16).map(|_| TestSeal::new()).collect();
    let names: Vec<String> = (0..16).map(|n| format!("{n:0>128}")).collect();
    let set = || set_of(&names.iter().map(String::as_str).zip(&seals).collect::<Vec<_>>());
    let server = initialized(TestServer::with_seals(set(), |_| {}), Some(SHAPE)).await;
    assert_eq!(config(&server).await.seal_slots().count(), 16);
    let server = server.under(set());
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed));
}
