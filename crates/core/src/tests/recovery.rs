//! Recovery keys: break-glass, their rotation, root tokens, and migration between seals and shares.

use std::sync::Arc;

use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::UnauthedEndpoints;
use keepfast_framework::seal::SealErrorClass;
use keepfast_storage::{Backend as _, Batch, Key};
use serde_json::{Value, json};

use crate::ConfiguredSeal;
use crate::SealSet;
use crate::seal::test_seal::TestSeal;
use crate::seal::{SealShape, WayIn};
use crate::tests::fixture::{ROOT, RequestOptions, TestResponse, TestServer, incoming};
use crate::tests::seals::{SHAPE, config, initialized, manual, server, set, unseal, until};
use crate::unseal::by_seals::{RoundOutcome, round};

const WRONG: &str = "invalid key: failed to verify recovery key: recovery key does not match submitted values";

fn hexed(share: &SecretBytes) -> String {
    hex::encode(share.expose())
}

fn shares(keys: &Value) -> Vec<SecretBytes> {
    let keys = keys.as_array().unwrap();
    keys.iter().map(|k| SecretBytes::new(hex::decode(k.as_str().unwrap()).unwrap())).collect()
}

async fn give(server: &TestServer, path: &str, share: &SecretBytes, nonce: &Value) -> TestResponse {
    server.post(path, ROOT, json!({ "key": hexed(share), "nonce": nonce })).await
}

/// A request without a token to a listener that enables the unauthenticated ceremonies.
async fn open(server: &TestServer, method: &str, path: &str, body: Value) -> TestResponse {
    let body = (!body.is_null()).then(|| body.to_string());
    let mut request = incoming(method, path, RequestOptions { body, ..RequestOptions::default() });
    request.open = UnauthedEndpoints { rekey: true, generate_root: true };
    let response = server.node.handle(request).await;
    let status = response.status().0;
    TestResponse { status, body: serde_json::from_slice(&response.into_body()).unwrap_or_default() }
}

/// The server in a new process, with these seals, all of which fail.
async fn dead(server: TestServer, seal: &Arc<TestSeal>) -> TestServer {
    seal.fails(SealErrorClass::Unreachable);
    let server = server.under(set(&[seal]));
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Failed(_)));
    server
}

#[tokio::test]
async fn recovery_keys_unseal_when_every_seal_is_dead() {
    let seal = TestSeal::new();
    let server = dead(server(&[&seal]).await, &seal).await;
    let foreign = SecretBytes::new([vec![0xab; 32], vec![7]].concat());
    let wrong = unseal(&server, &[server.shares[0].clone(), foreign]).await.is(400);
    assert_eq!(wrong.error(), WRONG);
    assert_eq!(server.get("sys/seal-status", "").await.ok().body["progress"], 0);
    let progress = unseal(&server, &server.shares[2..]).await.ok();
    assert_eq!((&progress.body["progress"], &progress.body["t"]), (&json!(1), &json!(2)));
    assert_eq!(unseal(&server, &server.shares[..1]).await.ok().body["sealed"], false);
    assert!(server.accepts(ROOT).await);
    // The seal is healed later, and its slot opens again.
    seal.set(crate::seal::test_seal::Behaviour::Well);
    let server = server.under(set(&[&seal]));
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed));
}

#[tokio::test]
async fn sec_shares_and_storage_without_break_glass_open_nothing() {
    let seal = TestSeal::new();
    let new = TestServer::with_seals(set(&[&seal]), |settings| settings.disable_break_glass = true);
    let server = dead(initialized(new, Some(SHAPE)).await, &seal).await;
    assert_eq!(config(&server).await.slots.len(), 1);
    let refused = unseal(&server, &server.shares[..2]).await.is(503);
    assert!(refused.error().contains("no seal works: unreachable"), "{refused:?}");
    assert!(!server.node.lifecycle.unseal(&server.shares).await.unwrap());
    // The quorum permits a seal that works.
    seal.set(crate::seal::test_seal::Behaviour::Well);
    server.post("sys/unseal", "", json!({ "reset": true })).await.ok();
    assert_eq!(unseal(&server, &server.shares[..2]).await.ok().body["sealed"], false);
}

