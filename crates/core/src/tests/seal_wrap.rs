//! Seal wrap: which values are wrapped, what opens them, and `sys/sealwrap/rewrap`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::seal::SealErrorClass;
use keepfast_storage::{Backend as _, Batch, Index, Key, MemoryBackend, SealRecord, Watch, Write};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::rewrap;
use crate::seal::SealConfig;
use crate::seal::record::WayIn;
use crate::seal::test_seal::TestSeal;
use crate::tests::fixture::{ROOT, TestServer};
use crate::tests::raft::Pair;
use crate::tests::seals::{SHAPE, config, initialized, manual, server, set, unseal, until};
use crate::unseal::by_seals::{RoundOutcome, round};

/// The headers of the records below the mount at a path: the generation of the wrap key; `None` for one that is not wrapped.
fn forms(server: &TestServer, mount: &str) -> BTreeMap<String, Option<u32>> {
    let prefix = server.unsealed().engines.mounts.router().at(mount).unwrap().storage_prefix();
    let records = server.backend.memory().records();
    let below = records.iter().filter_map(|(key, value)| Some((key.as_str().strip_prefix(&prefix)?.to_owned(), value)));
    below
        .map(|(key, value)| (key, (value[0] == 2).then(|| u32::from_le_bytes(value[5..9].try_into().unwrap()))))
        .collect()
}

/// Mounts transit with a key, and returns a ciphertext.
pub(super) async fn with_transit(server: &TestServer) -> Value {
    server.post("sys/mounts/transit", ROOT, json!({ "type": "transit" })).await.is(204);
    server.post("transit/keys/k", ROOT, json!({})).await.ok();
    let sealed = server.post("transit/encrypt/k", ROOT, json!({ "plaintext": "YWJj" })).await.ok();
    sealed.data()["ciphertext"].clone()
}

async fn decrypts(server: &TestServer, ciphertext: &Value) -> bool {
    let opened = server.post("transit/decrypt/k", ROOT, json!({ "ciphertext": ciphertext })).await;
    opened.status == 200 && opened.data()["plaintext"] == "YWJj"
}

async fn state(server: &TestServer) -> (bool, [u64; 3]) {
    let state = server.get("sys/sealwrap/rewrap", ROOT).await.ok();
    let counts = ["processed", "succeeded", "failed"].map(|name| state.data()["entries"][name].as_u64().unwrap());
    (state.data()["is_running"].as_bool().unwrap(), counts)
}

pub(super) async fn rewrapped(server: &TestServer) -> [u64; 3] {
    server.post("sys/sealwrap/rewrap", ROOT, Value::Null).await.is(204);
    until(server, async || !state(server).await.0).await;
    state(server).await.1
}

async fn restarted(server: &TestServer) {
    server.node.lifecycle.seal().await;
    assert!(server.node.lifecycle.unseal(&server.shares).await.unwrap());
}

#[tokio::test]
async fn the_first_wrapped_value_adds_the_wrap_key_to_the_record() {
    let server = TestServer::new().await;
    server.post("secret/data/a", ROOT, json!({ "data": { "k": "v" } })).await.ok();
    server.post("sys/auth/userpass", ROOT, json!({ "type": "userpass" })).await.is(204);
    let before = config(&server).await;
    assert_eq!(before.wrap_generation, 0);
    let text = String::from_utf8(before.to_bytes().unwrap().to_vec()).unwrap();
    assert!(!text.contains("wrap"), "the record has the form of before: {text}");
    let ciphertext = with_transit(&server).await;
    let after = config(&server).await;
    assert_eq!((after.wrap_generation, after.generation), (1, before.generation));
    assert_eq!(forms(&server, "transit/")["key/k"], Some(1));
    assert!(forms(&server, "secret/").values().all(Option::is_none));
    for _ in 0..2 {
        restarted(&server).await;
        assert!(decrypts(&server, &ciphertext).await);
    }
    server.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    server.post("sys/rotate", ROOT, Value::Null).await.ok();
    restarted(&server).await;
    assert!(decrypts(&server, &ciphertext).await);
}

