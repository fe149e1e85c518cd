//! `seal "gcpckms"`: a key of Google Cloud KMS.
//!
//! Sources: <https://developer.hashicorp.com/vault/docs/configuration/seal/gcpckms>,
//! <https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys>.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode};
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::seal::{Seal, SealError, SealErrorClass, WrappedKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::sources::GoogleSource;
use crate::bearer::Bearer;
use crate::call::{Calls, Reply, invalid_request, json_body, printable_code, unreachable_because, wrong_key};
use crate::credentials::Credentials;
use crate::stanza::{Key, SealConfigError, Stanza};

/// The keys of the stanza.
pub(crate) const KEYS: &[Key] = &[
    ("credentials", &["GOOGLE_CREDENTIALS"]),
    ("project", &["GOOGLE_PROJECT"]),
    ("region", &["GOOGLE_REGION"]),
    ("key_ring", &["VAULT_GCPCKMS_SEAL_KEY_RING"]),
    ("crypto_key", &["VAULT_GCPCKMS_SEAL_CRYPTO_KEY"]),
    ("endpoint", &[]),
];

const ENDPOINT: &str = "https://cloudkms.googleapis.com";
/// What separates a key from its version.
const VERSIONS: &str = "/cryptoKeyVersions/";

/// The seal.
struct GcpKms {
    calls: Calls,
    credentials: Credentials<Bearer>,
    endpoint: String,
    /// `projects/…/locations/…/keyRings/…/cryptoKeys/…`
    key: String,
}

/// Creates the seal of a stanza.
pub(crate) fn create(stanza: &Stanza<'_>) -> Result<Arc<dyn Seal>, SealConfigError> {
    let part = |key: &str| {
        let value = stanza.required(key)?;
        if is_name(&value) { Ok(value) } else { Err(stanza.refused(format!("{key} is not a name of Google Cloud"))) }
    };
    let (project, region) = (part("project")?, part("region")?);
    let (ring, name) = (part("key_ring")?, part("crypto_key")?);
    let key = format!("projects/{project}/locations/{region}/keyRings/{ring}/cryptoKeys/{name}");
    let endpoint = stanza.url("endpoint", &stanza.text("endpoint").unwrap_or_else(|| ENDPOINT.to_owned()))?;
    let calls = Calls::new(stanza, &stanza.call_settings()?)?;
    let credentials = Credentials::new(Box::new(GoogleSource::new(stanza)?), stanza.clock());
    Ok(Arc::new(GcpKms { calls, credentials, endpoint, key }))
}

/// Whether a text is a segment of a resource name: projects may have a domain, `example.com:name`.
fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    !text.is_empty() && text.bytes().all(is_plain) && !text.bytes().all(|byte| byte == b'.')
}

