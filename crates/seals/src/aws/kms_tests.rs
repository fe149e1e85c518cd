//! The seal awskms against a stand-in that checks signatures. The step `seals` of `cargo xtask test` uses an emulator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::random;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::Timestamp;
use keepfast_framework::seal::{Seal, SealErrorClass};
use serde_json::{Value, json};

use super::AwsCredentials;
use super::sign::sign;
use crate::stand_in::{Received, StandIn};
use crate::suite::{a_call_ends_at_its_timeout, build, build_within, failures_have_their_class, seal_suite};

const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/";

/// The credentials that the stand-in accepts.
pub(super) fn accepted() -> AwsCredentials {
    AwsCredentials {
        access_key: "AKID".to_owned(),
        secret_key: SecretString::new("hidden-secret".to_owned()),
        session_token: Some(SecretString::new("hidden-session".to_owned())),
    }
}

/// Whether a request has the signature of these credentials.
pub(super) fn is_signed(received: &Received, by: &AwsCredentials, region: &str, service: &str) -> bool {
    let authorization = received.header("authorization");
    let names =
        authorization.split("SignedHeaders=").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
    let mut request = Request::builder().method(&received.method);
    request = request.uri(format!("http://{}{}", received.header("host"), received.uri));
    let signed = names.split(';').filter(|name| !["host", "x-amz-date", "x-amz-security-token"].contains(name));
    for name in signed {
        request = request.header(name, received.header(name));
    }
    let mut request = request.body(SecretBytes::new(received.body.clone())).unwrap();
    let date = received.header("x-amz-date");
    let part = |from: usize, to: usize| date.get(from..to).unwrap_or_default();
    let time =
        format!("{}-{}-{}T{}:{}:{}Z", part(0, 4), part(4, 6), part(6, 8), part(9, 11), part(11, 13), part(13, 15));
    let time = Timestamp::parse_rfc3339(&time).unwrap_or_default();
    sign(&mut request, by, (region, service), time).unwrap();
    request.headers()["authorization"].to_str().unwrap() == authorization
}

/// KMS with keys 1 and 2; an alias names one of them.
pub(super) struct Kms {
    keys: [AeadKey; 2],
    alias: AtomicU8,
}

impl Kms {
    pub(super) fn new() -> Arc<Self> {
        let key = || AeadKey::new(&random::key());
        Arc::new(Kms { keys: [key(), key()], alias: AtomicU8::new(1) })
    }

    fn key(&self, id: &str) -> Option<u8> {
        match id.trim_start_matches(ARN) {
            "alias/a" => Some(self.alias.load(Ordering::SeqCst)),
            "1" => Some(1),
            "2" => Some(2),
            _ => None,
        }
    }

    pub(super) fn respond(&self, received: &Received) -> (u16, String) {
        let error = |kind: &str| (400, json!({"__type": kind, "message": "hidden"}).to_string());
        if !is_signed(received, &accepted(), "eu-west-1", "kms") {
            return error("InvalidSignatureException");
        }
        let body = received.json();
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let Some(key) = self.key(&text("KeyId")) else { return error("com.amazonaws.kms#NotFoundException") };
        let arn = format!("{ARN}{key}");
        let cipher = &self.keys[usize::from(key) - 1];
        let reply = |value: Value| (200, value.to_string());
        match received.header("x-amz-target") {
            "TrentService.Encrypt" => {
                let sealed = cipher.seal(&[], &STANDARD.decode(text("Plaintext")).unwrap());
                reply(json!({"KeyId": arn, "CiphertextBlob": STANDARD.encode(sealed)}))
            }
            "TrentService.Decrypt" => match cipher.open(&[], &STANDARD.decode(text("CiphertextBlob")).unwrap()) {
                Ok(opened) => reply(json!({"KeyId": arn, "Plaintext": STANDARD.encode(opened)})),
                Err(_) => error("InvalidCiphertextException"),
            },
            "TrentService.DescribeKey" => reply(json!({"KeyMetadata": {"Arn": arn, "KeyId": key.to_string()}})),
            _ => error("UnknownOperationException"),
        }
    }
}

fn keys(endpoint: &str) -> Vec<(&str, &str)> {
    vec![
        ("region", "eu-west-1"),
        ("access_key", "AKID"),
        ("secret_key", "hidden-secret"),
        ("session_token", "hidden-session"),
        ("kms_key_id", "alias/a"),
        ("endpoint", endpoint),
    ]
}

