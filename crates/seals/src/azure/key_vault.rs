//! `seal "azurekeyvault"`: an RSA key of Azure Key Vault or of a managed HSM.
//!
//! Sources: <https://developer.hashicorp.com/vault/docs/configuration/seal/azurekeyvault>,
//! <https://learn.microsoft.com/rest/api/keyvault/keys>.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::seal::{Seal, SealError, SealErrorClass, WrappedKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::sources::AzureSource;
use crate::bearer::Bearer;
use crate::call::{Calls, Reply, invalid_request, json_body, printable_code, unreachable_because, wrong_key};
use crate::credentials::Credentials;
use crate::stanza::{Key, SealConfigError, Stanza};

/// The keys of the stanza.
pub(crate) const KEYS: &[Key] = &[
    ("tenant_id", &["AZURE_TENANT_ID"]),
    ("client_id", &["AZURE_CLIENT_ID"]),
    ("client_secret", &["AZURE_CLIENT_SECRET"]),
    ("environment", &["AZURE_ENVIRONMENT"]),
    ("vault_name", &["VAULT_AZUREKEYVAULT_VAULT_NAME"]),
    ("key_name", &["VAULT_AZUREKEYVAULT_KEY_NAME"]),
    ("resource", &["AZURE_AD_RESOURCE"]),
    ("endpoint", &[]),
];

/// The clouds: name, host of Microsoft Entra, domain of vaults.
const CLOUDS: &[(&str, &str, &str)] = &[
    ("AZUREPUBLICCLOUD", "login.microsoftonline.com", "vault.azure.net"),
    ("AZURECHINACLOUD", "login.chinacloudapi.cn", "vault.azure.cn"),
    ("AZUREUSGOVERNMENTCLOUD", "login.microsoftonline.us", "vault.usgovcloudapi.net"),
];
const API_VERSION: &str = "7.4";
const ALGORITHM: &str = "RSA-OAEP-256";

/// The seal.
struct KeyVault {
    calls: Calls,
    credentials: Credentials<Bearer>,
    /// `https://NAME.vault.azure.net`
    endpoint: String,
    key_name: String,
}

/// Creates the seal of a stanza.
pub(crate) fn create(stanza: &Stanza<'_>) -> Result<Arc<dyn Seal>, SealConfigError> {
    let part = |key: &str| {
        let value = stanza.required(key)?;
        if is_name(&value) { Ok(value) } else { Err(stanza.refused(format!("{key} has letters, digits and '-'"))) }
    };
    let (vault_name, key_name) = (part("vault_name")?, part("key_name")?);
    let cloud = stanza.text("environment").unwrap_or_default().to_ascii_uppercase();
    let cloud = CLOUDS.iter().find(|(name, ..)| cloud.is_empty() || *name == cloud);
    let names = || CLOUDS.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    let (_, authority, domain) =
        cloud.ok_or_else(|| stanza.refused(format!("environment must be one of {}", names())))?;
    let domain = stanza.text("resource").unwrap_or_else(|| (*domain).to_owned());
    let domain = domain.trim_start_matches("https://").trim_end_matches('/').to_owned();
    let endpoint = stanza.text("endpoint").unwrap_or_else(|| format!("https://{vault_name}.{domain}"));
    let endpoint = stanza.url("endpoint", &endpoint)?;
    let source = AzureSource::new(stanza, authority, &format!("https://{domain}"))?;
    let calls = Calls::new(stanza, &stanza.call_settings()?)?;
    let credentials = Credentials::new(Box::new(source), stanza.clock());
    Ok(Arc::new(KeyVault { calls, credentials, endpoint, key_name }))
}

fn is_name(text: &str) -> bool {
    (1..=127).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Name and version of a key identifier, `https://VAULT/keys/NAME/VERSION`.
fn name_and_version(id: &str) -> Option<(&str, &str)> {
    let (_, path) = id.split_once("/keys/")?;
    let (name, version) = path.split_once('/')?;
    (is_name(name) && is_name(version)).then_some((name, version))
}

#[derive(Serialize)]
struct KeyRequest<'a> {
    alg: &'a str,
    value: &'a str,
}

#[derive(Deserialize)]
struct KeyResponse {
    kid: String,
    value: String,
}

#[derive(Deserialize)]
struct KeyBundle {
    key: KeyId,
}

#[derive(Deserialize)]
struct KeyId {
    kid: String,
}

#[derive(Deserialize, Default)]
struct ErrorResponse {
    #[serde(default)]
    error: ErrorCode,
}

#[derive(Deserialize, Default)]
struct ErrorCode {
    #[serde(default)]
    code: String,
    #[serde(default)]
    innererror: Option<InnerError>,
}

#[derive(Deserialize)]
struct InnerError {
    #[serde(default)]
    code: String,
}