#[tokio::test]
async fn a_mount_with_seal_wrap_wraps_all_its_values() {
    let server = TestServer::new().await;
    for (path, body) in [("mounts/wrapped", json!({ "type": "kv" })), ("auth/wrapped", json!({ "type": "userpass" }))] {
        let mut body = body;
        body["seal_wrap"] = true.into();
        server.post(&format!("sys/{path}"), ROOT, body).await.is(204);
    }
    server.post("wrapped/a/b", ROOT, json!({ "k": "v" })).await.is(204);
    server.post("auth/wrapped/users/u", ROOT, json!({ "password": "p" })).await.is(204);
    for mount in ["wrapped/", "auth/wrapped/"] {
        let forms = forms(&server, mount);
        assert!(!forms.is_empty() && forms.values().all(|form| *form == Some(1)), "{mount} {forms:?}");
    }
    for (list, path) in [("sys/mounts", "wrapped/"), ("sys/auth", "wrapped/")] {
        assert_eq!(server.get(list, ROOT).await.ok().data()[path]["seal_wrap"], true);
    }
    restarted(&server).await;
    assert_eq!(server.get("wrapped/a/b", ROOT).await.ok().data()["k"], "v");
    server.post("auth/wrapped/login/u", "", json!({ "password": "p" })).await.ok();
    server.delete("sys/mounts/wrapped", ROOT).await.is(204);
}

#[tokio::test]
async fn secrets_of_engines_are_wrapped_by_default() {
    let server = TestServer::new().await;
    server.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await.is(204);
    server.post("auth/approle/role/r", ROOT, json!({})).await.is(204);
    let wrapped = forms(&server, "auth/approle/").into_iter().filter(|(_, form)| form.is_some());
    assert_eq!(wrapped.map(|(key, _)| key).collect::<Vec<_>>(), ["hmac-key"]);
    let registry = server.unsealed().engines.mounts.registry().clone();
    let wrapped = |engine: &str| registry.all().iter().find(|e| e.engine == engine).unwrap().traits.wrapped;
    assert_eq!(wrapped("transit"), ["key/", "wrapping-key"]);
    assert_eq!(wrapped("database"), ["config/", "static-role/", "rotating/"]);
    assert!(["kv", "cubbyhole", "system", "userpass"].iter().all(|engine| wrapped(engine).is_empty()));
}

#[tokio::test]
async fn disable_sealwrap_wraps_nothing_and_a_rewrap_unwraps() {
    let mut server = TestServer::new().await;
    let ciphertext = with_transit(&server).await;
    server.settings.disable_sealwrap = true;
    server.restarted().await;
    assert!(decrypts(&server, &ciphertext).await, "a wrapped value stays readable");
    server.post("sys/mounts/wrapped", ROOT, json!({ "type": "kv", "seal_wrap": true })).await.is(204);
    server.post("wrapped/a", ROOT, json!({ "k": "v" })).await.is(204);
    assert_eq!(forms(&server, "wrapped/")["plain/a"], None);
    assert_eq!(forms(&server, "transit/")["key/k"], Some(1));
    let sanitized = server.get("sys/config/state/sanitized", ROOT).await.ok();
    assert_eq!(sanitized.data()["disable_sealwrap"], true);
    assert_eq!(rewrapped(&server).await, [1, 1, 0]);
    assert_eq!(forms(&server, "transit/")["key/k"], None);
    assert!(decrypts(&server, &ciphertext).await);
    server.settings.disable_sealwrap = false;
    server.restarted().await;
    assert_eq!(rewrapped(&server).await, [2, 2, 0]);
    assert_eq!((forms(&server, "transit/")["key/k"], forms(&server, "wrapped/")["plain/a"]), (Some(2), Some(2)));
    assert!(decrypts(&server, &ciphertext).await);
}

#[tokio::test]
async fn a_rewrap_puts_all_values_under_another_key_and_ends_the_former() {
    let server = TestServer::new().await;
    assert_eq!(state(&server).await, (false, [0, 0, 0]));
    let ciphertext = with_transit(&server).await;
    for name in 0..250 {
        server.post(&format!("transit/keys/k{name}"), ROOT, json!({})).await.ok();
    }
    for generation in 2..4 {
        assert_eq!(rewrapped(&server).await, [251, 251, 0]);
        assert!(
            forms(&server, "transit/").iter().all(|(key, form)| !key.starts_with("key/") || *form == Some(generation))
        );
        let keys = server.unsealed().barrier.wrap_keys();
        assert_eq!((keys.generation(), keys.has_former()), (generation, false));
        assert_eq!(config(&server).await.wrap_generation, generation);
        assert!(decrypts(&server, &ciphertext).await);
        restarted(&server).await;
        assert!(decrypts(&server, &ciphertext).await);
    }
}