#[tokio::test]
async fn break_glass_is_turned_off_by_a_token_and_on_by_a_quorum() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    let path = "sys/seals/break-glass";
    server.delete(path, ROOT).await.is(204);
    assert!(!config(&server).await.opens_by_shares());
    let enable = async |share: &SecretBytes| server.post(path, ROOT, json!({ "key": hexed(share) })).await;
    assert_eq!(enable(&server.shares[0]).await.ok().data()["progress"], 1);
    enable(&server.shares[0]).await.is(400);
    enable(&SecretBytes::new([vec![0xab; 32], vec![7]].concat())).await.is(400);
    assert!(!config(&server).await.opens_by_shares());
    enable(&server.shares[0]).await.ok();
    assert_eq!(enable(&server.shares[2]).await.ok().data()["complete"], true);
    assert!(config(&server).await.opens_by_shares());
    server.post(path, "", json!({ "key": "00" })).await.is(403);
    let server = dead(server, &seal).await;
    assert_eq!(unseal(&server, &server.shares[..2]).await.ok().body["sealed"], false);
}

#[tokio::test]
async fn the_leader_drops_the_slot_of_shares_that_the_configuration_forbids() {
    let seal = TestSeal::new();
    let mut server = server(&[&seal]).await;
    server.settings.disable_break_glass = true;
    let server = server.under(set(&[&seal]));
    round(&server.node.lifecycle).await.unwrap();
    until(&server, async || !config(&server).await.opens_by_shares()).await;
    server.post("sys/seals/break-glass", ROOT, json!({ "key": hexed(&server.shares[0]) })).await.is(400);
    let server = dead(server, &seal).await;
    unseal(&server, &server.shares[..2]).await.is(503);
}

#[tokio::test]
async fn a_rotation_of_the_root_key_has_one_share_that_nobody_gets() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    let init = json!({ "secret_shares": 3, "secret_threshold": 2 });
    let started = server.post("sys/rotate/root/init", ROOT, init.clone()).await.ok();
    let data = started.data();
    assert_eq!((&data["n"], &data["t"], &data["required"]), (&json!(1), &json!(1), &json!(2)));
    give(&server, "sys/rotate/root/update", &server.shares[0], &data["nonce"]).await.ok();
    let done = give(&server, "sys/rotate/root/update", &server.shares[1], &data["nonce"]).await.ok();
    assert_eq!((&done.data()["complete"], &done.data()["keys"]), (&json!(true), &json!([])));
    assert_eq!(config(&server).await.generation, 2);
    let started = open(&server, "POST", "sys/rekey/init", init).await.ok();
    assert_eq!((&started.body["n"], &started.body["t"], &started.body["required"]), (&json!(0), &json!(0), &json!(2)));
    for share in &server.shares[..2] {
        let body = json!({ "key": hexed(share), "nonce": started.body["nonce"] });
        open(&server, "POST", "sys/rekey/update", body).await.ok();
    }
    assert_eq!(config(&server).await.generation, 3);
    let server = dead(server, &seal).await;
    assert_eq!(unseal(&server, &server.shares[1..]).await.ok().body["sealed"], false, "the recovery keys stay");
}

#[tokio::test]
async fn sec_cs05_old_recovery_keys_open_nothing_after_their_rotation() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    let init = json!({ "secret_shares": 4, "secret_threshold": 3, "require_verification": true });
    let started = server.post("sys/rotate/recovery/init", ROOT, init).await.ok();
    let data = started.data();
    assert_eq!((&data["n"], &data["t"], &data["required"]), (&json!(4), &json!(3), &json!(2)));
    // The rotation of the root key is another one.
    assert_eq!(server.get("sys/rotate/root/init", ROOT).await.ok().data()["started"], false);
    give(&server, "sys/rotate/recovery/update", &server.shares[0], &data["nonce"]).await.ok();
    let made = give(&server, "sys/rotate/recovery/update", &server.shares[1], &data["nonce"]).await.ok();
    let (new, proof) = (shares(&made.data()["keys"]), &made.data()["verification_nonce"]);
    let before = config(&server).await;
    for share in &new[..2] {
        give(&server, "sys/rotate/recovery/verify", share, proof).await.ok();
    }
    assert_eq!(config(&server).await, before, "not yet");
    let done = give(&server, "sys/rotate/recovery/verify", &new[2], proof).await.ok();
    assert_eq!(done.data()["complete"], true);
    assert_eq!(config(&server).await.shape(), SealShape { shares: 4, threshold: 3 });
    // The older form, without a token.
    let init = json!({ "secret_shares": 1, "secret_threshold": 1 });
    let nonce = open(&server, "POST", "sys/rekey-recovery-key/init", init).await.ok().body["nonce"].clone();
    let mut newest = Vec::new();
    for share in &new[1..] {
        let body = json!({ "key": hexed(share), "nonce": nonce });
        let step = open(&server, "POST", "sys/rekey-recovery-key/update", body).await.ok();
        if step.body["complete"] == true {
            newest = shares(&step.body["keys"]);
        }
    }
    let server = dead(server, &seal).await;
    for old in [&server.shares[..], &new[..]] {
        assert!(!server.node.lifecycle.unseal(old).await.unwrap());
    }
    assert_eq!(unseal(&server, &newest).await.ok().body["sealed"], false);
}

