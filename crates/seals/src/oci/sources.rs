//! Where keys that sign requests to Oracle Cloud come from: an API key of the configuration file of its command line, or
//! the certificate of the instance (instance principal), which is exchanged for a token.
//!
//! Sources: <https://docs.oracle.com/iaas/Content/API/Concepts/sdkconfig.htm>,
//! <https://docs.oracle.com/iaas/Content/Identity/Tasks/callingservicesfrominstances.htm>.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{Request, StatusCode};
use keepfast_crypto::hash::sha256;
use keepfast_crypto::keys::pem;
use keepfast_crypto::keys::rsa::RsaKey;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::seal::SealError;
use keepfast_framework::{Clock, Timestamp};
use keepfast_outbound::Proxies;
use serde::{Deserialize, Serialize};

use super::OciSigner;
use super::sign::sign;
use crate::call::{
    Calls, Reply, denied, invalid_request, json_body, misconfigured, secret_header, unreachable_because,
};
use crate::credentials::{Fresh, Source};
use crate::profile::Profile;
use crate::secret_file::read_secret_text_aside;
use crate::stanza::{SealConfigError, Stanza};

/// The address of instance metadata.
const METADATA: &str = "http://169.254.169.254";
/// Bits of the key of a session.
const SESSION_BITS: u32 = 2048;
/// The part of a certificate's subject with the tenancy.
const TENANCY: &[&[u8]] = &[b"opc-tenant:", b"opc-identity:"];

/// The source of one seal.
pub(super) struct OciSource {
    calls: Calls,
    /// Calls without a proxy, for the metadata of the machine.
    local: Calls,
    clock: Arc<dyn Clock>,
    origin: Origin,
}

enum Origin {
    /// A profile of a configuration file, read at each renewal.
    ApiKey { file: String, profile: String },
    /// The certificate of the instance; `endpoint` replaces the URL of the token service.
    Instance { metadata: String, endpoint: Option<String> },
}

impl OciSource {
    /// Reads the stanza and the variables; no file and no service.
    pub(super) fn new(stanza: &Stanza<'_>) -> Result<Self, SealConfigError> {
        let settings = stanza.call_settings()?;
        let mut local = settings.clone();
        local.proxies = Proxies::default();
        let variable = |name: &str| stanza.ambient(name);
        let origin = if stanza.flag("auth_type_api_key")? {
            let home = || stanza.machine_variable("HOME").map(|home| format!("{home}/.oci/config"));
            let file = variable("OCI_CONFIG_FILE").or_else(|| variable("OCI_CLI_CONFIG_FILE")).or_else(home);
            let file = file.ok_or_else(|| stanza.refused("auth_type_api_key needs OCI_CONFIG_FILE or HOME"))?;
            let profile = variable("OCI_CLI_PROFILE").unwrap_or_else(|| "DEFAULT".to_owned());
            Origin::ApiKey { file, profile }
        } else {
            let metadata = variable("OCI_METADATA_BASE_URL").unwrap_or_else(|| METADATA.to_owned());
            let endpoint = variable("OCI_SDK_AUTH_CLIENT_REGION_URL");
            let endpoint = endpoint.map(|url| stanza.url("OCI_SDK_AUTH_CLIENT_REGION_URL", &url)).transpose()?;
            Origin::Instance { metadata: metadata.trim_end_matches('/').to_owned(), endpoint }
        };
        let (calls, local) = (Calls::new(stanza, &settings)?, Calls::new(stanza, &local)?);
        Ok(OciSource { calls, local, clock: stanza.clock(), origin })
    }

    /// A new key of a session, for which the token service issues a token against the certificate of the instance.
    async fn of_instance(&self, metadata: &str, endpoint: Option<&str>) -> Result<Fresh<OciSigner>, SealError> {
        let leaf = self.metadata(metadata, "identity/cert.pem").await?;
        let intermediate = self.metadata(metadata, "identity/intermediate.pem").await?;
        let key = self.metadata(metadata, "identity/key.pem").await?;
        let malformed = || misconfigured("the certificate of the instance is malformed");
        let (_, der) = pem::decode(leaf.expose()).ok_or_else(malformed)?;
        let tenancy = tenancy_of(&der).ok_or_else(malformed)?;
        let fingerprint: Vec<String> = sha256(&der).iter().map(|byte| format!("{byte:02X}")).collect();
        let key_id = format!("{tenancy}/fed-x509-sha256/{}", fingerprint.join(":"));
        let signer = OciSigner { key_id, key: rsa_key(key.expose())? };
        let endpoint = match endpoint {
            Some(endpoint) => endpoint.to_owned(),
            None => {
                let region = self.metadata(metadata, "instance/canonicalRegionName").await?;
                let domain = self.metadata(metadata, "instance/regionInfo/realmDomainComponent").await?;
                let endpoint = token_service(region.expose().trim(), domain.expose().trim());
                endpoint.ok_or_else(|| misconfigured("the region or the realm of the instance is not a name"))?
            }
        };
        let session = tokio::task::spawn_blocking(|| RsaKey::generate(SESSION_BITS)).await;
        let failed = || misconfigured("a key of a session cannot be generated");
        let session = session.map_err(|_| failed())?.map_err(|_| failed())?;
        let session = RsaKey::from_pkcs8(session.expose()).map_err(|_| failed())?;
        let body = json_body(&TokenRequest {
            certificate: STANDARD.encode(&der),
            public_key: STANDARD.encode(session.spki().map_err(|_| failed())?),
            intermediate_certificates: pem::decode_all(intermediate.expose())
                .map(|(_, der)| STANDARD.encode(der))
                .collect(),
            fingerprint_algorithm: "SHA256",
        })?;
        let mut request = Request::post(format!("{endpoint}/v1/x509")).body(body).map_err(invalid_request)?;
        sign(&mut request, &signer, self.clock.now(), true)?;
        let reply = self.calls.send(request).await?;
        if reply.status != StatusCode::OK {
            return Err(refusal(&reply, "the token service"));
        }
        let TokenResponse { token } = reply.json()?;
        let expires = Some(expiry_of(&token).unwrap_or_else(|| self.clock.now()));
        Ok(Fresh { value: OciSigner { key_id: format!("ST${token}"), key: session }, expires })
    }