#[tokio::test]
async fn a_rewrap_that_runs_is_not_begun_again() {
    let server = TestServer::new().await;
    with_transit(&server).await;
    let unsealed = server.unsealed();
    // The background task does not run between the two.
    assert!(rewrap::begin(&unsealed).await.unwrap());
    assert!(!rewrap::begin(&unsealed).await.unwrap());
    assert_eq!(config(&server).await.wrap_generation, 2);
    let running = server.post("sys/sealwrap/rewrap", ROOT, Value::Null).await;
    assert!([200, 204].contains(&running.status), "{running:?}");
    until(&server, async || !state(&server).await.0).await;
    let policy = r#"path "sys/sealwrap/rewrap" { capabilities = ["read"] }"#;
    server.policy("reader", policy).await;
    let reader = server.token(json!({ "policies": ["reader"] })).await;
    server.get("sys/sealwrap/rewrap", &reader).await.ok();
    server.post("sys/sealwrap/rewrap", &reader, Value::Null).await.is(403);
}

/// The batches that a storage applies.
#[derive(Default)]
struct Applied(Mutex<Vec<Vec<Write>>>);

impl Watch for Applied {
    fn applied(&self, _: Index, writes: &[Write]) {
        self.0.lock().push(writes.to_vec());
    }

    fn replaced(&self, _: Index) {}
}

/// Every state of the storage between the commits of a rewrap, as a kill leaves it: the next process completes it.
#[tokio::test]
async fn a_rewrap_that_is_killed_after_any_commit_is_completed() {
    let server = TestServer::new().await;
    let ciphertext = with_transit(&server).await;
    let before = MemoryBackend::new();
    before.replace_with(server.backend.memory());
    let applied = Arc::new(Applied::default());
    let watch: Arc<dyn Watch> = applied.clone();
    server.backend.watch(Arc::downgrade(&watch));
    rewrapped(&server).await;
    let batches = std::mem::take(&mut *applied.0.lock());
    assert!(batches.len() >= 6, "{}", batches.len());
    for killed in 1..=batches.len() {
        let state_then = MemoryBackend::new();
        state_then.replace_with(&before);
        for writes in &batches[..killed] {
            state_then.commit(Batch { reads: Vec::new(), writes: writes.clone() }).await.unwrap();
        }
        server.backend.memory().replace_with(&state_then);
        until(&server, async || !server.node.lifecycle.is_sealed()).await;
        let is_complete = async || !state(&server).await.0 && !server.unsealed().barrier.wrap_keys().has_former();
        until(&server, is_complete).await;
        assert_eq!(config(&server).await.wrap_generation, 2, "{killed}");
        assert_eq!(forms(&server, "transit/")["key/k"], Some(2), "{killed}");
        assert!(decrypts(&server, &ciphertext).await);
    }
}

#[tokio::test]
async fn recovery_keys_open_wrapped_values_when_the_seal_is_lost() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    assert_eq!(config(&server).await.wrap_generation, 1, "the recovery keys are not at hand later");
    let ciphertext = with_transit(&server).await;
    assert_eq!(forms(&server, "transit/")["key/k"], Some(1));
    seal.fails(SealErrorClass::Unreachable);
    let server = server.under(set(&[&seal]));
    assert_eq!(unseal(&server, &server.shares[..2]).await.ok().body["sealed"], false);
    assert!(decrypts(&server, &ciphertext).await);
    assert_eq!(rewrapped(&server).await, [1, 1, 0]);
    assert!(decrypts(&server, &ciphertext).await);
}

#[tokio::test]
async fn a_seal_that_is_added_opens_wrapped_values_without_the_others() {
    let (a, b) = (TestSeal::new(), TestSeal::of_kind("transit"));
    let seals = || crate::SealSet::new(vec![a.configured("a"), manual(&b, "b")]).unwrap();
    let server = initialized(TestServer::with_seals(set(&[&a]), |_| {}), None).await;
    let ciphertext = with_transit(&server).await;
    let server = server.under(seals());
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed));
    a.fails(SealErrorClass::Unreachable);
    server.post("sys/seals/b", ROOT, Value::Null).await.is(204);
    let server = server.under(seals());
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed));
    assert!(decrypts(&server, &ciphertext).await);
}

/// The storage of a server of before wrap keys: with a seal, and recovery keys that were not sent since.
async fn former(seal: &Arc<TestSeal>) -> TestServer {
    let server = TestServer::with_seals(set(&[seal]), |settings| settings.disable_sealwrap = true);
    let mut server = initialized(server, Some(SHAPE)).await;
    assert_eq!(config(&server).await.wrap_generation, 0);
    server.settings.disable_sealwrap = false;
    let server = server.under(set(&[seal]));
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed));
    server
}