/// The key of a key version, if the text is the name of one.
fn key_of_version(version: &str) -> Option<&str> {
    let (key, number) = version.split_once(VERSIONS)?;
    let parts: Vec<&str> = key.split('/').collect();
    let ["projects", project, "locations", region, "keyRings", ring, "cryptoKeys", name] = parts[..] else {
        return None;
    };
    [project, region, ring, name, number].into_iter().all(is_name).then_some(key)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EncryptRequest<'a> {
    plaintext: &'a str,
    plaintext_crc32c: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EncryptResponse {
    name: String,
    ciphertext: String,
    ciphertext_crc32c: String,
    #[serde(default)]
    verified_plaintext_crc32c: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DecryptRequest<'a> {
    ciphertext: &'a str,
    ciphertext_crc32c: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DecryptResponse {
    plaintext: String,
    plaintext_crc32c: String,
}

#[derive(Deserialize, Default)]
struct ErrorResponse {
    #[serde(default)]
    error: ErrorStatus,
}

#[derive(Deserialize, Default)]
struct ErrorStatus {
    #[serde(default)]
    status: String,
}

impl GcpKms {
    /// Calls a path; when the token is denied, once more with a new one.
    async fn call<T: DeserializeOwned>(&self, path: &str, request: &(impl Serialize + Sync)) -> Result<T, SealError> {
        let body = json_body(request)?;
        let token = self.credentials.current().await?;
        let reply = match self.attempt(path, &body, &token).await {
            Err(error) if error.class == SealErrorClass::Denied => {
                let renewed = self.credentials.after_denial(&token).await?;
                self.attempt(path, &body, &renewed).await?
            }
            outcome => outcome?,
        };
        reply.json()
    }

    async fn attempt(&self, path: &str, body: &SecretBytes, token: &Bearer) -> Result<Reply, SealError> {
        let unwraps = path.ends_with(":decrypt");
        let bad_request = if unwraps { SealErrorClass::WrongKey } else { SealErrorClass::Misconfigured };
        let request = Request::post(format!("{}/v1/{path}", self.endpoint)).header("content-type", "application/json");
        let request = request.header("authorization", token.header()?).body(body.clone()).map_err(invalid_request)?;
        let reply = self.calls.send(request).await?;
        if reply.status == StatusCode::OK { Ok(reply) } else { Err(error_of(&reply, bad_request)) }
    }
}

/// The error of a response that is not 200; `bad_request` is the class of a 400 with an unknown code.
fn error_of(reply: &Reply, bad_request: SealErrorClass) -> SealError {
    let ErrorResponse { error: ErrorStatus { status } } = reply.json().unwrap_or_default();
    let code = printable_code(&status);
    let class = match code.as_str() {
        "UNAUTHENTICATED" | "PERMISSION_DENIED" => SealErrorClass::Denied,
        "NOT_FOUND" | "FAILED_PRECONDITION" => SealErrorClass::WrongKey,
        "RESOURCE_EXHAUSTED" => SealErrorClass::Throttled(reply.retry_after()),
        "UNAVAILABLE" | "INTERNAL" | "DEADLINE_EXCEEDED" | "ABORTED" => SealErrorClass::Unreachable,
        _ => return reply.unknown_error(&code, bad_request),
    };
    SealError::new(class, code)
}

fn damaged() -> SealError {
    unreachable_because("a checksum is wrong: the message was damaged on its way")
}

#[async_trait]
impl Seal for GcpKms {
    fn kind(&self) -> &'static str {
        "gcpckms"
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        vec![("crypto_key", self.key.clone()), ("endpoint", self.endpoint.clone())]
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        let plaintext = SecretString::new(STANDARD.encode(key.expose()));
        let plaintext_crc32c = crc32c(key.expose()).to_string();
        let request = EncryptRequest { plaintext: plaintext.expose(), plaintext_crc32c };
        let response: EncryptResponse = self.call(&format!("{}:encrypt", self.key), &request).await?;
        let blob = STANDARD.decode(response.ciphertext).map_err(|_| damaged())?;
        if response.ciphertext_crc32c != crc32c(&blob).to_string() || !response.verified_plaintext_crc32c {
            return Err(damaged());
        }
        if key_of_version(&response.name).is_none() {
            return Err(unreachable_because("the response names no version of a key"));
        }
        Ok(WrappedKey { key_id: response.name, mechanism: String::new(), blob: blob.into(), iv: None, tag: None })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        let key = key_of_version(&wrapped.key_id);
        let key = key.ok_or_else(|| wrong_key("the stored id is not that of a version of a key"))?;
        let ciphertext = STANDARD.encode(&wrapped.blob);
        let request = DecryptRequest { ciphertext: &ciphertext, ciphertext_crc32c: crc32c(&wrapped.blob).to_string() };
        let response = self.call(&format!("{key}:decrypt"), &request).await?;
        let DecryptResponse { plaintext, plaintext_crc32c } = response;
        let plaintext = SecretString::new(plaintext);
        let decoded = STANDARD.decode(plaintext.expose()).map(SecretBytes::new).map_err(|_| damaged())?;
        if plaintext_crc32c != crc32c(decoded.expose()).to_string() {
            return Err(damaged());
        }
        Key256::from_slice(decoded.expose()).ok_or_else(|| wrong_key("the unwrapped key does not have 32 bytes"))
    }

    async fn is_configured_key(&self, key_id: &str) -> Result<bool, SealError> {
        Ok(key_of_version(key_id) == Some(self.key.as_str()))
    }
}

/// CRC-32C (RFC 3720, appendix B.4), which KMS uses against damage of requests and responses.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (REVERSED_POLYNOMIAL & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