impl KeyVault {
    /// Calls a path below `/keys/`; when the token is denied, once more with a new one.
    async fn call<T: DeserializeOwned>(&self, path: &str, request: Option<&KeyRequest<'_>>) -> Result<T, SealError> {
        let body = request.map(json_body).transpose()?;
        let token = self.credentials.current().await?;
        let reply = match self.attempt(path, body.as_ref(), &token).await {
            Err(error) if error.class == SealErrorClass::Denied => {
                let renewed = self.credentials.after_denial(&token).await?;
                self.attempt(path, body.as_ref(), &renewed).await?
            }
            outcome => outcome?,
        };
        reply.json()
    }

    async fn attempt(&self, path: &str, body: Option<&SecretBytes>, token: &Bearer) -> Result<Reply, SealError> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let unwraps = path.ends_with("/unwrapkey");
        let bad_request = if unwraps { SealErrorClass::WrongKey } else { SealErrorClass::Misconfigured };
        let url = format!("{}/keys/{path}?api-version={API_VERSION}", self.endpoint);
        let request = Request::builder().method(method).uri(url).header("content-type", "application/json");
        let request = request.header("authorization", token.header()?);
        let request = request.body(body.cloned().unwrap_or_default()).map_err(invalid_request)?;
        let reply = self.calls.send(request).await?;
        if reply.status == StatusCode::OK { Ok(reply) } else { Err(error_of(&reply, bad_request)) }
    }

    /// The identifier of the current version.
    async fn current(&self) -> Result<String, SealError> {
        let KeyBundle { key: KeyId { kid } } = self.call(&self.key_name, None).await?;
        name_and_version(&kid)
            .map(|_| ())
            .ok_or_else(|| unreachable_because("the response names no version of a key"))?;
        Ok(kid)
    }
}

/// The error of a response that is not 200; `bad_request` is the class of a 400 with an unknown code.
fn error_of(reply: &Reply, bad_request: SealErrorClass) -> SealError {
    let ErrorResponse { error } = reply.json().unwrap_or_default();
    let inner = error.innererror.map(|inner| inner.code).unwrap_or_default();
    let code = printable_code(if inner.is_empty() { &error.code } else { &inner });
    let class = match code.as_str() {
        "KeyDisabled" | "KeyNotFound" | "KeyExpired" | "KeyNotYetValid" | "ObjectIsDeletedButRecoverable" => {
            SealErrorClass::WrongKey
        }
        "Throttled" => SealErrorClass::Throttled(reply.retry_after()),
        _ if reply.status == StatusCode::NOT_FOUND => SealErrorClass::WrongKey,
        _ => return reply.unknown_error(&code, bad_request),
    };
    SealError::new(class, if code.is_empty() { "status 404".to_owned() } else { code })
}

#[async_trait]
impl Seal for KeyVault {
    fn kind(&self) -> &'static str {
        "azurekeyvault"
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        vec![("endpoint", self.endpoint.clone()), ("key_name", self.key_name.clone())]
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        let current = self.current().await?;
        let (name, version) = name_and_version(&current).unwrap_or_default();
        let value = SecretString::new(URL_SAFE_NO_PAD.encode(key.expose()));
        let request = KeyRequest { alg: ALGORITHM, value: value.expose() };
        let path = format!("{name}/{version}/wrapkey");
        let KeyResponse { kid, value } = self.call(&path, Some(&request)).await?;
        let blob = URL_SAFE_NO_PAD.decode(value.trim_end_matches('=')).ok().filter(|_| kid == current);
        let blob = blob.ok_or_else(|| unreachable_because("the response has an unknown form"))?;
        Ok(WrappedKey { key_id: kid, mechanism: ALGORITHM.to_owned(), blob: Bytes::from(blob), iv: None, tag: None })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        let key = name_and_version(&wrapped.key_id).filter(|_| wrapped.mechanism == ALGORITHM);
        let (name, version) = key.ok_or_else(|| wrong_key("the stored id is not that of a version of a key"))?;
        let value = URL_SAFE_NO_PAD.encode(&wrapped.blob);
        let request = KeyRequest { alg: ALGORITHM, value: &value };
        let path = format!("{name}/{version}/unwrapkey");
        let KeyResponse { value, .. } = self.call(&path, Some(&request)).await?;
        let value = SecretString::new(value);
        let decoded = URL_SAFE_NO_PAD.decode(value.expose().trim_end_matches('=')).map(SecretBytes::new);
        let key = decoded.ok().and_then(|decoded| Key256::from_slice(decoded.expose()));
        key.ok_or_else(|| wrong_key("the unwrapped key does not have 32 bytes"))
    }

    async fn current_key(&self) -> Result<Option<String>, SealError> {
        self.current().await.map(Some)
    }

    async fn is_configured_key(&self, key_id: &str) -> Result<bool, SealError> {
        let current = self.current().await?;
        let without_version = |id: &str| id.rsplit_once('/').map(|(key, _)| key.to_owned());
        Ok(without_version(&current).is_some_and(|key| without_version(key_id) == Some(key)))
    }
}
