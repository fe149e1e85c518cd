//! External keys of the transit engine of another server: Keepfast, OpenBao or Vault.
//!
//! Source: <https://openbao.org/api-docs/system/external-keys/plugins/transit>.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use keepfast_crypto::keys::ecdsa::Marshaling;
use keepfast_crypto::keys::{SaltLength, pem};
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::external_key::{
    ExternalKey, ExternalKeyConnection, ExternalKeyError, ExternalKeyPlugin, Parameter, Parameters, Signing,
    SigningHash,
};
use keepfast_outbound::{Authorities, ClientCertificate, Trust};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::depth;
use super::signing::{no_encryption, no_signatures, wrong_ciphertext};
use super::{CallSettings, TIMEOUT, external_url};
use crate::call::{Calls, Reply, json_body, misconfigured, unreachable_because};
use crate::transit::{DataOf, Errors, Renewed, Server, Token, is_segment, version_of};

const CONFIG: &[Parameter] = &[
    Parameter::text("address"),
    Parameter::secret("token").required(),
    Parameter::text("namespace"),
    Parameter::text("mount_path"),
    Parameter::text("tls_server_name"),
    Parameter::flag("tls_skip_verify"),
    Parameter::text("tls_ca_cert_bytes"),
    Parameter::text("tls_client_cert_bytes"),
    Parameter::secret("tls_client_key_bytes"),
];
const KEY: &[Parameter] = &[Parameter::text("name").required(), Parameter::number("version").required()];

/// The address where the config has none, as in OpenBao.
const ADDRESS: &str = "https://127.0.0.1:8200";
/// The mount path where the config has none.
const MOUNT: &str = "transit";

/// The plugin.
pub(super) struct TransitPlugin(pub(super) CallSettings);

impl ExternalKeyPlugin for TransitPlugin {
    fn config_parameters(&self) -> &'static [Parameter] {
        CONFIG
    }

    fn key_parameters(&self) -> &'static [Parameter] {
        KEY
    }

    fn connect(&self, config: &Parameters) -> Result<Arc<dyn ExternalKeyConnection>, String> {
        let CallSettings { mut settings, clock } = self.0.clone();
        let address = external_url("address", &config.text("address").unwrap_or_else(|| ADDRESS.to_owned()))?;
        let mount = config.text("mount_path").unwrap_or_else(|| MOUNT.to_owned()).trim_matches('/').to_owned();
        if !mount.split('/').all(is_segment) {
            return Err("mount_path must be the path of a mount".to_owned());
        }
        if let Some(pem) = config.text("tls_ca_cert_bytes") {
            settings.trust = Trust::Only(vec![Authorities::Text { name: "tls_ca_cert_bytes".to_owned(), pem }]);
        }
        if config.flag("tls_skip_verify") {
            settings.trust = Trust::Anything;
        }
        settings.server_name = config.text("tls_server_name");
        settings.client_certificate =
            match (config.text("tls_client_cert_bytes"), config.secret("tls_client_key_bytes")) {
                (Some(chain), Some(key)) => Some(ClientCertificate::Text { chain, key }),
                (None, None) => None,
                _ => return Err("tls_client_cert_bytes and tls_client_key_bytes are set together".to_owned()),
            };
        let token = config.secret("token").ok_or("token is required")?;
        let calls = Calls::within(TIMEOUT, &settings, clock).map_err(|error| error.to_string())?;
        let namespace = config.text("namespace");
        let server = Server { calls, address, namespace, mount, token: Token::Text(token) };
        Ok(Arc::new(Connection(Arc::new(Renewed::new(server, false)))))
    }
}

struct Connection(Arc<Renewed>);

impl ExternalKeyConnection for Connection {
    fn key(&self, key: &Parameters) -> Result<Arc<dyn ExternalKey>, String> {
        let name = key.text("name").filter(|name| is_segment(name)).ok_or("name must be the name of a key")?;
        let version = u32::try_from(key.number("version")).ok().filter(|version| *version != 0);
        let version = version.ok_or("version must be the version of a key")?;
        Ok(Arc::new(TransitKey { server: self.0.clone(), name, version }))
    }
}

/// One version of a key.
struct TransitKey {
    server: Arc<Renewed>,
    name: String,
    version: u32,
}

#[derive(Serialize)]
struct SignRequest<'a> {
    input: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<&'a str>,
    prehashed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_algorithm: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_algorithm: Option<&'static str>,
    salt_length: Value,
    marshaling_algorithm: &'static str,
}