#[tokio::test]
async fn the_first_recovery_keys_are_created_by_a_sudo_token() {
    let seal = TestSeal::new();
    let server = initialized(TestServer::with_seals(set(&[&seal]), |_| {}), None).await;
    let status = server.get("sys/seal-status", "").await.ok();
    assert_eq!((&status.body["t"], &status.body["n"]), (&json!(0), &json!(0)));
    server.policy("weak", r#"path "sys/rotate/recovery/init" { capabilities = ["update"] }"#).await;
    let weak = server.token(json!({ "policies": ["weak"] })).await;
    let init = json!({ "secret_shares": 3, "secret_threshold": 2 });
    server.post("sys/rotate/recovery/init", &weak, init.clone()).await.is(403);
    open(&server, "POST", "sys/rekey-recovery-key/init", init.clone()).await.is(400);
    let made = server.post("sys/rotate/recovery/init", ROOT, init).await.ok();
    assert_eq!(made.data()["complete"], true);
    let keys = shares(&made.data()["keys"]);
    let server = dead(server, &seal).await;
    assert_eq!(unseal(&server, &keys[..2]).await.ok().body["sealed"], false);
    // A sealed server without recovery keys has no other way than its seals.
    let bare = initialized(TestServer::with_seals(set(&[&seal]), |_| {}), None);
    seal.set(crate::seal::test_seal::Behaviour::Well);
    let bare = dead(bare.await, &seal).await;
    bare.post("sys/unseal", "", json!({ "key": "ab".repeat(33) })).await.is(400);
}

#[tokio::test]
async fn recovery_keys_generate_a_root_token_without_a_seal() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    seal.fails(SealErrorClass::Unreachable);
    let attempt = server.post("sys/generate-root-token/attempt", ROOT, json!({})).await.ok();
    assert_eq!(attempt.data()["required"], 2);
    let nonce = &attempt.data()["nonce"];
    give(&server, "sys/generate-root-token/update", &server.shares[0], nonce).await.ok();
    let done = give(&server, "sys/generate-root-token/update", &server.shares[1], nonce).await.ok();
    let body = json!({ "encoded_token": done.data()["encoded_token"], "otp": attempt.data()["otp"] });
    let token = server.post("sys/decode-token", "", body).await.ok();
    assert!(server.accepts(token.data()["token"].as_str().unwrap()).await);
}

#[tokio::test]
async fn recovery_keys_are_refused_by_a_server_with_unseal_keys() {
    let server = TestServer::new().await;
    let init = json!({ "secret_shares": 3, "secret_threshold": 2 });
    server.post("sys/rotate/recovery/init", ROOT, init.clone()).await.is(400);
    open(&server, "POST", "sys/rekey-recovery-key/init", init).await.is(400);
    let status = server.get("sys/seal-status", "").await.ok();
    assert!(status.body["recovery_seal"] == false && status.body.get("recovery_seal_type").is_none());
    let unknown = server.post("sys/seals/a", ROOT, Value::Null).await.is(400);
    assert!(unknown.error().contains("has no seal \"a\""), "{unknown:?}");
    server.post("sys/seals/break-glass", ROOT, json!({ "key": "ab".repeat(32) })).await.is(400);
    server.delete("sys/seals/break-glass", ROOT).await.is(400);
}

