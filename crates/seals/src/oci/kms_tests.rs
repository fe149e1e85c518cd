//! The seal ocikms against a stand-in that checks signatures, with an API key and with an instance principal.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::pem;
use keepfast_crypto::keys::rsa::{RsaKey, RsaScheme};
use keepfast_crypto::random;
use keepfast_framework::seal::{Seal, SealErrorClass};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::stand_in::{Received, StandIn};
use crate::suite::{a_call_ends_at_its_timeout, build_within, failures_have_their_class, seal_suite};

/// The API key, which is also that of the instance, as PKCS#8.
fn pkcs8() -> &'static [u8] {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    KEY.get_or_init(|| RsaKey::generate(2048).unwrap().expose().clone())
}

/// A certificate with the tenancy in its subject.
fn certificate() -> rcgen::Certificate {
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(rcgen::DnType::OrganizationalUnitName, "opc-tenant:ocid1.tenancy.t1");
    parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap()
}

/// Checks a signature, with the text that the documentation describes.
fn is_signed(received: &Received, key_id: &str, key: &RsaKey) -> bool {
    let authorization = received.header("authorization");
    let field = |name: &str| {
        let rest = authorization.split(&format!("{name}=\"")).nth(1).unwrap_or_default();
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    let line = |name: &str| match name {
        "(request-target)" => {
            let method = received.method.as_str().to_ascii_lowercase();
            format!("{name}: {method} {}", received.uri)
        }
        _ => format!("{name}: {}", received.header(name)),
    };
    let names = field("headers");
    let text = names.split(' ').map(line).collect::<Vec<_>>().join("\n");
    let signature = STANDARD.decode(field("signature")).unwrap_or_default();
    let is_post = received.method == "POST";
    let body = STANDARD.encode(sha256(&received.body));
    let date = received.header("date");
    let digest = Hash::Sha256.digest(text.as_bytes());
    field("keyId") == key_id
        && names.starts_with("date (request-target)")
        && (!is_post || names.ends_with("content-length content-type x-content-sha256"))
        && (!is_post || received.header("x-content-sha256") == body)
        && date.ends_with(" GMT")
        && date.contains("Jan 2026")
        && key.verify(RsaScheme::Pkcs1(Some(Hash::Sha256)), &digest, &signature).unwrap()
}

/// KMS, the token service and the metadata of an instance, at one address.
struct Oracle {
    cipher: AeadKey,
    version: AtomicUsize,
    certificate: rcgen::Certificate,
    /// The public key of the last session.
    session: Mutex<Option<RsaKey>>,
}

const TOKEN: &str = "header";

fn token() -> String {
    // 2026-01-01T01:00:00Z
    format!("{TOKEN}.{}.signature", URL_SAFE_NO_PAD.encode(r#"{"exp":1767229200}"#))
}

impl Oracle {
    fn respond(&self, received: &Received) -> (u16, String) {
        let error = |status, code: &str| (status, json!({"code": code, "message": "hidden"}).to_string());
        let path = received.uri.path();
        if let Some(path) = path.strip_prefix("/opc/v2/") {
            let is_known = received.header("authorization") == "Bearer Oracle";
            return match path {
                _ if !is_known => (403, String::new()),
                "identity/cert.pem" | "identity/intermediate.pem" => (200, self.certificate.pem()),
                "instance/canonicalRegionName" => (200, "eu-frankfurt-1\n".to_owned()),
                "instance/regionInfo/realmDomainComponent" => (200, "no/name".to_owned()),
                "identity/key.pem" => (200, pem::encode("PRIVATE KEY", pkcs8())),
                _ => (404, String::new()),
            };
        }
        let own = RsaKey::from_pkcs8(pkcs8()).unwrap();
        if path == "/v1/x509" {
            let print: Vec<String> = sha256(self.certificate.der()).iter().map(|byte| format!("{byte:02X}")).collect();
            let key_id = format!("ocid1.tenancy.t1/fed-x509-sha256/{}", print.join(":"));
            let body = received.json();
            let spki = STANDARD.decode(body["publicKey"].as_str().unwrap_or_default()).unwrap_or_default();
            if !is_signed(received, &key_id, &own) || body["fingerprintAlgorithm"] != "SHA256" {
                return error(401, "NotAuthenticated");
            }
            *self.session.lock() = RsaKey::from_spki(&spki).ok();
            return (200, json!({"token": token()}).to_string());
        }
        let by_session = |key: &RsaKey| is_signed(received, &format!("ST${}", token()), key);
        let is_known = is_signed(received, "ocid1.tenancy.t1/ocid1.user.u1/aa:bb", &own)
            || self.session.lock().as_ref().is_some_and(by_session);
        if !is_known {
            return error(401, "NotAuthenticated");
        }
        self.kms(received)
    }

    fn kms(&self, received: &Received) -> (u16, String) {
        let error = |status, code: &str| (status, json!({"code": code, "message": "hidden"}).to_string());
        let body = received.json();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let version = format!("ocid1.keyversion.v{}", self.version.load(Ordering::SeqCst));
        let reply = |value: Value| (200, value.to_string());
        match received.uri.path() {
            "/20180608/keys/ocid1.key.k1" => reply(json!({"id": "ocid1.key.k1", "currentKeyVersion": version})),
            "/20180608/encrypt" if text("keyId") == "ocid1.key.k1" => {
                let sealed = self.cipher.seal(version.as_bytes(), text("plaintext").as_bytes());
                let ciphertext = STANDARD.encode(sealed);
                reply(json!({"ciphertext": ciphertext, "keyId": "ocid1.key.k1", "keyVersionId": version}))
            }
            "/20180608/decrypt" if text("keyId") == "ocid1.key.k1" => {
                let sealed = STANDARD.decode(text("ciphertext")).unwrap_or_default();
                match self.cipher.open(text("keyVersionId").as_bytes(), &sealed) {
                    Ok(opened) => reply(json!({"plaintext": String::from_utf8(opened).unwrap()})),
                    Err(_) => error(400, "InvalidParameter"),
                }
            }
            _ => error(404, "NotAuthorizedOrNotFound"),
        }
    }
}

async fn oracle() -> (Arc<Oracle>, StandIn) {
    let (cipher, version) = (AeadKey::new(&random::key()), AtomicUsize::new(1));
    let oracle = Arc::new(Oracle { cipher, version, certificate: certificate(), session: Mutex::default() });
    let responding = oracle.clone();
    (oracle, StandIn::start(move |received| responding.respond(received)).await)
}

/// A seal with an API key, whose files the test keeps.
fn with_api_key(url: &str, timeout: Duration, user: &str) -> (Arc<dyn Seal>, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".oci")).unwrap();
    std::fs::write(home.path().join("key.pem"), pem::encode("PRIVATE KEY", pkcs8())).unwrap();
    let config = format!("[DEFAULT]\nuser={user}\nfingerprint=aa:bb\ntenancy=ocid1.tenancy.t1\nkey_file=~/key.pem\n");
    std::fs::write(home.path().join(".oci/config"), config).unwrap();
    let keys = [
        ("key_id", "ocid1.key.k1"),
        ("crypto_endpoint", url),
        ("management_endpoint", url),
        ("auth_type_api_key", "true"),
    ];
    let variables = [("HOME", home.path().to_str().unwrap())];
    (build_within(timeout, "ocikms", &keys, &variables).unwrap(), home)
}

async fn make(timeout: Duration) -> (Arc<dyn Seal>, StandIn) {
    let (_, service) = oracle().await;
    let (seal, home) = with_api_key(&service.url, timeout, "ocid1.user.u1");
    // The credentials are read now, and again after they are denied.
    std::mem::forget(home);
    (seal, service)
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
    let of = |code: &str| json!({"code": code, "message": "hidden"}).to_string();
    let bodies = ["NotAuthorizedOrNotFound", "IncorrectState", "TooManyRequests", "InternalServerError"].map(of);
    let table = [
        (404, "", bodies[0].as_str(), SealErrorClass::Denied),
        (409, "", &bodies[1], SealErrorClass::WrongKey),
        (429, "", &bodies[2], SealErrorClass::Throttled(None)),
        (500, "", &bodies[3], SealErrorClass::Unreachable),
        (200, "", "hidden", SealErrorClass::Unreachable),
    ];
    failures_have_their_class(make, &table).await;
    a_call_ends_at_its_timeout(make).await;
}

#[tokio::test]
async fn a_new_version_is_followed_and_the_old_one_unwraps() {
    let (oracle, service) = oracle().await;
    let (seal, _home) = with_api_key(&service.url, Duration::from_secs(5), "ocid1.user.u1");
    let key = random::key();
    let first = seal.wrap(&key).await.unwrap();
    oracle.version.store(2, Ordering::SeqCst);
    assert_eq!(seal.current_key().await.unwrap().as_deref(), Some("ocid1.key.k1/ocid1.keyversion.v2"));
    assert_eq!(first.key_id, "ocid1.key.k1/ocid1.keyversion.v1");
    assert_eq!(seal.unwrap(&first).await.unwrap().expose(), key.expose());
}

#[tokio::test]
async fn the_key_of_another_user_is_denied() {
    let (_, service) = oracle().await;
    let (seal, _home) = with_api_key(&service.url, Duration::from_secs(5), "ocid1.user.u2");
    assert_eq!(seal.wrap(&random::key()).await.err().unwrap().class, SealErrorClass::Denied);
}

#[tokio::test]
async fn the_certificate_of_an_instance_is_exchanged_for_a_token() {
    let (_, service) = oracle().await;
    let url = service.url.as_str();
    let keys = [("key_id", "ocid1.key.k1"), ("crypto_endpoint", url), ("management_endpoint", url)];
    let variables = [("OCI_METADATA_BASE_URL", url), ("OCI_SDK_AUTH_CLIENT_REGION_URL", url)];
    let seal = build_within(Duration::from_secs(30), "ocikms", &keys, &variables).unwrap();
    let key = random::key();
    let wrapped = seal.wrap(&key).await.unwrap();
    assert_eq!(seal.unwrap(&wrapped).await.unwrap().expose(), key.expose());
    assert_eq!(service.calls().iter().filter(|call| call.ends_with("/v1/x509")).count(), 1);
}

#[tokio::test]
async fn failures_of_the_credentials_say_nothing_of_the_stored_key() {
    let (_, service) = oracle().await;
    let (seal, _home) = with_api_key(&service.url, Duration::from_secs(5), "ocid1.user.u1");
    let wrapped = seal.wrap(&random::key()).await.unwrap();
    let url = service.url.as_str();
    let keys = [("key_id", "ocid1.key.k1"), ("crypto_endpoint", url), ("management_endpoint", url)];
    // The realm of this instance is not a name.
    let seal = build_within(Duration::from_secs(30), "ocikms", &keys, &[("OCI_METADATA_BASE_URL", url)]).unwrap();
    let error = seal.unwrap(&wrapped).await.err().unwrap();
    assert!(error.class == SealErrorClass::Misconfigured && error.cause.contains("realm"), "{error}");
    assert!(service.calls().contains(&"GET /opc/v2/instance/canonicalRegionName".to_owned()));
}

#[test]
fn the_stanza_needs_a_key_and_both_endpoints() {
    let all = [("key_id", "ocid1.key.k1"), ("crypto_endpoint", "https://c"), ("management_endpoint", "https://m")];
    for (missing, _) in all {
        let keys: Vec<_> = all.iter().copied().filter(|(key, _)| *key != missing).collect();
        let error = build_within(Duration::from_secs(5), "ocikms", &keys, &[]).err().unwrap().to_string();
        assert!(error.contains(missing), "{error}");
    }
}
