//! `seal "transit"`: the transit engine of another server, Keepfast, OpenBao or Vault.
//!
//! Source: <https://openbao.org/docs/configuration/seal/transit>.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::clock::Timestamp;
use keepfast_framework::external_key::DEPTH_HEADER;
use keepfast_framework::seal::{Seal, SealError, WrappedKey};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use crate::call::{
    Calls, Reply, denied, invalid_request, json_body, misconfigured, secret_header, unreachable_because, wrong_key,
};
use crate::external::depth;
use crate::secret_file::read_secret_text_aside;
use crate::stanza::{Key, SealConfigError, Stanza};

/// The keys of the stanza.
pub(crate) const KEYS: &[Key] = &[
    ("address", &["VAULT_TRANSIT_SEAL_ADDR", "VAULT_ADDR"]),
    ("token", &["VAULT_TRANSIT_SEAL_TOKEN", "VAULT_TOKEN"]),
    ("token_file", &[]),
    ("key_name", &["VAULT_TRANSIT_SEAL_KEY_NAME"]),
    ("mount_path", &["VAULT_TRANSIT_SEAL_MOUNT_PATH"]),
    ("namespace", &["VAULT_NAMESPACE"]),
    ("disable_renewal", &["VAULT_TRANSIT_SEAL_DISABLE_RENEWAL"]),
    ("tls_ca_cert", &["VAULT_CACERT"]),
    ("tls_client_cert", &["VAULT_CLIENT_CERT"]),
    ("tls_client_key", &["VAULT_CLIENT_KEY"]),
    ("tls_server_name", &["VAULT_TLS_SERVER_NAME"]),
    ("tls_skip_verify", &["VAULT_SKIP_VERIFY"]),
];