#[derive(Deserialize)]
struct SignResponse {
    signature: String,
}

#[derive(Deserialize)]
struct VerifyResponse {
    valid: bool,
}

#[derive(Serialize)]
struct EncryptRequest<'a> {
    plaintext: &'a str,
    key_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    associated_data: Option<&'a str>,
}

#[derive(Deserialize)]
struct EncryptResponse {
    ciphertext: String,
}

#[derive(Serialize)]
struct DecryptRequest<'a> {
    ciphertext: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    associated_data: Option<&'a str>,
}

#[derive(Deserialize)]
struct DecryptResponse {
    plaintext: String,
}

#[derive(Deserialize)]
struct KeyResponse {
    keys: serde_json::Map<String, Value>,
}

/// An error text of transit and its meaning.
type Refusal = (&'static str, fn() -> ExternalKeyError);

/// The meanings of error texts of transit. The text itself is not returned: the server is of the caller's choice.
const REFUSALS: &[Refusal] = &[
    ("does not support signing", no_signatures),
    ("does not support verification", no_signatures),
    ("encryption not supported", no_encryption),
    ("decryption not supported", no_encryption),
    ("message authentication failed", wrong_ciphertext),
    ("decryption error", wrong_ciphertext),
    ("invalid ciphertext", wrong_ciphertext),
    ("supplied signature is invalid", || ExternalKeyError::refused("supplied signature is invalid")),
    ("hash_algorithm=none requires", || {
        ExternalKeyError::refused("hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15")
    }),
    ("input must be hashed", || ExternalKeyError::refused("the input is not a digest of the hash function")),
    ("salt length", || ExternalKeyError::refused("the external key cannot use this salt length")),
    ("associated_data", || ExternalKeyError::refused("the external key does not support associated data")),
    ("message too long", || ExternalKeyError::refused("the plaintext is too long for the external key")),
    ("'context'", || ExternalKeyError::refused("the external key derives keys from a context, which is not supported")),
    ("higher than the latest", no_version),
    ("version is too new", no_version),
    ("less than the minimum", old_version),
    ("disallowed by policy", old_version),
    ("key not found", || misconfigured("the other server has no key of this name").into()),
    ("soft-deleted", || misconfigured("the key of the other server is soft-deleted").into()),
];

fn no_version() -> ExternalKeyError {
    misconfigured("the other server does not have this version of the key").into()
}

fn old_version() -> ExternalKeyError {
    misconfigured("the other server does not allow this version of the key").into()
}

impl TransitKey {
    async fn call<T: DeserializeOwned>(
        &self,
        operation: &str,
        request: &(impl Serialize + Sync),
    ) -> Result<T, ExternalKeyError> {
        depth::check()?;
        let server = self.server.server();
        let path = format!("{}/{operation}/{}", server.mount, self.name);
        let reply = server.send(Method::PUT, &path, json_body(request)?).await?;
        read(server, reply)
    }

    fn tagged(&self, bytes: &[u8], marshaling: Marshaling) -> String {
        let body = match marshaling {
            Marshaling::Asn1 => STANDARD.encode(bytes),
            Marshaling::Jws => URL_SAFE_NO_PAD.encode(bytes),
        };
        format!("vault:v{}:{body}", self.version)
    }

    /// The bytes of `vault:vN:…`, if it is of this version.
    fn untagged(&self, text: &str, marshaling: Marshaling) -> Result<Vec<u8>, ExternalKeyError> {
        let malformed = || unreachable_because("the response has an unknown form");
        let version = version_of(text).ok_or_else(malformed)?;
        if version.strip_prefix('v').and_then(|digits| digits.parse().ok()) != Some(self.version) {
            return Err(unreachable_because("the response is of another version of the key").into());
        }
        let body = text.rsplit(':').next().unwrap_or_default();
        let decoded = match marshaling {
            Marshaling::Asn1 => STANDARD.decode(body),
            Marshaling::Jws => URL_SAFE_NO_PAD.decode(body),
        };
        Ok(decoded.map_err(|_| malformed())?)
    }
}

/// The data of a reply, or its error.
fn read<T: DeserializeOwned>(server: &Server, reply: Reply) -> Result<T, ExternalKeyError> {
    if !reply.status.is_success() {
        let Errors { errors } = reply.json().unwrap_or_default();
        let meant = |text: &str| errors.iter().any(|error| error.contains(text));
        if let Some((_, refusal)) = REFUSALS.iter().find(|(text, _)| meant(text)) {
            return Err(refusal());
        }
        if reply.status == http::StatusCode::BAD_REQUEST {
            return Err(ExternalKeyError::refused("the other server refused the request with status 400"));
        }
    }
    let DataOf { data } = server.accepted(reply)?.json()?;
    Ok(data)
}

fn sign_request<'a>(signing: &Signing<'_>, input: &'a str) -> SignRequest<'a> {
    SignRequest {
        input,
        key_version: None,
        signature: None,
        prehashed: signing.prehashed,
        hash_algorithm: match signing.hash {
            SigningHash::OfKey => None,
            SigningHash::None => Some("none"),
            SigningHash::Of(hash) => Some(hash.name()),
        },
        signature_algorithm: signing.pkcs1.then_some("pkcs1v15"),
        salt_length: match signing.salt {
            SaltLength::Auto => "auto".into(),
            SaltLength::Hash => "hash".into(),
            SaltLength::Bytes(bytes) => bytes.into(),
        },
        marshaling_algorithm: match signing.marshaling {
            Marshaling::Asn1 => "asn1",
            Marshaling::Jws => "jws",
        },
    }
}

/// The base64 of associated data, `None` where there is none.
fn optional(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| STANDARD.encode(bytes))
}