    async fn metadata(&self, metadata: &str, path: &str) -> Result<SecretString, SealError> {
        let request = Request::get(format!("{metadata}/opc/v2/{path}"));
        let request = request.header("authorization", secret_header("Bearer Oracle")?);
        let reply = self.local.send(request.body(SecretBytes::default()).map_err(invalid_request)?).await?;
        if reply.status != StatusCode::OK {
            return Err(refusal(&reply, "instance metadata"));
        }
        let text = std::str::from_utf8(reply.body.expose()).map(|text| SecretString::new(text.to_owned()));
        text.map_err(|_| unreachable_because("the response is not text"))
    }
}

#[async_trait]
impl Source<OciSigner> for OciSource {
    async fn fetch(&self) -> Result<Fresh<OciSigner>, SealError> {
        match &self.origin {
            Origin::ApiKey { file, profile } => Ok(Fresh { value: of_file(file, profile).await?, expires: None }),
            Origin::Instance { metadata, endpoint } => self.of_instance(metadata, endpoint.as_deref()).await,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenRequest {
    certificate: String,
    public_key: String,
    intermediate_certificates: Vec<String>,
    fingerprint_algorithm: &'static str,
}

#[derive(Deserialize)]
struct TokenResponse {
    token: String,
}

#[derive(Deserialize)]
struct Claims {
    exp: i64,
}

/// The token service of a region in the domain of its realm.
fn token_service(region: &str, domain: &str) -> Option<String> {
    let is_name = |name: &str| {
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        is_plain && (1..=128).contains(&name.len()) && name.split('.').all(|label| !label.is_empty())
    };
    (is_name(region) && is_name(domain)).then(|| format!("https://auth.{region}.{domain}"))
}

/// The key of a profile.
async fn of_file(file: &str, name: &str) -> Result<OciSigner, SealError> {
    let text = read_secret_text_aside(file).await.map_err(denied)?;
    let mut profile = Profile::default();
    profile.read(text.expose(), name);
    let setting = |key: &str| {
        let value = profile.get(key).map(|value| value.expose().clone());
        value.ok_or_else(|| misconfigured(format!("{file}: the profile {name:?} has no {key}")))
    };
    let key_id = format!("{}/{}/{}", setting("tenancy")?, setting("user")?, setting("fingerprint")?);
    let mut path = setting("key_file")?;
    if let Some(rest) = path.strip_prefix("~/") {
        let home = std::path::Path::new(file).parent().and_then(std::path::Path::parent);
        path = home.map(|home| home.join(rest).display().to_string()).unwrap_or_default();
    }
    let key = read_secret_text_aside(&path).await.map_err(denied)?;
    Ok(OciSigner { key_id, key: rsa_key(key.expose())? })
}

/// A private key in PEM, PKCS#8 or PKCS#1.
fn rsa_key(text: &str) -> Result<RsaKey, SealError> {
    let invalid = || misconfigured("the private key is not an RSA key in PEM without a pass phrase");
    let (label, der) = pem::decode(text).ok_or_else(invalid)?;
    let der = SecretBytes::new(der);
    let key = match label {
        "RSA PRIVATE KEY" => RsaKey::from_pkcs1(der.expose()),
        _ => RsaKey::from_pkcs8(der.expose()),
    };
    key.map_err(|_| invalid())
}

/// The tenancy in the subject of a certificate: a text `opc-tenant:OCID`, whose length is the byte before it.
fn tenancy_of(der: &[u8]) -> Option<String> {
    TENANCY.iter().find_map(|prefix| {
        let at = der.windows(prefix.len()).position(|window| window == *prefix)?;
        let length = usize::from(*der.get(at.checked_sub(1)?)?);
        let id = std::str::from_utf8(der.get(at + prefix.len()..at + length)?).ok()?;
        let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        (is_plain && !id.is_empty()).then(|| id.to_owned())
    })
}

/// The expiry of a JWT.
fn expiry_of(token: &str) -> Option<Timestamp> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let Claims { exp } = serde_json::from_slice(&claims).ok()?;
    Some(Timestamp::from_unix(exp))
}

fn refusal(reply: &Reply, what: &str) -> SealError {
    let refused = || denied(format!("{what}: status {}", reply.status.as_u16()));
    reply.general_error("").unwrap_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_service_is_in_the_domain_of_the_realm() {
        for (region, domain, url) in [
            ("eu-frankfurt-1", "oraclecloud.com", Some("https://auth.eu-frankfurt-1.oraclecloud.com")),
            ("us-langley-1", "oraclegovcloud.com", Some("https://auth.us-langley-1.oraclegovcloud.com")),
            ("a/b", "oraclecloud.com", None),
            ("a", "b@c", None),
            ("a", "b:1", None),
            ("a", ".b", None),
            ("", "b", None),
        ] {
            assert_eq!(token_service(region, domain).as_deref(), url, "{region} {domain}");
        }
    }
}
