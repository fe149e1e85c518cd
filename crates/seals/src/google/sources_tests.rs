//! Each source of tokens of Google against a stand-in that checks the assertion.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::pem;
use keepfast_crypto::keys::rsa::{RsaKey, RsaScheme};
use keepfast_crypto::random;
use keepfast_framework::seal::{Seal, SealErrorClass};
use serde_json::{Value, json};

use super::kms_tests::{Google, keys};
use crate::stand_in::{Received, StandIn};
use crate::suite::build;

/// Checks a JWT of the account; the clock of the suite begins on 2026-01-01.
fn is_valid(jwt: &str, key: &RsaKey, audience: &str) -> bool {
    let parts: Vec<&str> = jwt.split('.').collect();
    let [header, claims, signature] = parts[..] else { return false };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    let digest = Hash::Sha256.digest(format!("{header}.{claims}").as_bytes());
    let scheme = RsaScheme::Pkcs1(Some(Hash::Sha256));
    let (header, claims): (Value, Value) =
        (serde_json::from_slice(&decode(header)).unwrap(), serde_json::from_slice(&decode(claims)).unwrap());
    key.verify(scheme, &digest, &decode(signature)).unwrap()
        && header == json!({"alg": "RS256", "typ": "JWT", "kid": "kid1"})
        && claims["iss"] == "app@p.iam"
        && claims["aud"] == audience
        && claims["scope"] == "https://www.googleapis.com/auth/cloudkms"
        && claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() == 3600
}

/// The token endpoint, the exchange and the impersonation; everything else is Cloud KMS.
fn respond(google: &Google, key: &RsaKey, received: &Received) -> (u16, String) {
    let token =
        |name: &str| (200, json!({"access_token": name, "expires_in": 3599, "token_type": "Bearer"}).to_string());
    let refused = (400, json!({"error": "invalid_grant", "error_description": "hidden"}).to_string());
    match received.uri.path() {
        "/token" => {
            let audience = format!("http://{}/token", received.header("host"));
            let grant = received.form("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer";
            if grant && is_valid(&received.form("assertion"), key, &audience) { token("hidden-token") } else { refused }
        }
        "/exchange" if received.form("subject_token") == "subject" && received.form("audience") == "//iam/x" => {
            let impersonates = received.form("scope").ends_with("cloud-platform");
            token(if impersonates { "federated" } else { "hidden-token" })
        }
        "/exchange" => refused,
        "/impersonate" if received.header("authorization") == "Bearer federated" => {
            (200, json!({"accessToken": "hidden-token", "expireTime": "2026-01-01T01:00:00Z"}).to_string())
        }
        "/subject" if received.header("x-key") == "v" => (200, json!({"value": "subject"}).to_string()),
        _ => google.respond(received),
    }
}

struct Case {
    service: StandIn,
    private_key: String,
}

async fn case() -> Case {
    let pkcs8 = RsaKey::generate(2048).unwrap();
    let private_key = pem::encode("PRIVATE KEY", pkcs8.expose());
    let (google, key) = (Google::new(), RsaKey::from_pkcs8(pkcs8.expose()).unwrap());
    let service = StandIn::start(move |received| respond(&google, &key, received)).await;
    Case { service, private_key }
}

impl Case {
    fn account(&self, email: &str) -> String {
        let token_uri = format!("{}/token", self.service.url);
        let account = json!({
            "type": "service_account", "client_email": email, "private_key": self.private_key,
            "private_key_id": "kid1", "token_uri": token_uri,
        });
        account.to_string()
    }

    fn seal(&self, credentials: &str) -> Arc<dyn Seal> {
        let mut keys = keys(&self.service.url);
        keys.push(("credentials", credentials));
        build("gcpckms", &keys, &[]).unwrap()
    }
}

#[tokio::test]
async fn a_service_account_signs_an_assertion() {
    let case = case().await;
    let good = case.account("app@p.iam");
    case.seal(&good).wrap(&random::key()).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &good).unwrap();
    let seal = case.seal(&file.path().display().to_string());
    seal.wrap(&random::key()).await.unwrap();
    // The token serves several calls.
    seal.wrap(&random::key()).await.unwrap();
    assert_eq!(case.service.calls().iter().filter(|call| call.ends_with("/token")).count(), 2);
    let error = case.seal(&case.account("other@p.iam")).wrap(&random::key()).await.err().unwrap();
    assert_eq!(error.class, SealErrorClass::Denied);
    assert!(error.cause.contains("invalid_grant") && !error.cause.contains("hidden"), "{error}");
}

#[tokio::test]
async fn a_token_of_the_workload_is_exchanged() {
    let case = case().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "subject\n").unwrap();
    let url = &case.service.url;
    let of_file = json!({"file": file.path().display().to_string()});
    let of_url = json!({
        "url": format!("{url}/subject"), "headers": {"x-key": "v"},
        "format": {"type": "json", "subject_token_field_name": "value"},
    });
    for (source, impersonation) in [(&of_file, None), (&of_url, None), (&of_file, Some(format!("{url}/impersonate")))] {
        let mut account = json!({
            "type": "external_account", "audience": "//iam/x", "token_url": format!("{url}/exchange"),
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "credential_source": source,
        });
        if let Some(url) = impersonation {
            account["service_account_impersonation_url"] = json!(url);
        }
        case.seal(&account.to_string()).wrap(&random::key()).await.unwrap();
    }
}

#[tokio::test]
async fn invalid_credentials_are_a_failure_without_their_text() {
    let case = case().await;
    for credentials in ["{\"type\":\"hidden\"}", "{hidden", "/none/hidden-not-shown"] {
        let error = case.seal(credentials).wrap(&random::key()).await.err().unwrap();
        let is_path = credentials.starts_with('/');
        assert!(
            is_path || (error.class == SealErrorClass::Misconfigured && !error.cause.contains("hidden")),
            "{error}"
        );
    }
}