async fn kms() -> (Arc<Kms>, StandIn) {
    let kms = Kms::new();
    let responding = kms.clone();
    (kms, StandIn::start(move |received| responding.respond(received)).await)
}

async fn make(timeout: Duration) -> (Arc<dyn Seal>, StandIn) {
    let (_, service) = kms().await;
    (build_within(timeout, "awskms", &keys(&service.url), &[]).unwrap(), service)
}

/// A seal whose stand-in lives as long as the test.
async fn kept() -> Arc<dyn Seal> {
    let (seal, service) = make(Duration::from_secs(5)).await;
    std::mem::forget(service);
    seal
}

seal_suite!(cases, kept, kept);

#[tokio::test]
async fn failures_of_kms_have_their_class() {
    let of = |kind: &str| json!({"__type": kind, "message": "hidden"}).to_string();
    let bodies = [
        "AccessDeniedException",
        "ExpiredTokenException",
        "com.amazonaws.kms#DisabledException",
        "KMSInvalidStateException",
        "NotFoundException",
        "ThrottlingException",
        "KMSInternalException",
    ]
    .map(of);
    let classes = [
        SealErrorClass::Denied,
        SealErrorClass::Denied,
        SealErrorClass::WrongKey,
        SealErrorClass::WrongKey,
        SealErrorClass::WrongKey,
        SealErrorClass::Throttled(None),
        SealErrorClass::Unreachable,
    ];
    let mut table: Vec<_> = bodies.iter().zip(classes).map(|(body, class)| (400, "", body.as_str(), class)).collect();
    table.push((500, "", "hidden", SealErrorClass::Unreachable));
    table.push((403, "", "hidden", SealErrorClass::Denied));
    table.push((200, "", "hidden", SealErrorClass::Unreachable));
    failures_have_their_class(make, &table).await;
    a_call_ends_at_its_timeout(make).await;
}

#[tokio::test]
async fn a_key_is_unwrapped_by_its_own_arn_when_the_alias_moves() {
    let (kms, service) = kms().await;
    let seal = build("awskms", &keys(&service.url), &[]).unwrap();
    let key = random::key();
    let first = seal.wrap(&key).await.unwrap();
    assert_eq!(first.key_id, format!("{ARN}1"));
    kms.alias.store(2, Ordering::SeqCst);
    assert_eq!(seal.current_key().await.unwrap().unwrap(), format!("{ARN}2"));
    assert_eq!(seal.unwrap(&first).await.unwrap().expose(), key.expose());
    assert_eq!(seal.wrap(&key).await.unwrap().key_id, format!("{ARN}2"));
}

#[tokio::test]
async fn a_wrong_secret_key_is_denied() {
    let (_, service) = kms().await;
    let mut keys = keys(&service.url);
    keys[2].1 = "hidden-other";
    let error = build("awskms", &keys, &[]).unwrap().wrap(&random::key()).await.err().unwrap();
    assert_eq!(error.class, SealErrorClass::Denied);
    assert!(!error.to_string().contains("hidden"), "{error}");
}

#[test]
fn the_stanza_needs_a_key_and_both_halves_of_credentials() {
    for (options, cause) in [
        (&[("access_key", "a")][..], "kms_key_id is required"),
        (&[("kms_key_id", "k"), ("access_key", "hidden")], "set together"),
        (&[("kms_key_id", "k"), ("secret_key", "hidden")], "set together"),
        (&[("kms_key_id", "k"), ("region", "a/b")], "region must be"),
        (&[("kms_key_id", "k"), ("endpoint", "kms")], "endpoint must be"),
    ] {
        let error = build("awskms", options, &[]).err().unwrap().to_string();
        assert!(error.contains(cause) && !error.contains("hidden"), "{error}");
    }
    let seal =
        build("awskms", &[("region", "never")], &[("VAULT_AWSKMS_SEAL_KEY_ID", "k"), ("AWS_REGION", "cn-north-1")]);
    let shown = seal.unwrap().description();
    assert!(shown.contains(&("endpoint", "https://kms.cn-north-1.amazonaws.com.cn".to_owned())), "{shown:?}");
}
