//! The seal gcpckms against a stand-in in the form of Cloud KMS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::random;
use keepfast_framework::seal::{Seal, SealErrorClass, WrappedKey};
use serde_json::json;

use super::kms::crc32c;
use crate::stand_in::{Received, StandIn};
use crate::suite::{a_call_ends_at_its_timeout, build, build_within, failures_have_their_class, seal_suite};

const KEY: &str = "/v1/projects/p/locations/l/keyRings/r/cryptoKeys/k";

/// The metadata server and Cloud KMS, at one address.
pub(super) struct Google {
    key: AeadKey,
    version: AtomicUsize,
    /// Whether responses are damaged.
    damaged: AtomicUsize,
}

impl Google {
    pub(super) fn new() -> Arc<Self> {
        let (version, damaged) = (AtomicUsize::new(1), AtomicUsize::new(0));
        Arc::new(Google { key: AeadKey::new(&random::key()), version, damaged })
    }

    pub(super) fn respond(&self, received: &Received) -> (u16, String) {
        let error = |code: u16, status: &str| {
            (code, json!({"error": {"code": code, "status": status, "message": "hidden"}}).to_string())
        };
        if received.uri.path() == "/computeMetadata/v1/instance/service-accounts/default/token" {
            return if received.header("metadata-flavor") == "Google" {
                (200, json!({"access_token": "hidden-token", "expires_in": 3599}).to_string())
            } else {
                (403, String::new())
            };
        }
        if received.header("authorization") != "Bearer hidden-token" {
            return error(401, "UNAUTHENTICATED");
        }
        let body = received.json();
        let bytes = |name: &str| STANDARD.decode(body[name].as_str().unwrap_or_default()).unwrap_or_default();
        let path = received.uri.path().to_owned();
        let checks = |name: &str, sum: &str| body[sum].as_str() == Some(&crc32c(&bytes(name)).to_string());
        if path == format!("{KEY}:encrypt") && checks("plaintext", "plaintextCrc32c") {
            let version = self.version.load(Ordering::SeqCst);
            let header = [u8::try_from(version).unwrap()];
            let mut sealed = self.key.seal_after(&header, &header, &bytes("plaintext"));
            let sum = crc32c(&sealed).to_string();
            if self.damaged.load(Ordering::SeqCst) == 1 {
                sealed[20] ^= 1;
            }
            let name = format!("{}/cryptoKeyVersions/{version}", &KEY[4..]);
            let sealed = STANDARD.encode(sealed);
            let verified =
                json!({"name": name, "ciphertext": sealed, "ciphertextCrc32c": sum, "verifiedPlaintextCrc32c": true});
            return (200, verified.to_string());
        }
        if path == format!("{KEY}:decrypt") && checks("ciphertext", "ciphertextCrc32c") {
            let sealed = bytes("ciphertext");
            let opened = sealed.split_first().and_then(|(version, rest)| self.key.open(&[*version], rest).ok());
            let Some(opened) = opened else { return error(400, "INVALID_ARGUMENT") };
            let sum = crc32c(&opened).to_string();
            return (200, json!({"plaintext": STANDARD.encode(opened), "plaintextCrc32c": sum}).to_string());
        }
        error(404, "NOT_FOUND")
    }
}

/// The keys of a stanza at this address.
pub(super) fn keys(endpoint: &str) -> Vec<(&str, &str)> {
    vec![("project", "p"), ("region", "l"), ("key_ring", "r"), ("crypto_key", "k"), ("endpoint", endpoint)]
}

async fn google() -> (Arc<Google>, StandIn) {
    let google = Google::new();
    let responding = google.clone();
    (google, StandIn::start(move |received| responding.respond(received)).await)
}

fn seal_of(service: &StandIn, timeout: Duration) -> Arc<dyn Seal> {
    let host = service.url.trim_start_matches("http://");
    build_within(timeout, "gcpckms", &keys(&service.url), &[("GCE_METADATA_HOST", host)]).unwrap()
}

