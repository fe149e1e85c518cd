//! Where credentials of AWS come from, in the order of its SDKs: the stanza, variables, web identity (IRSA), shared files,
//! containers (ECS, EKS Pod Identity), instance metadata (IMDSv2).
//!
//! Source: <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, StatusCode};
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::seal::SealError;
use keepfast_framework::{Clock, Timestamp};
use keepfast_outbound::Proxies;
use serde::Deserialize;

use super::profile::SharedFiles;
use super::sign::sign;
use super::{AwsCredentials, domain_of};
use crate::call::{
    Calls, Reply, denied, form_body, invalid_request, misconfigured, secret_header, unreachable_because,
};
use crate::credentials::{Fresh, Source};
use crate::profile::Profile;
use crate::secret_file::read_secret_text_aside;
use crate::stanza::{SealConfigError, Stanza};

/// The address of instance metadata.
const METADATA: &str = "http://169.254.169.254";
/// The host of the credentials of ECS containers.
const CONTAINER: &str = "http://169.254.170.2";
/// The hosts to which the token of a container may be sent without TLS: ECS and EKS.
const CONTAINER_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
/// The longest chain of profiles with `source_profile`.
const MAX_PROFILES: usize = 5;

/// The sources of one seal; the first one that is configured counts.
pub(super) struct AwsSources {
    calls: Calls,
    /// Calls without a proxy, for the metadata of the machine.
    local: Calls,
    clock: Arc<dyn Clock>,
    region: String,
    sts: String,
    fixed: Option<AwsCredentials>,
    web_identity: Option<WebIdentity>,
    profile: String,
    files: SharedFiles,
    container: Option<Container>,
    metadata: Option<String>,
}

/// A token of a workload that STS exchanges.
struct WebIdentity {
    file: String,
    role: String,
    session: String,
}

/// The endpoint of a container's credentials.
struct Container {
    url: String,
    token: Option<SecretString>,
    token_file: Option<String>,
}

