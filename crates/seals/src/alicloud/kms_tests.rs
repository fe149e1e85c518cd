//! The seal alicloudkms against a stand-in that checks signatures, for each source of credentials.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::random;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::Timestamp;
use keepfast_framework::seal::{Seal, SealErrorClass};
use parking_lot::Mutex;
use serde_json::json;

use super::AliCredentials;
use super::sign::sign;
use crate::stand_in::{Received, StandIn};
use crate::suite::{a_call_ends_at_its_timeout, build, build_within, failures_have_their_class, seal_suite};

fn accepted(security_token: Option<&str>) -> AliCredentials {
    AliCredentials {
        access_key: "AKID".to_owned(),
        secret_key: SecretString::new("hidden-secret".to_owned()),
        security_token: security_token.map(|token| SecretString::new(token.to_owned())),
    }
}

/// Whether a request has the signature of the accepted credentials.
fn is_signed(received: &Received) -> bool {
    let authorization = received.header("authorization");
    let names =
        authorization.split("SignedHeaders=").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
    let mut request = Request::post(format!("http://{}{}", received.header("host"), received.uri));
    for name in ["accept", "x-acs-action", "x-acs-version"] {
        request = request.header(name, received.header(name));
        if !names.contains(name) {
            return false;
        }
    }
    let mut request = request.body(SecretBytes::new(received.body.clone())).unwrap();
    let token = received.headers.get("x-acs-security-token").map(|_| "hidden-session");
    let time = Timestamp::parse_rfc3339(received.header("x-acs-date")).unwrap_or_default();
    sign(&mut request, &accepted(token), time, received.header("x-acs-signature-nonce")).unwrap();
    request.headers()["authorization"].to_str().unwrap() == authorization
}

/// KMS, STS and the metadata of an instance, at one address.
struct Alibaba {
    key: AeadKey,
    /// The nonces of signatures: each is accepted once.
    nonces: Mutex<HashSet<String>>,
    /// How many further requests with a nonce fail with 503, after their nonce is used.
    failing: AtomicUsize,
}

impl Alibaba {
    fn respond(&self, received: &Received) -> (u16, String) {
        let in_header = received.header("x-acs-signature-nonce").to_owned();
        let nonce = if in_header.is_empty() { received.form("SignatureNonce") } else { in_header };
        if !nonce.is_empty() {
            if !self.nonces.lock().insert(nonce) {
                return (400, json!({"Code": "SignatureNonceUsed", "Message": "hidden"}).to_string());
            }
            let is_failing = |left: usize| left.checked_sub(1);
            if self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_failing).is_ok() {
                return (503, String::new());
            }
        }
        respond(&self.key, received)
    }
}

fn respond(key: &AeadKey, received: &Received) -> (u16, String) {
    let error = |status, code: &str| (status, json!({"Code": code, "Message": "hidden"}).to_string());
    let credentials = json!({
        "AccessKeyId": "AKID", "AccessKeySecret": "hidden-secret", "SecurityToken": "hidden-session",
        "Expiration": "2026-01-01T06:00:00Z", "Code": "Success",
    });
    match received.uri.path() {
        "/sts/" => {
            let is_known = received.form("Action") == "AssumeRoleWithOIDC" && received.form("OIDCToken") == "oidc/+";
            let body = json!({"Credentials": credentials});
            return if is_known { (200, body.to_string()) } else { error(400, "AuthenticationFail.OIDCToken") };
        }
        "/latest/api/token" if received.method == "PUT" => return (200, "metadata-token".to_owned()),
        path if path.starts_with("/latest/") && received.header("x-aliyun-ecs-metadata-token") != "metadata-token" => {
            return (403, String::new());
        }
        "/latest/meta-data/ram/security-credentials/" => return (200, "role".to_owned()),
        "/latest/meta-data/ram/security-credentials/role" => return (200, credentials.to_string()),
        _ => {}
    }
    if !is_signed(received) || received.header("x-acs-version") != "2016-01-20" {
        return error(400, "SignatureDoesNotMatch");
    }
    let query = received.uri.query().unwrap_or_default();
    let parameter = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
        let value = value.map(|(_, value)| value).unwrap_or_default();
        percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned()
    };
    match received.header("x-acs-action") {
        "Encrypt" if parameter("KeyId") == "k 1" => {
            let sealed = STANDARD.encode(key.seal(&[], parameter("Plaintext").as_bytes()));
            let body = json!({"CiphertextBlob": sealed, "KeyId": "key-1", "KeyVersionId": "v1", "RequestId": "r"});
            (200, body.to_string())
        }
        "Encrypt" => error(404, "Forbidden.KeyNotFound"),
        "Decrypt" => {
            let sealed = STANDARD.decode(parameter("CiphertextBlob")).unwrap_or_default();
            match key.open(&[], &sealed) {
                Ok(opened) => (200, json!({"Plaintext": String::from_utf8(opened).unwrap()}).to_string()),
                Err(_) => error(400, "InvalidParameter"),
            }
        }
        _ => error(400, "InvalidAction.NotFound"),
    }
}

async fn service() -> StandIn {
    alibaba().await.1
}

