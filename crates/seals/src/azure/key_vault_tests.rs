//! The seal azurekeyvault against a stand-in with real RSA keys, for each source of tokens.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepfast_crypto::keys::rsa::RsaKey;
use keepfast_crypto::random;
use keepfast_framework::seal::{Seal, SealErrorClass, WrappedKey};
use serde_json::json;

use crate::stand_in::{Received, StandIn};
use crate::suite::{
    a_call_ends_at_its_timeout, build, build_beside, build_within, failures_have_their_class, seal_suite,
};

/// Keys that take a while to generate.
fn keys_of_rsa() -> &'static [Vec<u8>; 2] {
    static KEYS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    KEYS.get_or_init(|| [0, 1].map(|_| RsaKey::generate(2048).unwrap().expose().clone()))
}

/// Microsoft Entra, managed identities and a vault, at one address.
struct Azure {
    /// The key of each version.
    keys: [RsaKey; 2],
    version: AtomicUsize,
}

impl Azure {
    fn new(first: usize) -> Arc<Self> {
        let key = |at: usize| RsaKey::from_pkcs8(&keys_of_rsa()[at % 2]).unwrap();
        Arc::new(Azure { keys: [key(first), key(first + 1)], version: AtomicUsize::new(0) })
    }

    fn respond(&self, received: &Received) -> (u16, String) {
        let path = received.uri.path();
        let query = received.uri.query().unwrap_or_default();
        let token = (200, json!({"access_token": "hidden-token", "expires_in": 3599}).to_string());
        let refused = (401, json!({"error": "invalid_client", "error_description": "hidden"}).to_string());
        match path {
            "/the-tenant/oauth2/v2.0/token" => {
                let is_known = received.form("client_id") == "app"
                    && received.form("scope") == "https://vault.azure.net/.default"
                    && (received.form("client_secret") == "hidden-secret"
                        || received.form("client_assertion") == "workload"
                            && received.form("client_assertion_type").ends_with("jwt-bearer"));
                return if is_known { token } else { refused };
            }
            "/identity" => {
                let is_known = received.header("x-identity-header") == "hidden-header"
                    && query == "api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net&client_id=app";
                let body = json!({"access_token": "hidden-token", "expires_on": "1767229200"});
                return if is_known { (200, body.to_string()) } else { refused };
            }
            _ => {}
        }
        if received.header("authorization") != "Bearer hidden-token" || query != "api-version=7.4" {
            return (401, json!({"error": {"code": "Unauthorized", "message": "hidden"}}).to_string());
        }
        self.vault(received)
    }

    fn vault(&self, received: &Received) -> (u16, String) {
        let error = |status, code: &str| (status, json!({"error": {"code": code, "message": "hidden"}}).to_string());
        let id = |version: usize| format!("https://v.vault.azure.net/keys/k/v{version}");
        let parts: Vec<&str> = received.uri.path().split('/').skip(1).collect();
        let (version, operation) = match parts[..] {
            ["keys", "k"] => {
                let kid = id(self.version.load(Ordering::SeqCst));
                return (200, json!({"key": {"kid": kid, "kty": "RSA"}}).to_string());
            }
            ["keys", "k", "v0", operation] => (0, operation),
            ["keys", "k", "v1", operation] => (1, operation),
            _ => return error(404, "KeyNotFound"),
        };
        let body = received.json();
        assert_eq!(body["alg"], "RSA-OAEP-256");
        let value = URL_SAFE_NO_PAD.decode(body["value"].as_str().unwrap()).unwrap();
        let result = match operation {
            "wrapkey" => self.keys[version].encrypt(&value).ok(),
            _ => self.keys[version].decrypt(&value).ok().map(|opened| opened.expose().clone()),
        };
        match result {
            Some(bytes) => (200, json!({"kid": id(version), "value": URL_SAFE_NO_PAD.encode(bytes)}).to_string()),
            None => error(400, "BadParameter"),
        }
    }
}

fn keys(endpoint: &str) -> Vec<(&str, &str)> {
    vec![("tenant_id", "the-tenant"), ("vault_name", "v"), ("key_name", "k"), ("endpoint", endpoint)]
}

fn seal_of(service: &StandIn, timeout: Duration, more: &[(&str, &str)], variables: &[(&str, &str)]) -> Arc<dyn Seal> {
    let mut keys = keys(&service.url);
    keys.extend(more);
    let mut all = vec![("AZURE_AUTHORITY_HOST", service.url.as_str())];
    all.extend(variables);
    build_within(timeout, "azurekeyvault", &keys, &all).unwrap()
}

const SECRET: [(&str, &str); 2] = [("client_id", "app"), ("client_secret", "hidden-secret")];

async fn azure(first: usize) -> (Arc<Azure>, StandIn) {
    let azure = Azure::new(first);
    let responding = azure.clone();
    (azure, StandIn::start(move |received| responding.respond(received)).await)
}

async fn make(timeout: Duration) -> (Arc<dyn Seal>, StandIn) {
    let (_, service) = azure(0).await;
    service.spare("/oauth2/");
    (seal_of(&service, timeout, &SECRET, &[]), service)
}