impl AwsSources {
    /// Reads the stanza and the variables; no file and no service.
    pub(super) fn new(stanza: &Stanza<'_>, region: &str) -> Result<Self, SealConfigError> {
        let settings = stanza.call_settings()?;
        let mut local = settings.clone();
        local.proxies = Proxies::default();
        let variable = |name: &str| stanza.ambient(name);
        let session = variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "keepfast".to_owned());
        let web_identity = variable("AWS_WEB_IDENTITY_TOKEN_FILE").zip(variable("AWS_ROLE_ARN"));
        let home = stanza.machine_variable("HOME");
        let in_home = |name: &str| home.as_ref().map(|home| format!("{home}/.aws/{name}"));
        let sts = variable("AWS_ENDPOINT_URL_STS");
        let sts = sts.unwrap_or_else(|| format!("https://sts.{region}.{}", domain_of(region)));
        let is_off = variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let metadata = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| METADATA.to_owned());
        Ok(AwsSources {
            calls: Calls::new(stanza, &settings)?,
            local: Calls::new(stanza, &local)?,
            clock: stanza.clock(),
            region: region.to_owned(),
            sts: stanza.url("AWS_ENDPOINT_URL_STS", &sts)?,
            fixed: fixed(stanza)?,
            web_identity: web_identity.map(|(file, role)| WebIdentity { file, role, session }),
            profile: variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned()),
            files: SharedFiles {
                credentials: variable("AWS_SHARED_CREDENTIALS_FILE").or_else(|| in_home("credentials")),
                config: variable("AWS_CONFIG_FILE").or_else(|| in_home("config")),
            },
            container: container(stanza)?,
            metadata: (!is_off).then(|| metadata.trim_end_matches('/').to_owned()),
        })
    }

    async fn of_profile(&self, first: &Profile) -> Result<Fresh<AwsCredentials>, SealError> {
        // From the profile of the seal to the one with an access key, and back by a role each.
        let mut roles: Vec<(String, String, Option<String>)> = Vec::new();
        let mut current: Option<Profile> = None;
        let mut fresh = loop {
            let profile = current.as_ref().unwrap_or(first);
            let text = |key: &str| profile.get(key).map(|value| value.expose().clone());
            let session = text("role_session_name").unwrap_or_else(|| "keepfast".to_owned());
            let Some(role) = text("role_arn") else { break Fresh { value: keys_of(profile)?, expires: None } };
            if let Some(file) = text("web_identity_token_file") {
                break self.of_web_identity(&WebIdentity { file, role, session }).await?;
            }
            let source = text("source_profile");
            let source = source.ok_or_else(|| misconfigured("a profile has a role_arn without a source_profile"))?;
            roles.push((role, session, text("external_id")));
            if source == self.profile && roles.len() == 1 {
                break Fresh { value: keys_of(profile)?, expires: None };
            }
            if roles.len() >= MAX_PROFILES {
                return Err(misconfigured("the chain of source_profile is too long"));
            }
            let missing = || misconfigured("a source_profile is in no shared file");
            current = Some(self.files.profile_aside(&source).await?.ok_or_else(missing)?);
        };
        for (role, session, external_id) in roles.into_iter().rev() {
            fresh = self.assume(&fresh.value, &role, &session, external_id.as_deref()).await?;
        }
        Ok(fresh)
    }

    /// `AssumeRole`, signed with the credentials of the source profile.
    async fn assume(
        &self,
        by: &AwsCredentials,
        role: &str,
        session: &str,
        external_id: Option<&str>,
    ) -> Result<Fresh<AwsCredentials>, SealError> {
        let mut fields = vec![("Action", "AssumeRole"), ("RoleArn", role), ("RoleSessionName", session)];
        fields.extend(external_id.map(|id| ("ExternalId", id)));
        let mut request = self.sts_request(&fields)?;
        sign(&mut request, by, (&self.region, "sts"), self.clock.now())?;
        credentials_of_sts(&self.calls.send(request).await?)
    }

    /// `AssumeRoleWithWebIdentity`, which needs no signature.
    async fn of_web_identity(&self, identity: &WebIdentity) -> Result<Fresh<AwsCredentials>, SealError> {
        let token = read_secret_text_aside(&identity.file).await.map_err(denied)?;
        let request = self.sts_request(&[
            ("Action", "AssumeRoleWithWebIdentity"),
            ("RoleArn", &identity.role),
            ("RoleSessionName", &identity.session),
            ("WebIdentityToken", token.expose()),
        ])?;
        credentials_of_sts(&self.calls.send(request).await?)
    }

    fn sts_request(&self, fields: &[(&str, &str)]) -> Result<Request<SecretBytes>, SealError> {
        let mut all = vec![("Version", "2011-06-15")];
        all.extend(fields);
        let request = Request::post(format!("{}/", self.sts));
        let request = request.header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        request.body(form_body(&all)).map_err(invalid_request)
    }

    async fn of_container(&self, container: &Container) -> Result<Fresh<AwsCredentials>, SealError> {
        let token = match &container.token_file {
            Some(file) => Some(read_secret_text_aside(file).await.map_err(denied)?),
            None => container.token.clone(),
        };
        let mut request = Request::get(&container.url).header("accept", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", secret_header(token.expose())?);
        }
        let reply = self.local.send(request.body(SecretBytes::default()).map_err(invalid_request)?).await?;
        credentials_of_json(&reply, "the endpoint of the container")
    }

    async fn of_metadata(&self, metadata: &str) -> Result<Fresh<AwsCredentials>, SealError> {
        let ttl = http::HeaderValue::from_static("21600");
        let put =
            Request::put(format!("{metadata}/latest/api/token")).header("x-aws-ec2-metadata-token-ttl-seconds", ttl);
        let token = text_of(&self.metadata_reply(put).await?)?;
        let get = |path: &str| {
            let request = Request::get(format!("{metadata}/latest/meta-data/iam/security-credentials/{path}"));
            Ok::<_, SealError>(request.header("x-aws-ec2-metadata-token", secret_header(token.expose())?))
        };
        let roles = text_of(&self.metadata_reply(get("")?).await?)?;
        let role = roles.expose().lines().next().unwrap_or_default().trim();
        credentials_of_json(&self.metadata_reply(get(role)?).await?, "instance metadata")
    }

    async fn metadata_reply(&self, request: http::request::Builder) -> Result<Reply, SealError> {
        let reply = self.local.send(request.body(SecretBytes::default()).map_err(invalid_request)?).await?;
        if reply.status == StatusCode::OK { Ok(reply) } else { Err(failure(&reply, "instance metadata")) }
    }
}

#[async_trait]
impl Source<AwsCredentials> for AwsSources {
    async fn fetch(&self) -> Result<Fresh<AwsCredentials>, SealError> {
        if let Some(fixed) = &self.fixed {
            return Ok(Fresh { value: fixed.clone(), expires: None });
        }
        if let Some(identity) = &self.web_identity {
            return self.of_web_identity(identity).await;
        }
        if let Some(profile) = self.files.profile_aside(&self.profile).await?.filter(has_credentials) {
            return self.of_profile(&profile).await;
        }
        if let Some(container) = &self.container {
            return self.of_container(container).await;
        }
        match &self.metadata {
            Some(metadata) => self.of_metadata(metadata).await,
            None => Err(denied("there are no credentials of AWS: no key, role, profile or container, and no metadata")),
        }
    }
}