#[tokio::test]
async fn a_storage_of_before_wraps_once_a_quorum_of_recovery_keys_was_sent() {
    let seal = TestSeal::new();
    let server = former(&seal).await;
    let ciphertext = with_transit(&server).await;
    assert_eq!((config(&server).await.wrap_generation, forms(&server, "transit/")["key/k"]), (0, None));
    let refused = server.post("sys/sealwrap/rewrap", ROOT, Value::Null).await.is(503);
    assert!(refused.error().contains("a quorum of the recovery keys"), "{refused:?}");
    assert_eq!(state(&server).await, (false, [0, 0, 0]));
    for share in &server.shares[..2] {
        let body = json!({ "key": hex::encode(share.expose()) });
        server.post("sys/seals/break-glass", ROOT, body).await.ok();
    }
    assert_eq!(rewrapped(&server).await, [1, 1, 0]);
    assert_eq!(forms(&server, "transit/")["key/k"], Some(1));
    seal.fails(SealErrorClass::Denied);
    let server = server.under(set(&[&seal]));
    unseal(&server, &server.shares[..2]).await.ok();
    assert!(decrypts(&server, &ciphertext).await);
}

#[tokio::test]
async fn no_request_calls_a_seal_for_a_wrapped_value() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    let calls = seal.calls();
    seal.fails(SealErrorClass::Unreachable);
    let ciphertext = with_transit(&server).await;
    for name in 0..20 {
        server.post(&format!("transit/keys/k{name}"), ROOT, json!({})).await.ok();
        assert!(decrypts(&server, &ciphertext).await);
    }
    assert_eq!(seal.calls(), calls);
}

#[tokio::test]
async fn new_recovery_and_unseal_keys_keep_wrapped_values_readable() {
    let server = TestServer::sealed(SHAPE).await;
    assert!(server.node.lifecycle.unseal(&server.shares[..2]).await.unwrap());
    let ciphertext = with_transit(&server).await;
    let init = json!({ "secret_shares": 3, "secret_threshold": 2 });
    let nonce = server.post("sys/rotate/root/init", ROOT, init).await.ok().data()["nonce"].clone();
    let mut made = Value::Null;
    for share in &server.shares[..2] {
        let body = json!({ "key": hex::encode(share.expose()), "nonce": nonce });
        made = server.post("sys/rotate/root/update", ROOT, body).await.ok().data().clone();
    }
    let keys = made["keys"].as_array().unwrap();
    let share = |key: &Value| keepfast_crypto::secret::SecretBytes::new(hex::decode(key.as_str().unwrap()).unwrap());
    let new: Vec<_> = keys.iter().map(share).collect();
    server.node.lifecycle.seal().await;
    assert!(!server.node.lifecycle.unseal(&server.shares[..2]).await.unwrap());
    assert!(server.node.lifecycle.unseal(&new[..2]).await.unwrap());
    assert!(decrypts(&server, &ciphertext).await);
    assert_eq!(rewrapped(&server).await, [1, 1, 0]);
}

#[tokio::test]
async fn a_migration_in_both_directions_keeps_wrapped_values_readable() {
    let seal = TestSeal::new();
    let server = TestServer::sealed(SHAPE).await;
    assert!(server.node.lifecycle.unseal(&server.shares[..2]).await.unwrap());
    let ciphertext = with_transit(&server).await;
    let disabled =
        || crate::SealSet::new(vec![crate::ConfiguredSeal { disabled: true, ..seal.configured("a") }]).unwrap();
    let mut server = server;
    for seals in [set(&[&seal]), disabled()] {
        server = server.under(seals);
        for share in &server.shares[..2] {
            let body = json!({ "key": hex::encode(share.expose()), "migrate": true });
            server.post("sys/unseal", "", body).await.ok();
        }
        assert!(!server.node.lifecycle.is_sealed());
        assert!(decrypts(&server, &ciphertext).await);
        assert_eq!(rewrapped(&server).await, [1, 1, 0]);
    }
    assert!(!config(&server).await.has_seals());
}

