//! Transit seals against a stand-in with the responses of the transit engine. The step `seals` of `cargo xtask test`
//! uses real servers.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::random;
use keepfast_framework::clock::{Clock, TestClock};
use keepfast_framework::seal::SealErrorClass;
use serde_json::json;

use super::*;
use crate::stand_in::{Received, StandIn};
use crate::stanza::tests::{Variables, options};
use crate::suite::{a_call_ends_at_its_timeout, build, build_within, failures_have_their_class, seal_suite};
use crate::{SealStanza, from_stanza};

/// The transit engine: one key with versions.
struct Engine {
    key: AeadKey,
    version: AtomicUsize,
    least: AtomicUsize,
    /// The TTL of the token in seconds.
    ttl: AtomicU64,
    /// Responses of the next renewals, the last one first.
    refusals: Mutex<Vec<(u16, String)>>,
}

impl Engine {
    fn new() -> Arc<Self> {
        let (version, least, ttl) = (AtomicUsize::new(1), AtomicUsize::new(1), AtomicU64::new(0));
        Arc::new(Engine { key: AeadKey::new(&random::key()), version, least, ttl, refusals: Mutex::default() })
    }

    fn respond(&self, request: &Received) -> (u16, String) {
        let errors = |status, text: &str| (status, json!({"errors": [text]}).to_string());
        if request.header("x-vault-token") != "hidden-token" {
            return errors(403, "permission denied");
        }
        let body = request.json();
        match request.uri.path() {
            "/v1/auth/token/renew-self" => {
                if let Some(refusal) = self.refusals.lock().pop() {
                    return refusal;
                }
                let auth = json!({"lease_duration": self.ttl.load(Ordering::SeqCst), "renewable": true});
                (200, json!({"auth": auth}).to_string())
            }
            "/v1/t/m/encrypt/k" => {
                let plaintext = STANDARD.decode(body["plaintext"].as_str().unwrap()).unwrap();
                let version = self.version.load(Ordering::SeqCst);
                let text = STANDARD.encode(self.key.seal(&version.to_be_bytes(), &plaintext));
                (200, json!({"data": {"ciphertext": format!("vault:v{version}:{text}")}}).to_string())
            }
            "/v1/t/m/decrypt/k" => {
                let text = body["ciphertext"].as_str().unwrap().to_owned();
                let mut parts = text.splitn(3, ':').skip(1);
                let version: usize = parts.next().unwrap()[1..].parse().unwrap();
                if version < self.least.load(Ordering::SeqCst) {
                    return errors(400, "ciphertext or signature version is disallowed by policy (too old)");
                }
                let sealed = STANDARD.decode(parts.next().unwrap_or_default()).unwrap_or_default();
                match self.key.open(&version.to_be_bytes(), &sealed) {
                    Ok(opened) => (200, json!({"data": {"plaintext": STANDARD.encode(opened)}}).to_string()),
                    Err(_) => errors(400, "cipher: message authentication failed"),
                }
            }
            "/v1/t/m/decrypt/none" | "/v1/t/m/encrypt/none" => errors(400, "encryption key not found"),
            _ => errors(404, "no handler for route"),
        }
    }
}

async fn engine() -> (Arc<Engine>, StandIn) {
    let engine = Engine::new();
    let responding = engine.clone();
    (engine, StandIn::start(move |request| responding.respond(request)).await)
}

fn keys(address: &str) -> Vec<(&str, &str)> {
    vec![
        ("address", address),
        ("token", "hidden-token"),
        ("key_name", "k"),
        ("mount_path", "/t/m/"),
        ("disable_renewal", "true"),
    ]
}

async fn make(timeout: Duration) -> (Arc<dyn Seal>, StandIn) {
    let (_, service) = engine().await;
    (build_within(timeout, "transit", &keys(&service.url), &[]).unwrap(), service)
}

/// A seal whose stand-in lives as long as the test.
async fn kept() -> Arc<dyn Seal> {
    let (seal, service) = make(Duration::from_secs(5)).await;
    std::mem::forget(service);
    seal
}

seal_suite!(cases, kept, kept);

