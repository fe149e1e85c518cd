//! Where credentials of Alibaba Cloud come from: the stanza, variables, an OIDC token (RRSA), the metadata of the instance.
//!
//! Source: <https://www.alibabacloud.com/help/en/sdk/developer-reference/v2-manage-access-credentials>.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, StatusCode};
use keepfast_crypto::random;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::seal::SealError;
use keepfast_framework::{Clock, Timestamp};
use keepfast_outbound::Proxies;
use serde::Deserialize;

use super::AliCredentials;
use crate::call::{
    Calls, Reply, denied, form_body, invalid_request, printable_code, secret_header, unreachable_because,
};
use crate::credentials::{Fresh, Source};
use crate::secret_file::read_secret_text_aside;
use crate::stanza::{SealConfigError, Stanza};

/// The address of instance metadata.
const METADATA: &str = "http://100.100.100.200";
const STS: &str = "https://sts.aliyuncs.com";

/// The sources of one seal; the first one that is configured counts.
pub(super) struct AliSources {
    calls: Calls,
    /// Calls without a proxy, for the metadata of the machine.
    local: Calls,
    clock: Arc<dyn Clock>,
    fixed: Option<AliCredentials>,
    oidc: Option<Oidc>,
    sts: String,
    metadata: String,
}

/// A token of a workload that STS exchanges.
struct Oidc {
    file: String,
    role: String,
    provider: String,
}

impl AliSources {
    /// Reads the stanza and the variables; no file and no service.
    pub(super) fn new(stanza: &Stanza<'_>) -> Result<Self, SealConfigError> {
        let settings = stanza.call_settings()?;
        let mut local = settings.clone();
        local.proxies = Proxies::default();
        let variable = |name: &str| stanza.ambient(name);
        let oidc = variable("ALIBABA_CLOUD_OIDC_TOKEN_FILE").zip(variable("ALIBABA_CLOUD_ROLE_ARN"));
        let oidc = oidc.zip(variable("ALIBABA_CLOUD_OIDC_PROVIDER_ARN"));
        let sts = variable("ALIBABA_CLOUD_STS_ENDPOINT").unwrap_or_else(|| STS.to_owned());
        let metadata = variable("ALIBABA_CLOUD_METADATA_ENDPOINT").unwrap_or_else(|| METADATA.to_owned());
        Ok(AliSources {
            calls: Calls::new(stanza, &settings)?,
            local: Calls::new(stanza, &local)?,
            clock: stanza.clock(),
            fixed: fixed(stanza)?,
            oidc: oidc.map(|((file, role), provider)| Oidc { file, role, provider }),
            sts: stanza.url("ALIBABA_CLOUD_STS_ENDPOINT", &sts)?,
            metadata: metadata.trim_end_matches('/').to_owned(),
        })
    }

    /// `AssumeRoleWithOIDC`, which needs no signature.
    async fn of_oidc(&self, oidc: &Oidc) -> Result<Fresh<AliCredentials>, SealError> {
        let token = read_secret_text_aside(&oidc.file).await.map_err(denied)?;
        let create = || {
            let (nonce, now) = (random::uuid(), self.clock.now().rfc3339_seconds());
            let body = form_body(&[
                ("Action", "AssumeRoleWithOIDC"),
                ("Version", "2015-04-01"),
                ("Format", "JSON"),
                ("Timestamp", &now),
                ("SignatureNonce", &nonce),
                ("RoleArn", &oidc.role),
                ("OIDCProviderArn", &oidc.provider),
                ("OIDCToken", token.expose()),
                ("RoleSessionName", "keepfast"),
            ]);
            let request = Request::post(format!("{}/", self.sts));
            request.header("content-type", "application/x-www-form-urlencoded").body(body).map_err(invalid_request)
        };
        let reply = self.calls.send_each(create).await?;
        if reply.status != StatusCode::OK {
            return Err(refusal(&reply));
        }
        let StsResponse { credentials } = reply.json()?;
        Ok(credentials.fresh())
    }

