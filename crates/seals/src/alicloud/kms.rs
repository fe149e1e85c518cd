//! `seal "alicloudkms"`: a key of Alibaba Cloud KMS.
//!
//! Sources: <https://developer.hashicorp.com/vault/docs/configuration/seal/alicloudkms>,
//! <https://www.alibabacloud.com/help/en/kms/key-management-service/developer-reference/api-kms-2016-01-20-overview>.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode};
use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::seal::{Seal, SealError, SealErrorClass, WrappedKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::AliCredentials;
use super::sign::sign;
use super::sources::AliSources;
use crate::call::{Calls, Reply, form_body, invalid_request, printable_code, wrong_key};
use crate::credentials::Credentials;
use crate::stanza::{Key, SealConfigError, Stanza, is_loopback};

/// The keys of the stanza.
pub(crate) const KEYS: &[Key] = &[
    ("region", &["ALICLOUD_REGION"]),
    ("domain", &["ALICLOUD_DOMAIN"]),
    ("access_key", &[]),
    ("secret_key", &[]),
    ("kms_key_id", &["VAULT_ALICLOUDKMS_SEAL_KEY_ID"]),
    ("endpoint", &[]),
];

const VERSION: &str = "2016-01-20";
/// The region where no setting names one, as in Vault.
const REGION: &str = "us-east-1";

/// The seal.
struct AliKms {
    calls: Calls,
    credentials: Credentials<AliCredentials>,
    endpoint: String,
    key_id: String,
}

/// Creates the seal of a stanza.
pub(crate) fn create(stanza: &Stanza<'_>) -> Result<Arc<dyn Seal>, SealConfigError> {
    let key_id = stanza.required("kms_key_id")?;
    let region = stanza.region_or(REGION);
    if !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(stanza.refused("region must be the name of a region, such as eu-central-1"));
    }
    let domain = stanza.text("domain").unwrap_or_else(|| format!("kms.{region}.aliyuncs.com"));
    let endpoint = stanza.text("endpoint").unwrap_or_else(|| format!("https://{domain}"));
    let endpoint = stanza.url("endpoint", &endpoint)?;
    // The key to wrap is a parameter of the URL.
    let url: http::Uri = endpoint.parse().map_err(|_| stanza.refused("endpoint is not a URL"))?;
    if url.scheme_str() != Some("https") && !is_loopback(url.host().unwrap_or_default()) {
        return Err(stanza.refused("endpoint must be https://: the key to wrap is in the URL"));
    }
    let calls = Calls::new(stanza, &stanza.call_settings()?)?;
    let credentials = Credentials::new(Box::new(AliSources::new(stanza)?), stanza.clock());
    Ok(Arc::new(AliKms { calls, credentials, endpoint, key_id }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptResponse {
    ciphertext_blob: String,
    key_id: String,
    key_version_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DecryptResponse {
    plaintext: String,
}

#[derive(Deserialize, Default)]
struct ErrorResponse {
    #[serde(rename = "Code", default)]
    code: String,
}

impl AliKms {
    /// Calls an action with parameters in the order of their names; when the credentials are denied, once more with new
    /// ones.
    async fn call<T: DeserializeOwned>(&self, action: &str, parameters: &[(&str, &str)]) -> Result<T, SealError> {
        let query = form_body(parameters);
        let credentials = self.credentials.current().await?;
        let reply = match self.attempt(action, &query, &credentials).await {
            Err(error) if error.class == SealErrorClass::Denied => {
                let renewed = self.credentials.after_denial(&credentials).await?;
                self.attempt(action, &query, &renewed).await?
            }
            outcome => outcome?,
        };
        reply.json()
    }

    async fn attempt(&self, action: &str, query: &SecretBytes, by: &AliCredentials) -> Result<Reply, SealError> {
        // The service takes parameters in the query only.
        let url = SecretBytes::new([self.endpoint.as_bytes(), b"/?", query.expose()].concat());
        let create = || {
            let request = Request::post(url.expose().as_slice()).header("x-acs-action", action);
            let request = request.header("x-acs-version", VERSION).header("accept", "application/json");
            let mut request = request.body(SecretBytes::default()).map_err(invalid_request)?;
            sign(&mut request, by, self.calls.clock().now(), &random::uuid())?;
            Ok(request)
        };
        let reply = self.calls.send_each(create).await?;
        let bad_request = if action == "Decrypt" { SealErrorClass::WrongKey } else { SealErrorClass::Misconfigured };
        if reply.status == StatusCode::OK { Ok(reply) } else { Err(error_of(&reply, bad_request)) }
    }
}

/// The error of a response that is not 200; `bad_request` is the class of a 400 with an unknown code.
fn error_of(reply: &Reply, bad_request: SealErrorClass) -> SealError {
    let ErrorResponse { code } = reply.json().unwrap_or_default();
    let code = printable_code(&code);
    let class = match code.as_str() {
        "Forbidden.KeyNotFound"
        | "Forbidden.AliasNotFound"
        | "Rejected.Disabled"
        | "Rejected.PendingDeletion"
        | "Rejected.Unavailable" => SealErrorClass::WrongKey,
        // A repetition on the way to the service, such as that of a proxy.
        "SignatureNonceUsed" => SealErrorClass::Unreachable,
        code if code.starts_with("InvalidAccessKeyId") || code.starts_with("InvalidSecurityToken") => {
            SealErrorClass::Denied
        }
        code if code.starts_with("Forbidden") || code.starts_with("SignatureDoesNotMatch") => SealErrorClass::Denied,
        code if code.starts_with("Throttling") || code == "Rejected.Throttling" => {
            SealErrorClass::Throttled(reply.retry_after())
        }
        _ => return reply.unknown_error(&code, bad_request),
    };
    SealError::new(class, code)
}

#[async_trait]
impl Seal for AliKms {
    fn kind(&self) -> &'static str {
        "alicloudkms"
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        vec![("endpoint", self.endpoint.clone()), ("kms_key_id", self.key_id.clone())]
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        let plaintext = SecretString::new(STANDARD.encode(key.expose()));
        let parameters = [("KeyId", self.key_id.as_str()), ("Plaintext", plaintext.expose())];
        let EncryptResponse { ciphertext_blob, key_id, key_version_id } = self.call("Encrypt", &parameters).await?;
        let (key_id, blob) = (format!("{key_id}/{key_version_id}"), Bytes::from(ciphertext_blob));
        Ok(WrappedKey { key_id, mechanism: String::new(), blob, iv: None, tag: None })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        let blob = std::str::from_utf8(&wrapped.blob).map_err(|_| wrong_key("the wrapped key is not base64"))?;
        let DecryptResponse { plaintext } = self.call("Decrypt", &[("CiphertextBlob", blob)]).await?;
        let plaintext = SecretString::new(plaintext);
        let decoded = STANDARD.decode(plaintext.expose()).map(SecretBytes::new);
        let key = decoded.ok().and_then(|decoded| Key256::from_slice(decoded.expose()));
        key.ok_or_else(|| wrong_key("the unwrapped key does not have 32 bytes"))
    }
}