#[tokio::test]
async fn failures_of_the_server_have_their_class() {
    let text = r#"{"errors":["hidden"]}"#;
    let table = [
        (403, "", text, SealErrorClass::Denied),
        (429, "retry-after: 7\r\n", text, SealErrorClass::Throttled(Some(Duration::from_secs(7)))),
        (503, "", text, SealErrorClass::Unreachable),
        (500, "", "hidden", SealErrorClass::Unreachable),
        (404, "", text, SealErrorClass::Misconfigured),
        (307, "location: http://hidden/\r\n", "", SealErrorClass::Misconfigured),
        (400, "", text, SealErrorClass::WrongKey),
        (200, "", "hidden", SealErrorClass::Unreachable),
    ];
    failures_have_their_class(make, &table).await;
    a_call_ends_at_its_timeout(make).await;
}

#[tokio::test]
async fn a_rotated_key_is_followed_and_old_versions_unwrap() {
    let (engine, service) = engine().await;
    let seal = build("transit", &keys(&service.url), &[]).unwrap();
    let key = random::key();
    let first = seal.wrap(&key).await.unwrap();
    engine.version.store(2, Ordering::SeqCst);
    let second = seal.wrap(&key).await.unwrap();
    assert_eq!((first.key_id.as_str(), second.key_id.as_str()), ("k:v1", "k:v2"));
    assert_eq!(seal.unwrap(&first).await.unwrap().expose(), key.expose());
    engine.least.store(2, Ordering::SeqCst);
    assert_eq!(seal.unwrap(&first).await.err().unwrap().class, SealErrorClass::WrongKey);
    assert_eq!(seal.unwrap(&second).await.unwrap().expose(), key.expose());
}

#[tokio::test]
async fn a_missing_key_and_a_missing_mount_differ() {
    let (_, service) = engine().await;
    for (key, value, class) in [
        ("key_name", "none", SealErrorClass::WrongKey),
        ("mount_path", "other", SealErrorClass::Misconfigured),
        ("token", "wrong", SealErrorClass::Denied),
    ] {
        let mut keys = keys(&service.url);
        keys.retain(|(name, _)| *name != key);
        keys.push((key, value));
        let error = build("transit", &keys, &[]).unwrap().wrap(&random::key()).await.err().unwrap();
        assert_eq!(error.class, class, "{key}: {error}");
    }
}

#[tokio::test]
async fn a_token_file_is_read_at_each_call() {
    let (_, service) = engine().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    let mut keys = keys(&service.url);
    keys.retain(|(name, _)| *name != "token");
    keys.push(("token_file", &path));
    let seal = build("transit", &keys, &[]).unwrap();
    std::fs::write(file.path(), "old\n").unwrap();
    assert_eq!(seal.wrap(&random::key()).await.err().unwrap().class, SealErrorClass::Denied);
    std::fs::write(file.path(), "hidden-token\n").unwrap();
    seal.wrap(&random::key()).await.unwrap();
}

#[tokio::test]
async fn the_key_of_the_stored_id_unwraps_after_a_change_of_the_name() {
    let (_, service) = engine().await;
    let key = random::key();
    let old = build("transit", &keys(&service.url), &[]).unwrap().wrap(&key).await.unwrap();
    let mut keys = keys(&service.url);
    keys.retain(|(name, _)| *name != "key_name");
    keys.push(("key_name", "none"));
    let seal = build("transit", &keys, &[]).unwrap();
    assert_eq!(seal.unwrap(&old).await.unwrap().expose(), key.expose());
    let calls = service.calls().len();
    for key_id in ["k", ":v1", "..:v1", ".:v1", "a/b:v1", "../../sys:v1", ""] {
        let other = WrappedKey { key_id: key_id.to_owned(), ..old.clone() };
        assert_eq!(seal.unwrap(&other).await.err().unwrap().class, SealErrorClass::WrongKey, "{key_id}");
    }
    assert_eq!(service.calls().len(), calls, "an invalid id is not sent");
}

/// A seal that renews its token, with the clock of the renewal.
fn renewing(url: &str) -> (Arc<dyn Seal>, TestClock) {
    let mut keys = keys(url);
    keys.retain(|(name, _)| *name != "disable_renewal");
    let (options, time) = (options(&keys), TestClock::default());
    let clock: Arc<dyn Clock> = Arc::new(time.clone());
    let stanza = SealStanza::new("transit", "s", &options);
    (from_stanza(&stanza, &Variables::default(), &clock).unwrap().seal, time)
}