/// The wait before the next renewal of a token after one failed; doubles with each further failure.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);
/// The longest such wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// The longest time between two renewals.
const LONGEST_RENEWAL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Characters of a segment of a path that are percent-encoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`');

/// The seal.
struct TransitSeal {
    server: Renewed,
    key_name: String,
}

/// The other server.
pub(crate) struct Server {
    pub(crate) calls: Calls,
    pub(crate) address: String,
    pub(crate) namespace: Option<String>,
    /// The path of the mount, without slashes around it.
    pub(crate) mount: String,
    pub(crate) token: Token,
}

/// The other server with the task that renews the token, which the first call starts.
pub(crate) struct Renewed {
    server: Arc<Server>,
    disabled: bool,
    task: Mutex<Option<AbortHandle>>,
}

/// Where the token is.
pub(crate) enum Token {
    Text(SecretString),
    /// A file, read at each call: another program may renew or replace the token.
    File(String),
}

/// Creates the seal of a stanza.
pub(crate) fn create(stanza: &Stanza<'_>) -> Result<Arc<dyn Seal>, SealConfigError> {
    let address = stanza.url("address", &stanza.required("address")?)?;
    let key_name = stanza.required("key_name")?;
    let mount = stanza.required("mount_path")?.trim_matches('/').to_owned();
    if !is_segment(&key_name) || !mount.split('/').all(is_segment) {
        return Err(stanza.refused("mount_path and key_name must be the path of a mount and the name of a key"));
    }
    let token = match (stanza.secret("token")?, stanza.text("token_file")) {
        (Some(token), _) => Token::Text(token),
        (None, Some(file)) => Token::File(file),
        (None, None) => return Err(stanza.refused("token or token_file is required")),
    };
    let mut settings = stanza.call_settings()?;
    stanza.tls(&mut settings)?;
    let calls = Calls::new(stanza, &settings)?;
    let server = Server { calls, address, namespace: stanza.text("namespace"), mount, token };
    let server = Renewed::new(server, stanza.flag("disable_renewal")?);
    Ok(Arc::new(TransitSeal { server, key_name }))
}

/// Whether a text is one segment of a path.
pub(crate) fn is_segment(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains('/')
}

/// The name of the key in the id of its version, `NAME:VERSION`.
fn name_of(key_id: &str) -> Option<&str> {
    key_id.rsplit_once(':').map(|(name, _)| name).filter(|name| is_segment(name))
}

#[derive(Serialize)]
struct EncryptRequest<'a> {
    plaintext: &'a str,
}

#[derive(Serialize)]
struct DecryptRequest<'a> {
    ciphertext: &'a str,
}

#[derive(Serialize)]
struct RenewRequest {
    increment: u32,
}

#[derive(Deserialize)]
pub(crate) struct DataOf<T> {
    pub(crate) data: T,
}

#[derive(Deserialize)]
struct EncryptResponse {
    ciphertext: String,
}

#[derive(Deserialize)]
struct DecryptResponse {
    plaintext: String,
}

#[derive(Deserialize)]
struct RenewResponse {
    auth: RenewedToken,
}

#[derive(Deserialize)]
struct RenewedToken {
    /// Seconds; 0 for a token without an expiry.
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize, Default)]
pub(crate) struct Errors {
    #[serde(default)]
    pub(crate) errors: Vec<String>,
}

impl Server {
    /// Calls a path below `/v1/` with the token. Every status is a reply.
    pub(crate) async fn send(&self, method: Method, path: &str, body: SecretBytes) -> Result<Reply, SealError> {
        let token = match &self.token {
            Token::Text(token) => token.clone(),
            Token::File(path) => read_secret_text_aside(path).await.map_err(denied)?,
        };
        let url = format!("{}/v1/{}", self.address, utf8_percent_encode(path, ENCODED));
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header("x-vault-token", secret_header(token.expose())?)
            .header("x-vault-request", "true")
            .header(DEPTH_HEADER, u16::from(depth::next()))
            .header("content-type", "application/json");
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace.as_str());
        }
        self.calls.send(request.body(body).map_err(invalid_request)?).await
    }

    /// Calls a path below `/v1/` with the token.
    async fn call(&self, path: &str, body: SecretBytes) -> Result<Reply, SealError> {
        self.accepted(self.send(Method::PUT, path, body).await?)
    }

    /// The reply, or the error of its status.
    pub(crate) fn accepted(&self, reply: Reply) -> Result<Reply, SealError> {
        match reply.status.as_u16() {
            200 | 204 => Ok(reply),
            404 => Err(misconfigured(format!("status 404: no transit engine at {}/", self.mount))),
            400 => Err(refused(&reply)),
            _ => {
                Err(reply.general_error("").unwrap_or_else(|| unreachable_because(format!("status {}", reply.status))))
            }
        }
    }

    async fn encrypt(&self, key_name: &str, key: &Key256) -> Result<WrappedKey, SealError> {
        let plaintext = SecretString::new(STANDARD.encode(key.expose()));
        let body = json_body(&EncryptRequest { plaintext: plaintext.expose() })?;
        let reply = self.call(&format!("{}/encrypt/{key_name}", self.mount), body).await?;
        let DataOf { data: EncryptResponse { ciphertext } } = reply.json()?;
        let version =
            version_of(&ciphertext).ok_or_else(|| unreachable_because("the ciphertext has an unknown form"))?;
        let key_id = format!("{key_name}:{version}");
        Ok(WrappedKey { key_id, mechanism: String::new(), blob: Bytes::from(ciphertext), iv: None, tag: None })
    }

    async fn decrypt(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        let ciphertext = std::str::from_utf8(&wrapped.blob).ok().filter(|text| version_of(text).is_some());
        let ciphertext = ciphertext.ok_or_else(|| wrong_key("the wrapped key is not a ciphertext of transit"))?;
        // The configured key may be another one now.
        let name =
            name_of(&wrapped.key_id).ok_or_else(|| wrong_key("the stored id is not that of a version of a key"))?;
        let body = json_body(&DecryptRequest { ciphertext })?;
        let reply = self.call(&format!("{}/decrypt/{name}", self.mount), body).await?;
        let DataOf { data: DecryptResponse { plaintext } } = reply.json()?;
        let plaintext = SecretString::new(plaintext);
        let decoded = STANDARD.decode(plaintext.expose()).map(SecretBytes::new);
        let key = decoded.ok().and_then(|decoded| Key256::from_slice(decoded.expose()));
        key.ok_or_else(|| wrong_key("the unwrapped key does not have 32 bytes"))
    }

    /// Renews the token.
    async fn renew(&self) -> Result<Renewal, SealError> {
        let reply = self.send(Method::PUT, "auth/token/renew-self", json_body(&RenewRequest { increment: 0 })?).await?;
        if reply.status == StatusCode::BAD_REQUEST && is_not_renewable(&reply) {
            return Ok(Renewal::NotRenewable);
        }
        let RenewResponse { auth } = self.accepted(reply)?.json()?;
        Ok(match auth {
            RenewedToken { lease_duration: 0, .. } => Renewal::NotNeeded,
            RenewedToken { renewable: false, .. } => Renewal::NotRenewable,
            RenewedToken { lease_duration, .. } => Renewal::Until(Duration::from_secs(lease_duration)),
        })
    }

    /// Renews the token at half of its time, until it needs none.
    async fn renew_repeatedly(&self) {
        let clock = self.calls.clock().clone();
        let mut expires: Option<Timestamp> = None;
        let mut pause = RENEWAL_PAUSE;
        loop {
            let now = clock.now();
            let wait = match self.renew().await {
                Ok(Renewal::NotNeeded) => return,
                Ok(Renewal::NotRenewable) => {
                    tracing::warn!(
                        "the token of another server is not renewable: its transit engine fails when the token expires"
                    );
                    return;
                }
                Ok(Renewal::Until(ttl)) => {
                    (expires, pause) = (Some(now.after(ttl)), RENEWAL_PAUSE);
                    ttl / 2
                }
                Err(error) => {
                    let expires = expires.map(Timestamp::rfc3339_seconds);
                    tracing::warn!(%error, expires, "the token of another server's transit engine is not renewed");
                    let next = LONGEST_PAUSE.min(pause * 2);
                    std::mem::replace(&mut pause, next)
                }
            };
            let wait = wait.clamp(Duration::from_secs(1), LONGEST_RENEWAL);
            clock.sleep_until(now.after(wait)).await;
        }
    }
}

/// The outcome of a renewal.
enum Renewal {
    /// The token is valid for this time.
    Until(Duration),
    /// The token does not expire.
    NotNeeded,
    /// The token can never be renewed.
    NotRenewable,
}

/// Whether the server says that the token cannot be renewed, of a batch token or of one that is not renewable. Another 400,
/// such as that of a load balancer, may be transient.
fn is_not_renewable(reply: &Reply) -> bool {
    let Errors { errors } = reply.json().unwrap_or_default();
    errors.iter().any(|error| error.contains("not renewable") || error.contains("cannot be renewed"))
}

/// The error of a 400. The text of the server is not shown; it is read for its meaning.
fn refused(reply: &Reply) -> SealError {
    let Errors { errors } = reply.json().unwrap_or_default();
    let has = |text: &str| errors.iter().any(|error| error.contains(text));
    if has("key not found") {
        return wrong_key("status 400: the server has no key of this name");
    }
    if has("disallowed") || has("too old") || has("minimum") {
        return wrong_key("status 400: the version of the key is below its min_decryption_version");
    }
    wrong_key("status 400: the key of this name did not wrap these bytes, or cannot decrypt")
}

/// The version in a ciphertext: `v1` of `vault:v1:…`.
pub(crate) fn version_of(ciphertext: &str) -> Option<&str> {
    let (version, text) = ciphertext.strip_prefix("vault:")?.split_once(':')?;
    let digits = version.strip_prefix('v')?;
    let is_version = (1..=10).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_version && !text.is_empty()).then_some(version)
}

impl Renewed {
    /// A server whose token is renewed, unless that is disabled.
    pub(crate) fn new(server: Server, disabled: bool) -> Self {
        Renewed { server: Arc::new(server), disabled, task: Mutex::new(None) }
    }

    /// The server. The first call starts the renewal of the token: there is a runtime now.
    pub(crate) fn server(&self) -> &Server {
        let mut task = self.task.lock();
        // The program that writes a file renews the token in it.
        if !self.disabled && !matches!(self.server.token, Token::File(_)) && task.is_none() {
            let server = self.server.clone();
            *task = Some(tokio::spawn(async move { server.renew_repeatedly().await }).abort_handle());
        }
        &self.server
    }
}

impl Drop for Renewed {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

#[async_trait]
impl Seal for TransitSeal {
    fn kind(&self) -> &'static str {
        "transit"
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        let server = &self.server.server;
        let mut shown = vec![
            ("address", server.address.clone()),
            ("mount_path", format!("{}/", server.mount)),
            ("key_name", self.key_name.clone()),
        ];
        shown.extend(server.namespace.iter().map(|namespace| ("namespace", namespace.clone())));
        shown
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        self.server.server().encrypt(&self.key_name, key).await
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        self.server.server().decrypt(wrapped).await
    }

    async fn is_configured_key(&self, key_id: &str) -> Result<bool, SealError> {
        Ok(name_of(key_id) == Some(self.key_name.as_str()))
    }
}

#[cfg(test)]
#[path = "transit_tests.rs"]
mod tests;
