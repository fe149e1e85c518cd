//! Where access tokens of Azure come from: a client secret, workload identity, App Service, or the metadata of the
//! machine.
//!
//! Sources: <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>,
//! <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>.

use std::sync::Arc;

use async_trait::async_trait;
use http::Request;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::Clock;
use keepfast_framework::seal::SealError;
use keepfast_outbound::Proxies;
use percent_encoding::utf8_percent_encode;

use crate::bearer::{Bearer, token_of, token_request};
use crate::call::{Calls, UNRESERVED, denied, invalid_request, secret_header};
use crate::credentials::{Fresh, Source};
use crate::secret_file::read_secret_text_aside;
use crate::stanza::{SealConfigError, Stanza};

/// The metadata of the machine.
const METADATA: &str = "http://169.254.169.254/metadata/identity/oauth2/token";

/// The source of one seal.
pub(super) struct AzureSource {
    calls: Calls,
    /// Calls without a proxy, for the metadata of the machine.
    local: Calls,
    clock: Arc<dyn Clock>,
    /// `https://vault.azure.net`
    resource: String,
    origin: Origin,
}

/// Where the credentials are.
enum Origin {
    /// An application, which shows a secret or the token of its workload.
    Application { token_url: String, client_id: String, proof: Proof },
    /// A managed identity of App Service.
    AppService { endpoint: String, header: SecretString, client_id: Option<String> },
    /// A managed identity of the machine.
    Machine { endpoint: String, client_id: Option<String> },
}

enum Proof {
    Secret(SecretString),
    /// A file, read at each renewal.
    TokenFile(String),
}

impl AzureSource {
    /// Reads the stanza and the variables; no file and no service. `authority` is the host of Microsoft Entra.
    pub(super) fn new(stanza: &Stanza<'_>, authority: &str, resource: &str) -> Result<Self, SealConfigError> {
        let settings = stanza.call_settings()?;
        let mut local = settings.clone();
        local.proxies = Proxies::default();
        let (calls, local) = (Calls::new(stanza, &settings)?, Calls::new(stanza, &local)?);
        let authority = stanza.ambient("AZURE_AUTHORITY_HOST").unwrap_or_else(|| format!("https://{authority}"));
        let authority = stanza.url("AZURE_AUTHORITY_HOST", &authority)?;
        // The platform sets these variables together with the file of the token.
        let client_id = stanza.text("client_id").or_else(|| stanza.ambient("AZURE_CLIENT_ID"));
        let secret = stanza.secret("client_secret")?.map(Proof::Secret);
        let proof = secret.or_else(|| stanza.ambient("AZURE_FEDERATED_TOKEN_FILE").map(Proof::TokenFile));
        let origin = match (proof, client_id) {
            (Some(proof), Some(client_id)) => {
                let tenant = stanza.text("tenant_id").or_else(|| stanza.ambient("AZURE_TENANT_ID"));
                let tenant = tenant.ok_or_else(|| stanza.refused("tenant_id is required"))?;
                if !tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)) {
                    return Err(stanza.refused("tenant_id must be an id or a domain"));
                }
                let token_url = format!("{authority}/{tenant}/oauth2/v2.0/token");
                Origin::Application { token_url, client_id, proof }
            }
            (Some(_), None) => return Err(stanza.refused("client_id is required with a secret or a federated token")),
            (None, client_id) => match stanza.ambient("IDENTITY_ENDPOINT").zip(stanza.ambient("IDENTITY_HEADER")) {
                Some((endpoint, header)) => {
                    Origin::AppService { endpoint, header: SecretString::new(header), client_id }
                }
                None => Origin::Machine { endpoint: METADATA.to_owned(), client_id },
            },
        };
        Ok(AzureSource { calls, local, clock: stanza.clock(), resource: resource.to_owned(), origin })
    }

    async fn of_application(&self, url: &str, client_id: &str, proof: &Proof) -> Result<Fresh<Bearer>, SealError> {
        let scope = format!("{}/.default", self.resource);
        let mut fields = vec![("grant_type", "client_credentials"), ("client_id", client_id), ("scope", &scope)];
        let token = match proof {
            Proof::Secret(secret) => {
                fields.push(("client_secret", secret.expose()));
                None
            }
            Proof::TokenFile(file) => Some(read_secret_text_aside(file).await.map_err(denied)?),
        };
        if let Some(token) = &token {
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            fields.extend([("client_assertion_type", kind), ("client_assertion", token.expose())]);
        }
        let request = token_request(url, &fields)?;
        token_of(&self.calls.send(request).await?, "Microsoft Entra", self.clock.now())
    }

    /// A token of a managed identity.
    async fn of_identity(
        &self,
        (endpoint, version): (&str, &str),
        client_id: Option<&str>,
        (header, value): (&'static str, http::HeaderValue),
    ) -> Result<Fresh<Bearer>, SealError> {
        let resource = utf8_percent_encode(&self.resource, UNRESERVED);
        let mut url = format!("{endpoint}?api-version={version}&resource={resource}");
        if let Some(client_id) = client_id {
            url.push_str("&client_id=");
            url.extend(utf8_percent_encode(client_id, UNRESERVED));
        }
        let request = Request::get(url).header(header, value).body(SecretBytes::default()).map_err(invalid_request)?;
        token_of(&self.local.send(request).await?, "the managed identity", self.clock.now())
    }
}

#[async_trait]
impl Source<Bearer> for AzureSource {
    async fn fetch(&self) -> Result<Fresh<Bearer>, SealError> {
        match &self.origin {
            Origin::Application { token_url, client_id, proof } => {
                self.of_application(token_url, client_id, proof).await
            }
            Origin::AppService { endpoint, header, client_id } => {
                let header = ("x-identity-header", secret_header(header.expose())?);
                self.of_identity((endpoint, "2019-08-01"), client_id.as_deref(), header).await
            }
            Origin::Machine { endpoint, client_id } => {
                let header = ("metadata", http::HeaderValue::from_static("true"));
                self.of_identity((endpoint, "2018-02-01"), client_id.as_deref(), header).await
            }
        }
    }
}
