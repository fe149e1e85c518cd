//! Where access tokens of Google come from: a service account's key, workload identity federation, or the metadata of
//! the machine.
//!
//! Sources: <https://cloud.google.com/docs/authentication/application-default-credentials>,
//! <https://developers.google.com/identity/protocols/oauth2/service-account>, <https://google.aip.dev/auth/4117>.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, StatusCode};
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::pem;
use keepfast_crypto::keys::rsa::{RsaKey, RsaScheme};
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::seal::SealError;
use keepfast_framework::{Clock, Timestamp};
use keepfast_outbound::Proxies;
use serde::{Deserialize, Serialize};

use crate::bearer::{Bearer, refusal, token_of, token_request};
use crate::call::{Calls, denied, invalid_request, json_body, misconfigured, unreachable_because};
use crate::credentials::{Fresh, Source};
use crate::secret_file::read_secret_text_aside;
use crate::stanza::{SealConfigError, Stanza};

/// What tokens are for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
/// The scope of a token that only impersonates.
const PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The host of the metadata server.
const METADATA: &str = "metadata.google.internal";
/// The time of a token that is requested.
const LIFETIME: Duration = Duration::from_secs(3600);

/// The source of one seal.
pub(super) struct GoogleSource {
    calls: Calls,
    /// Calls without a proxy, for the metadata of the machine.
    local: Calls,
    clock: Arc<dyn Clock>,
    origin: Origin,
}

/// Where the credentials are.
enum Origin {
    /// The JSON of a key, in the configuration.
    Text(SecretString),
    /// A file with it, read at each renewal.
    File(String),
    /// The metadata server at this host.
    Metadata(String),
}

/// The JSON of credentials.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Document {
    ServiceAccount(ServiceAccount),
    ExternalAccount(ExternalAccount),
}

#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: String,
    token_uri: String,
}

#[derive(Deserialize)]
struct ExternalAccount {
    audience: String,
    subject_token_type: String,
    token_url: String,
    credential_source: CredentialSource,
    #[serde(default)]
    service_account_impersonation_url: Option<String>,
}

/// Where the token of the workload is.
#[derive(Deserialize)]
struct CredentialSource {
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    format: SubjectFormat,
}