async fn migrate(server: &TestServer, shares: &[SecretBytes]) -> TestResponse {
    let mut last = None;
    for share in shares {
        let body = json!({ "key": hexed(share), "migrate": true });
        last = Some(server.post("sys/unseal", "", body).await);
    }
    last.unwrap()
}

fn disabled(seal: &Arc<TestSeal>, name: &str) -> ConfiguredSeal {
    ConfiguredSeal { disabled: true, ..seal.configured(name) }
}

/// Checks the wire of a pending migration, and migrates.
async fn migrates(server: &TestServer, kind: &str) {
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Idle));
    let status = server.get("sys/seal-status", "").await.ok();
    assert_eq!((&status.body["migration"], &status.body["type"]), (&json!(true), &json!(kind)));
    let refused = unseal(server, &server.shares[..1]).await.is(400);
    assert_eq!(refused.error(), "migrate option not provided and seal migration is pending");
    let done = migrate(server, &server.shares[..2]).await.ok();
    assert_eq!((&done.body["sealed"], &done.body["migration"]), (&json!(false), &json!(false)), "{done:?}");
    assert!(server.accepts(ROOT).await);
    let status = server.get("sys/seal-status", "").await.ok();
    assert_eq!((&status.body["migration"], &status.body["type"]), (&json!(false), &json!(kind)));
}

#[tokio::test]
async fn rl23_shares_and_seals_migrate_to_each_other_with_the_same_shares() {
    let (a, b) = (TestSeal::new(), TestSeal::of_kind("transit"));
    let server = TestServer::sealed(SHAPE).await;
    let refused = migrate(&server, &server.shares[..1]).await.is(400);
    assert_eq!(refused.error(), "can't perform a seal migration, no migration seal found");
    // Shares to a seal: the unseal keys become recovery keys.
    let server = server.under(set(&[&a]));
    migrates(&server, "static").await;
    let server = server.under(set(&[&a]));
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed));
    // One seal to another, also when the first one is dead.
    a.fails(SealErrorClass::Unreachable);
    let server = server.under(SealSet::new(vec![disabled(&a, "a"), b.configured("b")]).unwrap());
    migrates(&server, "transit").await;
    let server = server.under(SealSet::new(vec![b.configured("b")]).unwrap());
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed));
    assert!(config(&server).await.slot_named("a").is_none());
    // Seals to shares: the recovery keys become unseal keys.
    let server = server.under(SealSet::new(vec![disabled(&b, "b")]).unwrap());
    migrates(&server, "shamir").await;
    let server = server.under(SealSet::default());
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Idle));
    assert_eq!(unseal(&server, &server.shares[1..]).await.ok().body["sealed"], false);
}

#[tokio::test]
async fn a_migration_changes_nothing_unless_the_new_seal_works() {
    let seal = TestSeal::new();
    seal.set(crate::seal::test_seal::Behaviour::OnlyWraps);
    let server = TestServer::sealed(SHAPE).await.under(set(&[&seal]));
    let before = config(&server).await;
    let refused = migrate(&server, &server.shares[..2]).await.is(503);
    assert!(refused.error().contains("nothing was changed"), "{refused:?}");
    assert_eq!(config(&server).await, before);
    let server = server.under(SealSet::default());
    assert_eq!(unseal(&server, &server.shares[..2]).await.ok().body["sealed"], false);
}

#[tokio::test]
async fn rl23_a_killed_migration_leaves_the_old_way_or_the_new_one() {
    let seal = TestSeal::new();
    let server = Arc::new(TestServer::sealed(SHAPE).await.under(set(&[&seal])));
    let gate = server.backend.arm();
    let held = tokio::spawn({
        let server = server.clone();
        async move { migrate(&server, &server.shares[..2]).await }
    });
    gate.reached.notified().await;
    held.abort();
    let _ = held.await;
    assert!(!config(&server).await.has_seals(), "the commit was not made");
    let Ok(server) = Arc::try_unwrap(server) else { panic!("the server is in use") };
    let server = server.under(set(&[&seal]));
    migrates(&server, "static").await;
}