    async fn of_metadata(&self) -> Result<Fresh<AliCredentials>, SealError> {
        let ttl = http::HeaderValue::from_static("21600");
        let put = Request::put(format!("{}/latest/api/token", self.metadata));
        let token = text_of(&self.local_reply(put.header("x-aliyun-ecs-metadata-token-ttl-seconds", ttl)).await?)?;
        let get = |path: &str| {
            let request = Request::get(format!("{}/latest/meta-data/ram/security-credentials/{path}", self.metadata));
            Ok::<_, SealError>(request.header("x-aliyun-ecs-metadata-token", secret_header(token.expose())?))
        };
        let roles = text_of(&self.local_reply(get("")?).await?)?;
        let role = roles.expose().lines().next().unwrap_or_default().trim();
        let credentials: JsonCredentials = self.local_reply(get(role)?).await?.json()?;
        Ok(credentials.fresh())
    }

    async fn local_reply(&self, request: http::request::Builder) -> Result<Reply, SealError> {
        let reply = self.local.send(request.body(SecretBytes::default()).map_err(invalid_request)?).await?;
        if reply.status == StatusCode::OK { Ok(reply) } else { Err(refusal(&reply)) }
    }
}

#[async_trait]
impl Source<AliCredentials> for AliSources {
    async fn fetch(&self) -> Result<Fresh<AliCredentials>, SealError> {
        match (&self.fixed, &self.oidc) {
            (Some(fixed), _) => Ok(Fresh { value: fixed.clone(), expires: None }),
            (None, Some(oidc)) => self.of_oidc(oidc).await,
            (None, None) => self.of_metadata().await,
        }
    }
}

/// The access key of the stanza, else of the variables.
fn fixed(stanza: &Stanza<'_>) -> Result<Option<AliCredentials>, SealConfigError> {
    let (access_key, secret_key) = (stanza.secret("access_key")?, stanza.secret("secret_key")?);
    if access_key.is_some() != secret_key.is_some() {
        return Err(stanza.refused("access_key and secret_key are set together"));
    }
    if let Some((access_key, secret_key)) = access_key.zip(secret_key) {
        let access_key = access_key.expose().clone();
        return Ok(Some(AliCredentials { access_key, secret_key, security_token: None }));
    }
    let either = |one: &str, other: &str| stanza.variable(one).or_else(|| stanza.variable(other));
    let access_key = either("ALICLOUD_ACCESS_KEY", "ALIBABA_CLOUD_ACCESS_KEY_ID");
    let secret_key = either("ALICLOUD_SECRET_KEY", "ALIBABA_CLOUD_ACCESS_KEY_SECRET").map(SecretString::new);
    let security_token = stanza.variable("ALIBABA_CLOUD_SECURITY_TOKEN").map(SecretString::new);
    let keys = access_key.zip(secret_key);
    Ok(keys.map(|(access_key, secret_key)| AliCredentials { access_key, secret_key, security_token }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StsResponse {
    credentials: JsonCredentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JsonCredentials {
    access_key_id: String,
    access_key_secret: String,
    security_token: String,
    expiration: String,
}

impl JsonCredentials {
    fn fresh(self) -> Fresh<AliCredentials> {
        let value = AliCredentials {
            access_key: self.access_key_id,
            secret_key: SecretString::new(self.access_key_secret),
            security_token: Some(SecretString::new(self.security_token)),
        };
        Fresh { value, expires: Timestamp::parse_rfc3339(&self.expiration) }
    }
}

#[derive(Deserialize, Default)]
struct ErrorResponse {
    #[serde(rename = "Code", default)]
    code: String,
}

fn refusal(reply: &Reply) -> SealError {
    let ErrorResponse { code } = reply.json().unwrap_or_default();
    let code = printable_code(&code);
    if code == "SignatureNonceUsed" {
        return unreachable_because(code);
    }
    let refused = || denied(format!("no credentials: status {} {code}", reply.status.as_u16()));
    reply.general_error(&code).unwrap_or_else(refused)
}

/// The body of a response as text.
fn text_of(reply: &Reply) -> Result<SecretString, SealError> {
    let text = std::str::from_utf8(reply.body.expose()).map(|text| SecretString::new(text.trim().to_owned()));
    text.map_err(|_| unreachable_because("the response is not text"))
}