fn renewals(service: &StandIn) -> usize {
    service.calls().iter().filter(|call| call.ends_with("renew-self")).count()
}

#[tokio::test]
async fn only_the_words_of_the_server_end_the_renewal_of_a_token() {
    let errors = |text: &str| json!({"errors": [text]}).to_string();
    for (last, expected) in
        [(None, 6), (Some("lease is not renewable"), 4), (Some("batch tokens cannot be renewed"), 4)]
    {
        let (engine, service) = engine().await;
        engine.ttl.store(100, Ordering::SeqCst);
        let mut refusals: Vec<(u16, String)> = last.map(|text| (400, errors(text))).into_iter().collect();
        refusals.extend([(400, "bad request".to_owned()), (404, errors("no handler")), (307, String::new())]);
        *engine.refusals.lock() = refusals;
        let (seal, time) = renewing(&service.url);
        for _ in 0..200 {
            time.advance(Duration::from_secs(10));
            seal.wrap(&random::key()).await.unwrap();
        }
        // The pauses are 10, 20 and 40 s; then each 50 s.
        let count = renewals(&service);
        assert!(if last.is_some() { count == expected } else { count >= expected }, "{last:?}: {count}");
    }
}

#[tokio::test]
async fn the_token_is_renewed_at_half_of_its_ttl() {
    let (engine, service) = engine().await;
    engine.ttl.store(100, Ordering::SeqCst);
    let renewals = || renewals(&service);
    let (seal, time) = renewing(&service.url);
    assert_eq!(renewals(), 0);
    for expected in 1..=3 {
        seal.wrap(&random::key()).await.unwrap();
        while renewals() < expected {
            tokio::task::yield_now().await;
        }
        // The task waits for the clock only once it has the response.
        for _ in 0..100 {
            seal.wrap(&random::key()).await.unwrap();
        }
        time.advance(Duration::from_secs(49));
        for _ in 0..100 {
            seal.wrap(&random::key()).await.unwrap();
        }
        assert_eq!(renewals(), expected);
        time.advance(Duration::from_secs(1));
    }
}

#[test]
fn the_stanza_needs_address_token_mount_and_key() {
    let all = keys("https://v:8200");
    for missing in ["address", "token", "key_name", "mount_path"] {
        let keys: Vec<_> = all.iter().copied().filter(|(key, _)| *key != missing).collect();
        let error = build("transit", &keys, &[]).err().unwrap().to_string();
        assert!(error.contains(missing) && !error.contains("hidden"), "{error}");
    }
    for (key, value) in [("key_name", "a/b"), ("key_name", ".."), ("mount_path", "a/../b"), ("address", "v:8200")] {
        let mut keys: Vec<_> = all.iter().copied().filter(|(name, _)| *name != key).collect();
        keys.push((key, value));
        assert!(build("transit", &keys, &[]).is_err(), "{key} = {value}");
    }
}

#[tokio::test]
async fn variables_of_the_process_have_precedence() {
    let (_, service) = engine().await;
    let variables = [
        ("VAULT_ADDR", service.url.as_str()),
        ("BAO_TOKEN", "hidden-token"),
        ("VAULT_TRANSIT_SEAL_KEY_NAME", "k"),
        ("VAULT_TRANSIT_SEAL_MOUNT_PATH", "t/m"),
        ("VAULT_TRANSIT_SEAL_DISABLE_RENEWAL", "1"),
    ];
    let seal = build("transit", &[("address", "https://other"), ("key_name", "other")], &variables).unwrap();
    seal.wrap(&random::key()).await.unwrap();
}

#[test]
fn a_ciphertext_has_a_version() {
    for (text, version) in [
        ("vault:v1:abc", Some("v1")),
        ("vault:v12345:x", Some("v12345")),
        ("vault:v1:", None),
        ("vault:1:abc", None),
        ("vault:v:abc", None),
        ("vault:vx:abc", None),
        ("other:v1:abc", None),
        ("", None),
    ] {
        assert_eq!(version_of(text), version, "{text}");
    }
}