#[derive(Deserialize, Default)]
struct SubjectFormat {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    subject_token_field_name: String,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

#[derive(Serialize)]
struct ImpersonationRequest {
    scope: [&'static str; 1],
    lifetime: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImpersonationResponse {
    access_token: String,
    expire_time: String,
}

impl GoogleSource {
    /// Reads the stanza and the variables; no file and no service.
    pub(super) fn new(stanza: &Stanza<'_>) -> Result<Self, SealConfigError> {
        let settings = stanza.call_settings()?;
        let mut local = settings.clone();
        local.proxies = Proxies::default();
        let named = stanza.secret("credentials")?;
        let variable = || stanza.ambient("GOOGLE_APPLICATION_CREDENTIALS").map(SecretString::new);
        let origin = match named.or_else(variable) {
            Some(text) if text.expose().trim_start().starts_with('{') => Origin::Text(text),
            Some(path) => Origin::File(path.expose().clone()),
            None => Origin::Metadata(stanza.ambient("GCE_METADATA_HOST").unwrap_or_else(|| METADATA.to_owned())),
        };
        let (calls, local) = (Calls::new(stanza, &settings)?, Calls::new(stanza, &local)?);
        Ok(GoogleSource { calls, local, clock: stanza.clock(), origin })
    }

    async fn of_document(&self, text: &SecretString) -> Result<Fresh<Bearer>, SealError> {
        // The text of the parser's error contains values.
        let document = serde_json::from_str(text.expose());
        let unknown = "the credentials of Google are neither of a service account nor of an external account";
        match document.map_err(|_| misconfigured(unknown))? {
            Document::ServiceAccount(account) => self.of_service_account(account).await,
            Document::ExternalAccount(account) => self.of_external_account(account).await,
        }
    }

    /// A JWT signed with the key of the account is exchanged for a token (RFC 7523).
    async fn of_service_account(&self, account: ServiceAccount) -> Result<Fresh<Bearer>, SealError> {
        let ServiceAccount { client_email, private_key, private_key_id, token_uri } = account;
        let private_key = SecretString::new(private_key);
        let now = self.clock.now();
        let assertion = assertion(&client_email, &private_key, &private_key_id, &token_uri, now)?;
        let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
        let request = token_request(&token_uri, &[grant, ("assertion", assertion.expose())])?;
        token_of(&self.calls.send(request).await?, "Google", now)
    }

    /// The token of the workload is exchanged (RFC 8693), and the result may impersonate a service account.
    async fn of_external_account(&self, account: ExternalAccount) -> Result<Fresh<Bearer>, SealError> {
        let subject = self.subject_token(&account.credential_source).await?;
        let impersonation = account.service_account_impersonation_url.as_deref();
        let request = token_request(
            &account.token_url,
            &[
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("audience", &account.audience),
                ("scope", if impersonation.is_some() { PLATFORM } else { SCOPE }),
                ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                ("subject_token", subject.expose()),
                ("subject_token_type", &account.subject_token_type),
            ],
        )?;
        let fresh = token_of(&self.calls.send(request).await?, "Google's token exchange", self.clock.now())?;
        match impersonation {
            Some(url) => self.impersonate(&fresh.value, url).await,
            None => Ok(fresh),
        }
    }

    async fn impersonate(&self, by: &Bearer, url: &str) -> Result<Fresh<Bearer>, SealError> {
        let body = json_body(&ImpersonationRequest { scope: [SCOPE], lifetime: format!("{}s", LIFETIME.as_secs()) })?;
        let request = Request::post(url).header("content-type", "application/json");
        let request = request.header("authorization", by.header()?).body(body).map_err(invalid_request)?;
        let reply = self.calls.send(request).await?;
        if reply.status != StatusCode::OK {
            return Err(refusal(&reply, "the impersonation of the service account"));
        }
        let ImpersonationResponse { access_token, expire_time } = reply.json()?;
        Ok(Fresh { value: Bearer::new(access_token), expires: Timestamp::parse_rfc3339(&expire_time) })
    }

    async fn subject_token(&self, source: &CredentialSource) -> Result<SecretString, SealError> {
        let text = match (&source.file, &source.url) {
            (Some(file), _) => read_secret_text_aside(file).await.map_err(denied)?,
            (None, Some(url)) => {
                let mut request = Request::get(url);
                for (name, value) in &source.headers {
                    request = request.header(name, value);
                }
                let reply = self.local.send(request.body(SecretBytes::default()).map_err(invalid_request)?).await?;
                if reply.status != StatusCode::OK {
                    return Err(refusal(&reply, "the credential_source"));
                }
                let text =
                    std::str::from_utf8(reply.body.expose()).map(|text| SecretString::new(text.trim().to_owned()));
                text.map_err(|_| unreachable_because("the token of the credential_source is not text"))?
            }
            _ => return Err(misconfigured("the credential_source has neither a file nor a url")),
        };
        if source.format.kind != "json" {
            return Ok(text);
        }
        let fields: Result<BTreeMap<String, serde_json::Value>, _> = serde_json::from_str(text.expose());
        let token = fields.ok().and_then(|mut fields| match fields.remove(&source.format.subject_token_field_name) {
            Some(serde_json::Value::String(token)) => Some(SecretString::new(token)),
            _ => None,
        });
        token.ok_or_else(|| misconfigured("the credential_source has no field of the name subject_token_field_name"))
    }

    async fn of_metadata(&self, host: &str) -> Result<Fresh<Bearer>, SealError> {
        let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
        let request = Request::get(url).header("metadata-flavor", "Google");
        let request = request.body(SecretBytes::default()).map_err(invalid_request)?;
        token_of(&self.local.send(request).await?, "the metadata server", self.clock.now())
    }
}

#[async_trait]
impl Source<Bearer> for GoogleSource {
    async fn fetch(&self) -> Result<Fresh<Bearer>, SealError> {
        match &self.origin {
            Origin::Text(text) => self.of_document(text).await,
            Origin::File(path) => self.of_document(&read_secret_text_aside(path).await.map_err(denied)?).await,
            Origin::Metadata(host) => self.of_metadata(host).await,
        }
    }
}

/// A JWT of a service account, signed with RS256 (RFC 7515).
fn assertion(
    email: &str,
    private_key: &SecretString,
    key_id: &str,
    audience: &str,
    now: Timestamp,
) -> Result<SecretString, SealError> {
    let invalid = || misconfigured("the private_key of the credentials is not an RSA key in PEM");
    let (_, der) = pem::decode(private_key.expose()).ok_or_else(invalid)?;
    let key = RsaKey::from_pkcs8(SecretBytes::new(der).expose()).map_err(|_| invalid())?;
    let (iat, exp) = (now.unix(), now.after(LIFETIME).unix());
    let header = json_body(&Header { alg: "RS256", typ: "JWT", kid: key_id })?;
    let claims = json_body(&Claims { iss: email, scope: SCOPE, aud: audience, iat, exp })?;
    let mut jwt = URL_SAFE_NO_PAD.encode(header.expose());
    jwt.push('.');
    URL_SAFE_NO_PAD.encode_string(claims.expose(), &mut jwt);
    let digest = Hash::Sha256.digest(jwt.as_bytes());
    let signature = key.sign(RsaScheme::Pkcs1(Some(Hash::Sha256)), &digest).map_err(|_| invalid())?;
    jwt.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
    Ok(SecretString::new(jwt))
}