#[tokio::test]
async fn a_snapshot_of_before_the_wrap_key_and_of_after_it_are_restored() {
    let server = TestServer::new().await;
    let (without, with) = (MemoryBackend::new(), MemoryBackend::new());
    without.replace_with(server.backend.memory());
    let ciphertext = with_transit(&server).await;
    with.replace_with(server.backend.memory());
    assert_eq!(rewrapped(&server).await, [1, 1, 0]);
    for _ in 0..2 {
        server.backend.memory().replace_with(&with);
        until(&server, async || !server.node.lifecycle.is_sealed()).await;
        assert_eq!(forms(&server, "transit/")["key/k"], Some(1));
        assert!(decrypts(&server, &ciphertext).await);
        server.backend.memory().replace_with(&without);
        until(&server, async || !server.node.lifecycle.is_sealed()).await;
        assert_eq!(config(&server).await.wrap_generation, 0);
        server.post("transit/decrypt/k", ROOT, json!({ "ciphertext": ciphertext })).await.is(404);
    }
}

#[tokio::test]
async fn sec_canary_no_record_and_no_audit_entry_has_a_wrap_key() {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    with_transit(&server).await;
    let mut keys = vec![server.unsealed().barrier.wrap_keys()];
    rewrapped(&server).await;
    keys.push(server.unsealed().barrier.wrap_keys());
    let records: Vec<Vec<u8>> = server.backend.memory().records().iter().map(|(_, value)| value.to_vec()).collect();
    let stored = [records.concat(), server.audit("audit").into_bytes()].concat();
    for key in keys {
        let key = key.newest().unwrap().expose();
        for form in [key.to_vec(), hex::encode(key).into_bytes(), STANDARD.encode(key).into_bytes()] {
            assert!(memchr::memmem::find(&stored, &form[..16]).is_none());
        }
    }
}

#[tokio::test]
async fn a_node_that_joins_gets_the_wrap_key_with_the_root_key() {
    let pair = Pair::new().await;
    with_transit(&pair.leader).await;
    assert_eq!(forms(&pair.leader, "transit/")["key/k"], Some(1));
    pair.will_receive();
    pair.join().await;
    assert_eq!(pair.unseal().await.ok().body["sealed"], json!(false));
    assert_eq!(pair.node.unsealed().barrier.wrap_keys().generation(), 1);
    pair.node.get("transit/keys/k", ROOT).await.ok();
}

#[tokio::test]
async fn sec_tl09_a_value_under_an_unknown_wrap_key_affects_no_other() {
    let server = TestServer::new().await;
    with_transit(&server).await;
    server.post("transit/keys/other", ROOT, json!({})).await.ok();
    let prefix = server.unsealed().engines.mounts.router().at("transit/").unwrap().storage_prefix();
    let key = Key::new(format!("{prefix}key/k")).unwrap();
    let mut record = server.backend.get(&key).await.unwrap().unwrap().to_vec();
    record[5] = 9;
    server.backend.commit(Batch::put(key, record)).await.unwrap();
    server.get("transit/keys/k", ROOT).await.is(500);
    server.get("transit/keys/other", ROOT).await.ok();
    restarted(&server).await;
    server.get("transit/keys/k", ROOT).await.is(500);
    server.get("transit/keys/other", ROOT).await.ok();
    assert_eq!(rewrapped(&server).await, [2, 1, 1]);
    server.get("transit/keys/other", ROOT).await.ok();
    server.delete("sys/mounts/transit", ROOT).await.is(204);
}

#[tokio::test]
async fn a_slot_without_its_wrap_keys_stops_no_other_and_gets_them_again() {
    let (a, b) = (TestSeal::new(), TestSeal::of_kind("transit"));
    let server = server(&[&a, &b]).await;
    let ciphertext = with_transit(&server).await;
    let mut damaged = config(&server).await;
    let from = damaged.to_bytes().unwrap();
    let key = damaged.quorum(&server.shares[..2]).unwrap();
    let root = damaged.open(&WayIn::Shares(key)).unwrap().unwrap();
    damaged.damage_wrap_keys("a", &root);
    server.node.lifecycle.seal().await;
    SealRecord::replace(&*server.node.lifecycle.parts.backend, &from, damaged.to_bytes().unwrap()).await.unwrap();
    let server = server.under(set(&[&a, &b]));
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed), "by the other seal");
    assert!(decrypts(&server, &ciphertext).await);
    let wrap_of = |config: &SealConfig| config.slot_named("a").unwrap().wrap.clone();
    let before = wrap_of(&damaged);
    until(&server, async || wrap_of(&config(&server).await) != before).await;
    b.fails(SealErrorClass::Unreachable);
    let server = server.under(set(&[&a, &b]));
    assert!(matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed), "by its own slot");
    assert!(decrypts(&server, &ciphertext).await);
}