async fn make(timeout: Duration) -> (Arc<dyn Seal>, StandIn) {
    let (_, service) = google().await;
    service.spare("/computeMetadata/");
    (seal_of(&service, timeout), service)
}

/// A seal whose stand-in lives as long as the test.
async fn kept() -> Arc<dyn Seal> {
    let (seal, service) = make(Duration::from_secs(5)).await;
    std::mem::forget(service);
    seal
}

seal_suite!(cases, kept, kept);

#[tokio::test]
async fn failures_of_cloud_kms_have_their_class() {
    let of = |status: &str| json!({"error": {"status": status, "message": "hidden"}}).to_string();
    let bodies = ["PERMISSION_DENIED", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "UNAVAILABLE"].map(of);
    let table = [
        (403, "", bodies[0].as_str(), SealErrorClass::Denied),
        (404, "", &bodies[1], SealErrorClass::WrongKey),
        (400, "", &bodies[2], SealErrorClass::WrongKey),
        (429, "", &bodies[3], SealErrorClass::Throttled(None)),
        (503, "", &bodies[4], SealErrorClass::Unreachable),
        (502, "", "hidden", SealErrorClass::Unreachable),
        (200, "", "hidden", SealErrorClass::Unreachable),
    ];
    failures_have_their_class(make, &table).await;
    a_call_ends_at_its_timeout(make).await;
}

#[tokio::test]
async fn a_new_primary_version_is_followed_and_old_ones_unwrap() {
    let (google, service) = google().await;
    let seal = seal_of(&service, Duration::from_secs(5));
    let key = random::key();
    let first = seal.wrap(&key).await.unwrap();
    google.version.store(2, Ordering::SeqCst);
    let second = seal.wrap(&key).await.unwrap();
    assert!(first.key_id.ends_with("/k/cryptoKeyVersions/1") && second.key_id.ends_with("/k/cryptoKeyVersions/2"));
    assert_eq!(seal.unwrap(&first).await.unwrap().expose(), key.expose());
}

#[tokio::test]
async fn a_damaged_response_is_refused() {
    let (google, service) = google().await;
    let seal = seal_of(&service, Duration::from_secs(5));
    google.damaged.store(1, Ordering::SeqCst);
    let error = seal.wrap(&random::key()).await.err().unwrap();
    assert!(error.cause.contains("checksum"), "{error}");
}

#[tokio::test]
async fn only_the_name_of_a_key_version_is_called() {
    let (seal, service) = make(Duration::from_secs(5)).await;
    let wrapped = seal.wrap(&random::key()).await.unwrap();
    let calls = service.calls().len();
    for key_id in
        ["", "projects/p", "projects/p/locations/l/keyRings/r/cryptoKeys/../../x/cryptoKeyVersions/1", "a?b#c"]
    {
        let stored = WrappedKey { key_id: key_id.to_owned(), ..wrapped.clone() };
        assert_eq!(seal.unwrap(&stored).await.err().unwrap().class, SealErrorClass::WrongKey);
    }
    assert_eq!(service.calls().len(), calls);
}

#[test]
fn the_stanza_needs_all_parts_of_the_name() {
    for missing in ["project", "region", "key_ring", "crypto_key"] {
        let keys: Vec<_> = keys("http://localhost").into_iter().filter(|(key, _)| *key != missing).collect();
        assert!(build("gcpckms", &keys, &[]).err().unwrap().to_string().contains(missing));
    }
    let keys = [("region", "l"), ("key_ring", "r"), ("crypto_key", "a/b"), ("project", "example.com:p")];
    assert!(build("gcpckms", &keys, &[]).err().unwrap().to_string().contains("crypto_key"));
}

// RFC 3720, appendix B.4, and the check value of the algorithm.
#[test]
fn checksums_are_crc32c() {
    for (bytes, sum) in [
        (&[0; 32][..], 0x8a91_36aa),
        (&[0xff; 32], 0x62a8_ab43),
        (&(0..32).collect::<Vec<u8>>(), 0x46dd_794e),
        (b"123456789", 0xe306_9283),
    ] {
        assert_eq!(crc32c(bytes), sum);
    }
}