/// The record of the first version for this server, which is sealed by one unseal key.
async fn with_first_version(server: &TestServer) -> String {
    let config = config(server).await;
    let key = config.quorum(&server.shares).unwrap();
    let root = config.open(&WayIn::Shares(key.clone())).unwrap().unwrap();
    let sealed = crate::seal::record::sealed_v1(&key, &root);
    let (name, id) = (config.cluster_name, config.cluster_id);
    let record = format!(
        r#"{{"version":1,"custody":"shamir","shape":{{"shares":1,"threshold":1}},"sealed_root":"{sealed}","cluster_name":"{name}","cluster_id":"{id}"}}"#
    );
    let record = Batch::put(Key::new("barrier/seal").unwrap(), record);
    server.backend.commit(record).await.unwrap();
    id
}

#[tokio::test]
async fn a_record_of_version_1_unseals_rotates_and_migrates() {
    let one = SealShape { shares: 1, threshold: 1 };
    let server = TestServer::sealed(one).await;
    let id = with_first_version(&server).await;
    assert_eq!(config(&server).await.version, 1);
    let wrong = server.post("sys/unseal", "", json!({ "key": "ab".repeat(32) })).await.is(400);
    assert_eq!(wrong.error(), "Unsealing failed, invalid key");
    assert_eq!(unseal(&server, &server.shares).await.ok().body["sealed"], false);
    let attempt = server.post("sys/generate-root-token/attempt", ROOT, json!({})).await.ok();
    let nonce = &attempt.data()["nonce"];
    let done = give(&server, "sys/generate-root-token/update", &server.shares[0], nonce).await.ok();
    assert_eq!(done.data()["complete"], true);
    server.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    let rotated = config(&server).await;
    assert_eq!((rotated.version, rotated.generation, &rotated.cluster_id), (2, 2, &id));
    let server = server.under(SealSet::default());
    assert_eq!(unseal(&server, &server.shares).await.ok().body["sealed"], false);
    // New shares, and a migration, of the first version.
    let server = TestServer::sealed(one).await;
    with_first_version(&server).await;
    unseal(&server, &server.shares).await.ok();
    let init = json!({ "secret_shares": 1, "secret_threshold": 1 });
    let nonce = server.post("sys/rotate/root/init", ROOT, init).await.ok().data()["nonce"].clone();
    let made = give(&server, "sys/rotate/root/update", &server.shares[0], &nonce).await.ok();
    let server = server.under(SealSet::default());
    unseal(&server, &server.shares).await.is(400);
    assert_eq!(unseal(&server, &shares(&made.data()["keys"])).await.ok().body["sealed"], false);
    let seal = TestSeal::new();
    let server = TestServer::sealed(one).await;
    with_first_version(&server).await;
    let server = server.under(set(&[&seal]));
    assert_eq!(migrate(&server, &server.shares).await.ok().body["sealed"], false);
    assert_eq!(config(&server).await.kind(), "static");
}

#[tokio::test]
async fn seals_are_added_and_removed_without_downtime() {
    let seal = TestSeal::new();
    let server = TestServer::sealed(SHAPE).await;
    // As on a member of a cluster, which unseals by what the record has.
    let server = server.under(set(&[&seal]));
    let opened = server.node.lifecycle.unseal(&server.shares[..2]).await.unwrap();
    assert!(opened && server.get("sys/seal-status", "").await.ok().body["type"] == "shamir");
    server.post("sys/seals/a", ROOT, Value::Null).await.is(204);
    let server = server.under(SealSet::new(vec![manual(&seal, "a")]).unwrap());
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed));
    server.delete("sys/seals/a", ROOT).await.is(204);
    let status = server.get("sys/seal-status", "").await.ok();
    assert_eq!((&status.body["n"], &status.body["sealed"]), (&json!(3), &json!(false)));
    let server = server.under(SealSet::default());
    assert_eq!(unseal(&server, &server.shares[..2]).await.ok().body["sealed"], false);
}

#[tokio::test]
async fn a_server_whose_seals_are_all_disabled_is_initialized_with_unseal_keys() {
    let seal = TestSeal::new();
    let server = TestServer::with_seals(SealSet::new(vec![disabled(&seal, "a")]).unwrap(), |_| {});
    let made = server.post("sys/init", "", json!({ "secret_shares": 1, "secret_threshold": 1 })).await.ok();
    assert_eq!(unseal(&server, &shares(&made.body["keys"])).await.ok().body["sealed"], false);
    assert_eq!(seal.calls(), 0);
}
