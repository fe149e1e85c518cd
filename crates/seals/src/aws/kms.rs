//! `seal "awskms"`: a key of AWS KMS.
//!
//! Sources: <https://developer.hashicorp.com/vault/docs/configuration/seal/awskms>,
//! <https://docs.aws.amazon.com/kms/latest/APIReference/>.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::seal::{Seal, SealError, SealErrorClass, WrappedKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::sign::sign;
use super::sources::AwsSources;
use super::{AwsCredentials, domain_of};
use crate::call::{Calls, Reply, invalid_request, json_body, printable_code, unreachable_because, wrong_key};
use crate::credentials::Credentials;
use crate::stanza::{Key, SealConfigError, Stanza};

/// The keys of the stanza.
pub(crate) const KEYS: &[Key] = &[
    ("region", &["AWS_REGION", "AWS_DEFAULT_REGION"]),
    ("access_key", &[]),
    ("secret_key", &[]),
    ("session_token", &[]),
    ("kms_key_id", &["VAULT_AWSKMS_SEAL_KEY_ID"]),
    ("endpoint", &["AWS_KMS_ENDPOINT"]),
];

/// The region where no setting names one, as in Vault.
pub(crate) const REGION: &str = "us-east-1";

/// The seal.
struct AwsKms {
    client: KmsClient,
    key_id: String,
}

/// Calls KMS in one region.
pub(crate) struct KmsClient {
    pub(crate) calls: Calls,
    pub(crate) credentials: Credentials<AwsCredentials>,
    pub(crate) endpoint: String,
    pub(crate) region: String,
}

/// Creates the seal of a stanza.
pub(crate) fn create(stanza: &Stanza<'_>) -> Result<Arc<dyn Seal>, SealConfigError> {
    let key_id = stanza.required("kms_key_id")?;
    let region = stanza.region_or(REGION);
    check_region(&region).map_err(|reason| stanza.refused(reason))?;
    let endpoint = match stanza.text("endpoint") {
        Some(endpoint) => stanza.url("endpoint", &endpoint)?,
        None => endpoint_of(&region),
    };
    let sources = AwsSources::new(stanza, &region)?;
    let calls = Calls::new(stanza, &stanza.call_settings()?)?;
    let credentials = Credentials::new(Box::new(sources), stanza.clock());
    Ok(Arc::new(AwsKms { client: KmsClient { calls, credentials, endpoint, region }, key_id }))
}

/// Refuses a text that is not the name of a region.
pub(crate) fn check_region(region: &str) -> Result<(), &'static str> {
    let is_name = region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_name { Ok(()) } else { Err("region must be the name of a region, such as us-east-1") }
}

/// The endpoint of KMS in a region.
pub(crate) fn endpoint_of(region: &str) -> String {
    format!("https://kms.{region}.{}", domain_of(region))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptRequest<'a> {
    key_id: &'a str,
    plaintext: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptResponse {
    ciphertext_blob: String,
    key_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DecryptRequest<'a> {
    key_id: &'a str,
    ciphertext_blob: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DecryptResponse {
    plaintext: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeKeyRequest<'a> {
    key_id: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeKeyResponse {
    key_metadata: KeyMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyMetadata {
    arn: String,
}

/// An error of KMS: `com.amazonaws.kms#DisabledException` or only the name.
#[derive(Deserialize, Default)]
struct KmsError {
    #[serde(rename = "__type", default)]
    kind: String,
}

impl KmsClient {
    /// Calls an action; when the credentials are denied, once more with new ones.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        action: &str,
        request: &(impl Serialize + Sync),
    ) -> Result<T, SealError> {
        let body = json_body(request)?;
        let credentials = self.credentials.current().await?;
        let reply = match self.attempt(action, &body, &credentials).await {
            Err(error) if error.class == SealErrorClass::Denied => {
                let renewed = self.credentials.after_denial(&credentials).await?;
                self.attempt(action, &body, &renewed).await?
            }
            outcome => outcome?,
        };
        reply.json()
    }

    async fn attempt(&self, action: &str, body: &SecretBytes, by: &AwsCredentials) -> Result<Reply, SealError> {
        let bad_request = if action == "Decrypt" { SealErrorClass::WrongKey } else { SealErrorClass::Misconfigured };
        let request = Request::post(format!("{}/", self.endpoint))
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("TrentService.{action}"));
        let mut request = request.body(body.clone()).map_err(invalid_request)?;
        sign(&mut request, by, (&self.region, "kms"), self.calls.clock().now())?;
        let reply = self.calls.send(request).await?;
        if reply.status == http::StatusCode::OK { Ok(reply) } else { Err(error_of(&reply, bad_request)) }
    }
}

/// The error of a response that is not 200; `bad_request` is the class of a 400 with an unknown code.
fn error_of(reply: &Reply, bad_request: SealErrorClass) -> SealError {
    let KmsError { kind } = reply.json().unwrap_or_default();
    let code = printable_code(kind.rsplit('#').next().unwrap_or_default());
    let class = match code.as_str() {
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "InvalidClientTokenId"
        | "ExpiredTokenException"
        | "OptInRequired" => SealErrorClass::Denied,
        "NotFoundException"
        | "DisabledException"
        | "KMSInvalidStateException"
        | "InvalidCiphertextException"
        | "IncorrectKeyException"
        | "InvalidKeyUsageException"
        | "InvalidArnException" => SealErrorClass::WrongKey,
        "ThrottlingException" | "LimitExceededException" | "TooManyRequestsException" => {
            SealErrorClass::Throttled(reply.retry_after())
        }
        "DependencyTimeoutException" | "KMSInternalException" | "KeyUnavailableException" | "ServiceUnavailable" => {
            SealErrorClass::Unreachable
        }
        "ValidationException" => bad_request,
        _ => return reply.unknown_error(&code, bad_request),
    };
    SealError::new(class, code)
}

#[async_trait]
impl Seal for AwsKms {
    fn kind(&self) -> &'static str {
        "awskms"
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        let KmsClient { region, endpoint, .. } = &self.client;
        vec![("region", region.clone()), ("kms_key_id", self.key_id.clone()), ("endpoint", endpoint.clone())]
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        let plaintext = SecretString::new(STANDARD.encode(key.expose()));
        let request = EncryptRequest { key_id: &self.key_id, plaintext: plaintext.expose() };
        let EncryptResponse { ciphertext_blob, key_id } = self.client.call("Encrypt", &request).await?;
        let blob = STANDARD.decode(ciphertext_blob).map(Bytes::from);
        let blob = blob.map_err(|_| unreachable_because("the response has an unknown form"))?;
        Ok(WrappedKey { key_id, mechanism: String::new(), blob, iv: None, tag: None })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        let blob = STANDARD.encode(&wrapped.blob);
        let request = DecryptRequest { key_id: &wrapped.key_id, ciphertext_blob: &blob };
        let DecryptResponse { plaintext } = self.client.call("Decrypt", &request).await?;
        let plaintext = SecretString::new(plaintext);
        let decoded = STANDARD.decode(plaintext.expose()).map(SecretBytes::new);
        let key = decoded.ok().and_then(|decoded| Key256::from_slice(decoded.expose()));
        key.ok_or_else(|| wrong_key("the unwrapped key does not have 32 bytes"))
    }

    async fn current_key(&self) -> Result<Option<String>, SealError> {
        let request = DescribeKeyRequest { key_id: &self.key_id };
        let DescribeKeyResponse { key_metadata } = self.client.call("DescribeKey", &request).await?;
        Ok(Some(key_metadata.arn))
    }
}
