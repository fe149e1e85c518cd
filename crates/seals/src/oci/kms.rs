//! `seal "ocikms"`: a key of the key management service of Oracle Cloud.
//!
//! Sources: <https://developer.hashicorp.com/vault/docs/configuration/seal/ocikms>,
//! <https://docs.oracle.com/iaas/api/#/en/key/release/>.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::seal::{Seal, SealError, SealErrorClass, WrappedKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::OciSigner;
use super::sign::sign;
use super::sources::OciSource;
use crate::call::{Calls, Reply, invalid_request, json_body, printable_code, wrong_key};
use crate::credentials::Credentials;
use crate::stanza::{Key, SealConfigError, Stanza};

/// The keys of the stanza.
pub(crate) const KEYS: &[Key] = &[
    ("key_id", &["VAULT_OCIKMS_SEAL_KEY_ID"]),
    ("crypto_endpoint", &["VAULT_OCIKMS_CRYPTO_ENDPOINT"]),
    ("management_endpoint", &["VAULT_OCIKMS_MANAGEMENT_ENDPOINT"]),
    ("auth_type_api_key", &[]),
];

const VERSION: &str = "20180608";

/// The seal.
struct OciKms {
    calls: Calls,
    credentials: Credentials<OciSigner>,
    crypto: String,
    management: String,
    key_id: String,
}

/// Creates the seal of a stanza.
pub(crate) fn create(stanza: &Stanza<'_>) -> Result<Arc<dyn Seal>, SealConfigError> {
    let key_id = stanza.required("key_id")?;
    if !is_ocid(&key_id) {
        return Err(stanza.refused("key_id must be an OCID"));
    }
    let url = |key: &str| stanza.url(key, &stanza.required(key)?);
    let (crypto, management) = (url("crypto_endpoint")?, url("management_endpoint")?);
    let calls = Calls::new(stanza, &stanza.call_settings()?)?;
    let credentials = Credentials::new(Box::new(OciSource::new(stanza)?), stanza.clock());
    Ok(Arc::new(OciKms { calls, credentials, crypto, management, key_id }))
}

fn is_ocid(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EncryptRequest<'a> {
    key_id: &'a str,
    plaintext: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EncryptResponse {
    ciphertext: String,
    key_id: String,
    key_version_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DecryptRequest<'a> {
    key_id: &'a str,
    key_version_id: &'a str,
    ciphertext: &'a str,
}

#[derive(Deserialize)]
struct DecryptResponse {
    plaintext: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyResponse {
    id: String,
    current_key_version: String,
}

#[derive(Deserialize, Default)]
struct ErrorResponse {
    #[serde(default)]
    code: String,
}

impl OciKms {
    /// Calls a URL; when the signature is denied, once more with a new key.
    async fn call<T: DeserializeOwned>(&self, url: &str, body: Option<SecretBytes>) -> Result<T, SealError> {
        let signer = self.credentials.current().await?;
        let reply = match self.attempt(url, body.as_ref(), &signer).await {
            Err(error) if error.class == SealErrorClass::Denied => {
                let renewed = self.credentials.after_denial(&signer).await?;
                self.attempt(url, body.as_ref(), &renewed).await?
            }
            outcome => outcome?,
        };
        reply.json()
    }

    async fn attempt(&self, url: &str, body: Option<&SecretBytes>, by: &OciSigner) -> Result<Reply, SealError> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let unwraps = url.ends_with("/decrypt");
        let bad_request = if unwraps { SealErrorClass::WrongKey } else { SealErrorClass::Misconfigured };
        let request = Request::builder().method(method).uri(url).header("accept", "application/json");
        let mut request = request.body(body.cloned().unwrap_or_default()).map_err(invalid_request)?;
        sign(&mut request, by, self.calls.clock().now(), false)?;
        let reply = self.calls.send(request).await?;
        if reply.status == StatusCode::OK { Ok(reply) } else { Err(error_of(&reply, bad_request)) }
    }
}

/// The error of a response that is not 200; `bad_request` is the class of a 400 with an unknown code.
fn error_of(reply: &Reply, bad_request: SealErrorClass) -> SealError {
    let ErrorResponse { code } = reply.json().unwrap_or_default();
    let code = printable_code(&code);
    let class = match code.as_str() {
        // The service does not say which of the two it is.
        "NotAuthorizedOrNotFound" | "NotAuthenticated" | "NotAuthorized" => SealErrorClass::Denied,
        "IncorrectState" | "NotFound" | "Conflict" => SealErrorClass::WrongKey,
        "TooManyRequests" => SealErrorClass::Throttled(reply.retry_after()),
        _ => return reply.unknown_error(&code, bad_request),
    };
    SealError::new(class, code)
}

#[async_trait]
impl Seal for OciKms {
    fn kind(&self) -> &'static str {
        "ocikms"
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        vec![("key_id", self.key_id.clone()), ("crypto_endpoint", self.crypto.clone())]
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        let plaintext = SecretString::new(STANDARD.encode(key.expose()));
        let request = EncryptRequest { key_id: &self.key_id, plaintext: plaintext.expose() };
        let url = format!("{}/{VERSION}/encrypt", self.crypto);
        let EncryptResponse { ciphertext, key_id, key_version_id } =
            self.call(&url, Some(json_body(&request)?)).await?;
        let (key_id, blob) = (format!("{key_id}/{key_version_id}"), Bytes::from(ciphertext));
        Ok(WrappedKey { key_id, mechanism: String::new(), blob, iv: None, tag: None })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        let ids = wrapped.key_id.split_once('/').filter(|(key, version)| is_ocid(key) && is_ocid(version));
        let (key_id, key_version_id) =
            ids.ok_or_else(|| wrong_key("the stored id is not that of a version of a key"))?;
        let ciphertext = std::str::from_utf8(&wrapped.blob).map_err(|_| wrong_key("the wrapped key is not base64"))?;
        let request = DecryptRequest { key_id, key_version_id, ciphertext };
        let url = format!("{}/{VERSION}/decrypt", self.crypto);
        let DecryptResponse { plaintext } = self.call(&url, Some(json_body(&request)?)).await?;
        let plaintext = SecretString::new(plaintext);
        let decoded = STANDARD.decode(plaintext.expose()).map(SecretBytes::new);
        let key = decoded.ok().and_then(|decoded| Key256::from_slice(decoded.expose()));
        key.ok_or_else(|| wrong_key("the unwrapped key does not have 32 bytes"))
    }

    async fn current_key(&self) -> Result<Option<String>, SealError> {
        let url = format!("{}/{VERSION}/keys/{}", self.management, self.key_id);
        let KeyResponse { id, current_key_version } = self.call(&url, None).await?;
        Ok(Some(format!("{id}/{current_key_version}")))
    }

    async fn is_configured_key(&self, key_id: &str) -> Result<bool, SealError> {
        Ok(key_id.split_once('/').is_some_and(|(key, _)| key == self.key_id))
    }
}