/// The access key of the stanza, else of the variables.
fn fixed(stanza: &Stanza<'_>) -> Result<Option<AwsCredentials>, SealConfigError> {
    if let (Some(access_key), Some(secret_key)) = (stanza.secret("access_key")?, stanza.secret("secret_key")?) {
        let session_token = stanza.secret("session_token")?;
        return Ok(Some(AwsCredentials { access_key: access_key.expose().clone(), secret_key, session_token }));
    }
    if stanza.of_file("access_key").is_some() || stanza.of_file("secret_key").is_some() {
        return Err(stanza.refused("access_key and secret_key are set together"));
    }
    let keys = stanza.variable("AWS_ACCESS_KEY_ID").zip(stanza.variable("AWS_SECRET_ACCESS_KEY"));
    Ok(keys.map(|(access_key, secret_key)| AwsCredentials {
        access_key,
        secret_key: SecretString::new(secret_key),
        session_token: stanza.variable("AWS_SESSION_TOKEN").map(SecretString::new),
    }))
}

fn container(stanza: &Stanza<'_>) -> Result<Option<Container>, SealConfigError> {
    let url = match stanza.ambient("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        Some(path) => format!("{CONTAINER}/{}", path.trim_start_matches('/')),
        None => match stanza.ambient("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            Some(url) => url,
            None => return Ok(None),
        },
    };
    let refused = || stanza.refused("AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https:// nor of the container");
    let uri: http::Uri = url.parse().map_err(|_| refused())?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if uri.scheme_str() != Some("https") && !is_local && !CONTAINER_HOSTS.contains(&host) {
        return Err(refused());
    }
    let token = stanza.ambient("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(SecretString::new);
    Ok(Some(Container { url, token, token_file: stanza.ambient("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") }))
}

fn has_credentials(profile: &Profile) -> bool {
    ["aws_access_key_id", "role_arn", "credential_process", "sso_session", "sso_start_url", "login_session"]
        .iter()
        .any(|key| profile.get(key).is_some())
}

fn keys_of(profile: &Profile) -> Result<AwsCredentials, SealError> {
    let keys = profile.get("aws_access_key_id").zip(profile.get("aws_secret_access_key"));
    let missing = || misconfigured("a profile has no access key; credential_process and SSO are not supported");
    let (access_key, secret_key) = keys.ok_or_else(missing)?;
    let (access_key, secret_key) = (access_key.expose().clone(), secret_key.clone());
    Ok(AwsCredentials { access_key, secret_key, session_token: profile.get("aws_session_token").cloned() })
}

/// The body of a response as text.
fn text_of(reply: &Reply) -> Result<SecretString, SealError> {
    let text = std::str::from_utf8(reply.body.expose()).map(|text| SecretString::new(text.trim().to_owned()));
    text.map_err(|_| unreachable_because("the response is not text"))
}

fn failure(reply: &Reply, what: &str) -> SealError {
    let error = reply.general_error("");
    error.unwrap_or_else(|| denied(format!("{what} has no credentials: status {}", reply.status.as_u16())))
}

/// The response of containers and of instance metadata.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JsonCredentials {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    expiration: Option<String>,
}

fn credentials_of_json(reply: &Reply, what: &str) -> Result<Fresh<AwsCredentials>, SealError> {
    if reply.status != StatusCode::OK {
        return Err(failure(reply, what));
    }
    let JsonCredentials { access_key_id, secret_access_key, token, expiration } = reply.json()?;
    let session_token = Some(SecretString::new(token)).filter(|token| !token.expose().is_empty());
    let value =
        AwsCredentials { access_key: access_key_id, secret_key: SecretString::new(secret_access_key), session_token };
    Ok(Fresh { value, expires: expiration.and_then(|text| Timestamp::parse_rfc3339(&text)) })
}

/// The credentials in a response of STS, which is XML: elements without attributes, whose values need no decoding.
fn credentials_of_sts(reply: &Reply) -> Result<Fresh<AwsCredentials>, SealError> {
    let text = text_of(reply)?;
    let element = |name: &str| {
        let (_, rest) = text.expose().split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.trim())
    };
    if reply.status != StatusCode::OK {
        let code = element("Code").unwrap_or_default();
        let refused = || denied(format!("STS: {}", crate::call::printable_code(code)));
        return Err(reply.general_error(code).unwrap_or_else(refused));
    }
    let keys = element("AccessKeyId").zip(element("SecretAccessKey"));
    let (access_key, secret_key) = keys.ok_or_else(|| unreachable_because("the response of STS has no credentials"))?;
    let secret = |text: &str| SecretString::new(text.to_owned());
    let value = AwsCredentials {
        access_key: access_key.to_owned(),
        secret_key: secret(secret_key),
        session_token: element("SessionToken").map(secret),
    };
    Ok(Fresh { value, expires: element("Expiration").and_then(Timestamp::parse_rfc3339) })
}