async fn alibaba() -> (Arc<Alibaba>, StandIn) {
    let (key, nonces) = (AeadKey::new(&random::key()), Mutex::default());
    let alibaba = Arc::new(Alibaba { key, nonces, failing: AtomicUsize::new(0) });
    let responding = alibaba.clone();
    (alibaba, StandIn::start(move |received| responding.respond(received)).await)
}

fn keys(endpoint: &str) -> Vec<(&str, &str)> {
    vec![("kms_key_id", "k 1"), ("endpoint", endpoint)]
}

const SECRET: [(&str, &str); 2] = [("access_key", "AKID"), ("secret_key", "hidden-secret")];

async fn make(timeout: Duration) -> (Arc<dyn Seal>, StandIn) {
    let service = service().await;
    let mut keys = keys(&service.url);
    keys.extend(SECRET);
    (build_within(timeout, "alicloudkms", &keys, &[]).unwrap(), service)
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
    let of = |code: &str| json!({"Code": code, "Message": "hidden"}).to_string();
    let codes = ["Forbidden.NoPermission", "InvalidAccessKeyId.NotFound", "Forbidden.KeyNotFound", "Rejected.Disabled"];
    let (bodies, throttled, used) = (codes.map(of), of("Throttling.User"), of("SignatureNonceUsed"));
    let table = [
        (403, "", bodies[0].as_str(), SealErrorClass::Denied),
        (404, "", &bodies[1], SealErrorClass::Denied),
        (404, "", &bodies[2], SealErrorClass::WrongKey),
        (409, "", &bodies[3], SealErrorClass::WrongKey),
        (400, "", &throttled, SealErrorClass::Throttled(None)),
        (400, "", &used, SealErrorClass::Unreachable),
        (503, "", "hidden", SealErrorClass::Unreachable),
        (200, "", "hidden", SealErrorClass::Unreachable),
    ];
    failures_have_their_class(make, &table).await;
    a_call_ends_at_its_timeout(make).await;
}

#[tokio::test]
async fn credentials_come_from_each_source() {
    let service = service().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "oidc/+\n").unwrap();
    let (path, sts) = (file.path().display().to_string(), format!("{}/sts", service.url));
    let oidc = [
        ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", path.as_str()),
        ("ALIBABA_CLOUD_ROLE_ARN", "r"),
        ("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "p"),
    ];
    for variables in [
        &[("ALICLOUD_ACCESS_KEY", "AKID"), ("ALICLOUD_SECRET_KEY", "hidden-secret")][..],
        &[("ALIBABA_CLOUD_ACCESS_KEY_ID", "AKID"), ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "hidden-secret")],
        &oidc,
        &[],
    ] {
        let mut all = vec![("ALIBABA_CLOUD_STS_ENDPOINT", sts.as_str())];
        all.push(("ALIBABA_CLOUD_METADATA_ENDPOINT", &service.url));
        all.extend(variables);
        build("alicloudkms", &keys(&service.url), &all).unwrap().wrap(&random::key()).await.unwrap();
    }
    let mut wrong = keys(&service.url);
    wrong.extend([("access_key", "AKID"), ("secret_key", "hidden-wrong")]);
    let error = build("alicloudkms", &wrong, &[]).unwrap().wrap(&random::key()).await.err().unwrap();
    assert_eq!((error.class, error.cause.as_str()), (SealErrorClass::Denied, "SignatureDoesNotMatch"));
}

#[tokio::test]
async fn each_repetition_has_a_signature_of_its_own() {
    let (alibaba, service) = alibaba().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "oidc/+\n").unwrap();
    let (path, sts) = (file.path().display().to_string(), format!("{}/sts", service.url));
    let variables = [
        ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", path.as_str()),
        ("ALIBABA_CLOUD_ROLE_ARN", "r"),
        ("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "p"),
        ("ALIBABA_CLOUD_STS_ENDPOINT", &sts),
    ];
    let seal = build("alicloudkms", &keys(&service.url), &variables).unwrap();
    // Of the token service, then of KMS.
    for calls in [3 + 1, 3] {
        alibaba.failing.store(2, Ordering::SeqCst);
        let before = service.calls().len();
        seal.wrap(&random::key()).await.unwrap();
        assert_eq!(service.calls().len() - before, calls);
    }
}

#[test]
fn the_stanza_needs_a_key_and_both_halves_of_credentials() {
    for (keys, cause) in [
        (&[("region", "eu-central-1")][..], "kms_key_id is required"),
        (&[("kms_key_id", "k"), ("access_key", "hidden")], "set together"),
        (&[("kms_key_id", "k"), ("region", "a/b")], "region must be"),
        (&[("kms_key_id", "k"), ("endpoint", "http://kms.example.com")], "endpoint must be https://"),
    ] {
        let error = build("alicloudkms", keys, &[]).err().unwrap().to_string();
        assert!(error.contains(cause) && !error.contains("hidden"), "{error}");
    }
    let shown =
        build("alicloudkms", &[("kms_key_id", "k")], &[("ALICLOUD_REGION", "eu-central-1")]).unwrap().description();
    assert!(shown.contains(&("endpoint", "https://kms.eu-central-1.aliyuncs.com".to_owned())), "{shown:?}");
}