/// A seal whose stand-in lives as long as the test.
async fn kept(first: usize) -> Arc<dyn Seal> {
    let (_, service) = azure(first).await;
    let seal = seal_of(&service, Duration::from_secs(5), &SECRET, &[]);
    std::mem::forget(service);
    seal
}

seal_suite!(cases, async || kept(0).await, async || kept(1).await);

#[tokio::test]
async fn failures_of_key_vault_have_their_class() {
    let of = |code: &str, inner: &str| {
        json!({"error": {"code": code, "message": "hidden", "innererror": {"code": inner}}}).to_string()
    };
    let bodies =
        [of("Forbidden", "AccessDenied"), of("Forbidden", "KeyDisabled"), of("KeyNotFound", ""), of("Throttled", "")];
    let table = [
        (403, "", bodies[0].as_str(), SealErrorClass::Denied),
        (403, "", &bodies[1], SealErrorClass::WrongKey),
        (404, "", &bodies[2], SealErrorClass::WrongKey),
        (429, "retry-after: 9\r\n", &bodies[3], SealErrorClass::Throttled(Some(Duration::from_secs(9)))),
        (503, "", "hidden", SealErrorClass::Unreachable),
        (200, "", "hidden", SealErrorClass::Unreachable),
    ];
    failures_have_their_class(make, &table).await;
    a_call_ends_at_its_timeout(make).await;
}

#[tokio::test]
async fn a_new_version_is_followed_and_the_old_one_unwraps() {
    let (azure, service) = azure(0).await;
    let seal = seal_of(&service, Duration::from_secs(5), &SECRET, &[]);
    let key = random::key();
    let first = seal.wrap(&key).await.unwrap();
    azure.version.store(1, Ordering::SeqCst);
    assert!(seal.current_key().await.unwrap().unwrap().ends_with("/keys/k/v1"));
    assert!(seal.wrap(&key).await.unwrap().key_id.ends_with("/keys/k/v1") && first.key_id.ends_with("/keys/k/v0"));
    assert_eq!(seal.unwrap(&first).await.unwrap().expose(), key.expose());
    let stored = WrappedKey { key_id: "https://other/keys/../secrets/x".to_owned(), ..first };
    assert_eq!(seal.unwrap(&stored).await.err().unwrap().class, SealErrorClass::WrongKey);
}

#[tokio::test]
async fn tokens_come_from_each_source() {
    let (_, service) = azure(0).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "workload\n").unwrap();
    let path = file.path().display().to_string();
    let endpoint = format!("{}/identity", service.url);
    for variables in [
        &[("AZURE_CLIENT_SECRET", "hidden-secret")][..],
        &[("AZURE_FEDERATED_TOKEN_FILE", &path)],
        &[("IDENTITY_ENDPOINT", &endpoint), ("IDENTITY_HEADER", "hidden-header")],
    ] {
        let mut all = vec![("AZURE_CLIENT_ID", "app")];
        all.extend(variables);
        seal_of(&service, Duration::from_secs(5), &[], &all).wrap(&random::key()).await.unwrap();
    }
    // Beside another seal the platform names the identity, and the file has precedence over it.
    let mut all = vec![("AZURE_AUTHORITY_HOST", service.url.as_str()), ("AZURE_FEDERATED_TOKEN_FILE", &path)];
    all.extend([("AZURE_CLIENT_ID", "app"), ("AZURE_TENANT_ID", "other-tenant")]);
    build_beside("azurekeyvault", &keys(&service.url), &all).unwrap().seal.wrap(&random::key()).await.unwrap();
    let wrong = [("client_id", "app"), ("client_secret", "hidden-wrong")];
    let error = seal_of(&service, Duration::from_secs(5), &wrong, &[]).wrap(&random::key()).await.err().unwrap();
    assert_eq!((error.class, error.cause.as_str()), (SealErrorClass::Denied, "invalid_client"));
}

#[test]
fn the_stanza_names_a_vault_and_a_key() {
    for (keys, cause) in [
        (&[("key_name", "k")][..], "vault_name is required"),
        (&[("vault_name", "v")], "key_name is required"),
        (&[("vault_name", "v/x"), ("key_name", "k")], "vault_name has letters"),
        (&[("vault_name", "v"), ("key_name", "k"), ("environment", "MOON")], "environment must be one of"),
        (&[("vault_name", "v"), ("key_name", "k"), ("client_secret", "hidden")], "client_id is required"),
        (
            &[("vault_name", "v"), ("key_name", "k"), ("client_id", "c"), ("client_secret", "hidden")],
            "tenant_id is required",
        ),
    ] {
        let error = build("azurekeyvault", keys, &[]).err().unwrap().to_string();
        assert!(error.contains(cause) && !error.contains("hidden"), "{error}");
    }
    for (environment, endpoint) in [("", "https://v.vault.azure.net"), ("azurechinacloud", "https://v.vault.azure.cn")]
    {
        let keys = [("vault_name", "v"), ("key_name", "k"), ("environment", environment)];
        let shown = build("azurekeyvault", &keys, &[]).unwrap().description();
        assert!(shown.contains(&("endpoint", endpoint.to_owned())), "{shown:?}");
    }
}