#[async_trait]
impl ExternalKey for TransitKey {
    async fn public_key(&self) -> Result<Vec<u8>, ExternalKeyError> {
        depth::check()?;
        let server = self.server.server();
        let path = format!("{}/keys/{}", server.mount, self.name);
        let reply = server.send(Method::GET, &path, SecretBytes::default()).await?;
        if reply.status == http::StatusCode::NOT_FOUND {
            return Err(misconfigured("the other server has no key of this name").into());
        }
        let KeyResponse { keys } = read(server, reply)?;
        let version = keys.get(&self.version.to_string()).ok_or_else(no_version)?;
        let text = version["public_key"].as_str().ok_or_else(no_signatures)?;
        if let Some((_, der)) = pem::decode(text) {
            return Ok(der);
        }
        let raw = STANDARD.decode(text).ok();
        let key = raw.and_then(|raw| keepfast_crypto::keys::ed25519::Ed25519Key::from_public(&raw).ok());
        Ok(key.ok_or_else(|| unreachable_because("the public key has an unknown form"))?.spki())
    }

    async fn sign(&self, signing: &Signing<'_>) -> Result<Vec<u8>, ExternalKeyError> {
        let input = STANDARD.encode(signing.input);
        let request = SignRequest { key_version: Some(self.version), ..sign_request(signing, &input) };
        let SignResponse { signature } = self.call("sign", &request).await?;
        self.untagged(&signature, signing.marshaling)
    }

    async fn verify(&self, signing: &Signing<'_>, signature: &[u8]) -> Result<bool, ExternalKeyError> {
        let input = STANDARD.encode(signing.input);
        let signature = self.tagged(signature, signing.marshaling);
        let request = SignRequest { signature: Some(&signature), ..sign_request(signing, &input) };
        let VerifyResponse { valid } = self.call("verify", &request).await?;
        Ok(valid)
    }

    async fn encrypt(&self, plaintext: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, ExternalKeyError> {
        let plaintext = SecretString::new(STANDARD.encode(plaintext));
        let associated_data = optional(associated_data);
        let request = EncryptRequest {
            plaintext: plaintext.expose(),
            key_version: self.version,
            associated_data: associated_data.as_deref(),
        };
        let EncryptResponse { ciphertext } = self.call("encrypt", &request).await?;
        self.untagged(&ciphertext, Marshaling::Asn1)
    }

    async fn decrypt(&self, ciphertext: &[u8], associated_data: &[u8]) -> Result<SecretBytes, ExternalKeyError> {
        let ciphertext = self.tagged(ciphertext, Marshaling::Asn1);
        let associated_data = optional(associated_data);
        let request = DecryptRequest { ciphertext: &ciphertext, associated_data: associated_data.as_deref() };
        let DecryptResponse { plaintext } = self.call("decrypt", &request).await?;
        let plaintext = SecretString::new(plaintext);
        let decoded = STANDARD.decode(plaintext.expose()).map(SecretBytes::new);
        decoded.map_err(|_| unreachable_because("the response has an unknown form").into())
    }
}
