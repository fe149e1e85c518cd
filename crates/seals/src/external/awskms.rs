//! External keys of AWS KMS.
//!
//! Source: <https://docs.aws.amazon.com/kms/latest/APIReference/>.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::ecdsa::Marshaling;
use keepfast_crypto::keys::rsa::RsaScheme;
use keepfast_crypto::keys::{Key, SaltLength};
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::external_key::{
    ExternalKey, ExternalKeyConnection, ExternalKeyError, ExternalKeyPlugin, Parameter, Parameters, Signing,
};
use keepfast_framework::seal::SealError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::signing::{self, ToSign, no_encryption, no_signatures, remarshaled, wrong_ciphertext};
use super::{CallSettings, TIMEOUT, external_url};
use crate::aws::AwsCredentials;
use crate::aws::kms::{KmsClient, REGION, check_region, endpoint_of};
use crate::call::{Calls, unreachable_because};
use crate::credentials::{Credentials, Fresh, Source};

const CONFIG: &[Parameter] = &[
    Parameter::text("region"),
    Parameter::text("access_key").required(),
    Parameter::secret("secret_key").required(),
    Parameter::secret("session_token"),
    Parameter::text("endpoint"),
];
const KEY: &[Parameter] = &[Parameter::text("kms_key_id").required()];

/// The plugin.
pub(super) struct AwsKmsPlugin(pub(super) CallSettings);

impl ExternalKeyPlugin for AwsKmsPlugin {
    fn config_parameters(&self) -> &'static [Parameter] {
        CONFIG
    }

    fn key_parameters(&self) -> &'static [Parameter] {
        KEY
    }

    fn connect(&self, config: &Parameters) -> Result<Arc<dyn ExternalKeyConnection>, String> {
        let CallSettings { settings, clock } = self.0.clone();
        let region = config.text("region").unwrap_or_else(|| REGION.to_owned());
        check_region(&region)?;
        let endpoint = match config.text("endpoint") {
            Some(endpoint) => external_url("endpoint", &endpoint)?,
            None => endpoint_of(&region),
        };
        let credentials = AwsCredentials {
            access_key: config.text("access_key").ok_or("access_key is required")?,
            secret_key: config.secret("secret_key").ok_or("secret_key is required")?,
            session_token: config.secret("session_token"),
        };
        let calls = Calls::within(TIMEOUT, &settings, clock.clone()).map_err(|error| error.to_string())?;
        let credentials = Credentials::new(Box::new(Fixed(credentials)), clock);
        Ok(Arc::new(Connection(Arc::new(KmsClient { calls, credentials, endpoint, region }))))
    }
}

/// The credentials of a config. Those of the machine belong to its operator.
struct Fixed(AwsCredentials);

#[async_trait]
impl Source<AwsCredentials> for Fixed {
    async fn fetch(&self) -> Result<Fresh<AwsCredentials>, SealError> {
        Ok(Fresh { value: self.0.clone(), expires: None })
    }
}

struct Connection(Arc<KmsClient>);

impl ExternalKeyConnection for Connection {
    fn key(&self, key: &Parameters) -> Result<Arc<dyn ExternalKey>, String> {
        let id = key.text("kms_key_id").ok_or("kms_key_id is required")?;
        Ok(Arc::new(KmsKey { client: self.0.clone(), id, kind: OnceCell::new() }))
    }
}

struct KmsKey {
    client: Arc<KmsClient>,
    id: String,
    /// Read at the first call.
    kind: OnceCell<KmsKind>,
}

/// The kind of a key.
enum KmsKind {
    /// A symmetric key, which encrypts.
    Symmetric,
    /// A key pair that encrypts.
    Encrypts(Vec<u8>),
    /// A key pair that signs: its SubjectPublicKeyInfo, parsed.
    Signs(Vec<u8>, Box<Key>),
    /// A key of another use.
    Other,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyRequest<'a> {
    key_id: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeResponse {
    key_metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    #[serde(default)]
    key_spec: String,
    key_usage: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PublicKeyResponse {
    public_key: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SignRequest<'a> {
    key_id: &'a str,
    message: &'a str,
    message_type: &'static str,
    signing_algorithm: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SignResponse {
    signature: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptRequest<'a> {
    key_id: &'a str,
    plaintext: &'a str,
    encryption_algorithm: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptResponse {
    ciphertext_blob: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DecryptRequest<'a> {
    key_id: &'a str,
    ciphertext_blob: &'a str,
    encryption_algorithm: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DecryptResponse {
    plaintext: String,
}

impl KmsKey {
    async fn call<T: DeserializeOwned>(
        &self,
        action: &str,
        request: &(impl Serialize + Sync),
    ) -> Result<T, ExternalKeyError> {
        self.client.call(action, request).await.map_err(|error| match error.cause.as_str() {
            "InvalidCiphertextException" | "IncorrectKeyException" => wrong_ciphertext(),
            "InvalidKeyUsageException" => ExternalKeyError::refused("the external key does not support this"),
            "ValidationException" => ExternalKeyError::refused("KMS refused the input, such as its length"),
            _ => error.into(),
        })
    }

    async fn kind(&self) -> Result<&KmsKind, ExternalKeyError> {
        self.kind.get_or_try_init(|| self.read_kind()).await
    }

    async fn read_kind(&self) -> Result<KmsKind, ExternalKeyError> {
        let request = KeyRequest { key_id: &self.id };
        let DescribeResponse { key_metadata } = self.call("DescribeKey", &request).await?;
        let Metadata { key_spec, key_usage } = key_metadata;
        // The usage of a symmetric key that another service manages may be missing.
        match (key_usage.as_deref().unwrap_or("ENCRYPT_DECRYPT"), key_spec.as_str()) {
            ("ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT" | "") => Ok(KmsKind::Symmetric),
            ("ENCRYPT_DECRYPT", spec) if spec.starts_with("RSA_") => Ok(KmsKind::Encrypts(self.read_public().await?)),
            ("SIGN_VERIFY", _) => {
                let spki = self.read_public().await?;
                match Key::from_spki(&spki) {
                    Ok(public @ (Key::Rsa(_) | Key::Ecdsa(_) | Key::Ed25519(_))) => {
                        Ok(KmsKind::Signs(spki, Box::new(public)))
                    }
                    _ => Ok(KmsKind::Other),
                }
            }
            _ => Ok(KmsKind::Other),
        }
    }

    async fn read_public(&self) -> Result<Vec<u8>, ExternalKeyError> {
        let request = KeyRequest { key_id: &self.id };
        let PublicKeyResponse { public_key } = self.call("GetPublicKey", &request).await?;
        decoded(&public_key)
    }

    async fn public(&self) -> Result<&Key, ExternalKeyError> {
        match self.kind().await? {
            KmsKind::Signs(_, public) => Ok(public),
            _ => Err(no_signatures()),
        }
    }

    /// The algorithm with which the key encrypts.
    async fn encryption(&self, associated_data: &[u8]) -> Result<&'static str, ExternalKeyError> {
        let algorithm = match self.kind().await? {
            KmsKind::Symmetric => "SYMMETRIC_DEFAULT",
            KmsKind::Encrypts(_) => "RSAES_OAEP_SHA_256",
            KmsKind::Signs(..) | KmsKind::Other => return Err(no_encryption()),
        };
        // An encryption context would be in the log of AWS in plaintext.
        if !associated_data.is_empty() {
            return Err(ExternalKeyError::refused("keys of awskms do not support associated data"));
        }
        Ok(algorithm)
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, ExternalKeyError> {
    STANDARD.decode(text).map_err(|_| unreachable_because("the response has an unknown form").into())
}

/// The name of an algorithm of a signature, and what is sent: the message for Ed25519, else a digest.
fn algorithm(to_sign: ToSign) -> Result<(&'static str, &'static str, Vec<u8>), ExternalKeyError> {
    let unsupported = || ExternalKeyError::refused("KMS does not sign with this hash function and scheme");
    let (name, bytes) = match to_sign {
        ToSign::Message(message) => return Ok(("ED25519_SHA_512", "RAW", message)),
        ToSign::Ecdsa(hash, digest) => (for_hash(["ECDSA_SHA_256", "ECDSA_SHA_384", "ECDSA_SHA_512"], hash), digest),
        ToSign::Rsa(RsaScheme::Pkcs1(Some(hash)), digest) => {
            let names = ["RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512"];
            (for_hash(names, hash), digest)
        }
        // KMS always uses a salt of the length of the digest.
        ToSign::Rsa(RsaScheme::Pss(hash, SaltLength::Auto | SaltLength::Hash), digest) => {
            (for_hash(["RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512"], hash), digest)
        }
        ToSign::Rsa(..) => (None, Vec::new()),
    };
    Ok((name.ok_or_else(unsupported)?, "DIGEST", bytes))
}

fn for_hash(names: [&'static str; 3], hash: Hash) -> Option<&'static str> {
    let [sha256, sha384, sha512] = names;
    match hash {
        Hash::Sha256 => Some(sha256),
        Hash::Sha384 => Some(sha384),
        Hash::Sha512 => Some(sha512),
        _ => None,
    }
}

#[async_trait]
impl ExternalKey for KmsKey {
    async fn public_key(&self) -> Result<Vec<u8>, ExternalKeyError> {
        match self.kind().await? {
            KmsKind::Encrypts(spki) | KmsKind::Signs(spki, _) => Ok(spki.clone()),
            KmsKind::Symmetric | KmsKind::Other => Err(ExternalKeyError::refused("the external key has no public key")),
        }
    }

    async fn sign(&self, signing: &Signing<'_>) -> Result<Vec<u8>, ExternalKeyError> {
        let public = self.public().await?;
        let (signing_algorithm, message_type, message) = algorithm(signing::to_sign(public, signing)?)?;
        let message = STANDARD.encode(message);
        let request = SignRequest { key_id: &self.id, message: &message, message_type, signing_algorithm };
        let SignResponse { signature } = self.call("Sign", &request).await?;
        let signature = decoded(&signature)?;
        let Key::Ecdsa(key) = public else { return Ok(signature) };
        let signature = remarshaled(key, &signature, Marshaling::Asn1, signing);
        signature.ok_or_else(|| unreachable_because("the signature has an unknown form").into())
    }

    async fn verify(&self, signing: &Signing<'_>, signature: &[u8]) -> Result<bool, ExternalKeyError> {
        signing::verify(self.public().await?, signing, signature)
    }

    async fn encrypt(&self, plaintext: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, ExternalKeyError> {
        let encryption_algorithm = self.encryption(associated_data).await?;
        let plaintext = SecretString::new(STANDARD.encode(plaintext));
        let request = EncryptRequest { key_id: &self.id, plaintext: plaintext.expose(), encryption_algorithm };
        let EncryptResponse { ciphertext_blob } = self.call("Encrypt", &request).await?;
        decoded(&ciphertext_blob)
    }

    async fn decrypt(&self, ciphertext: &[u8], associated_data: &[u8]) -> Result<SecretBytes, ExternalKeyError> {
        let encryption_algorithm = self.encryption(associated_data).await?;
        let ciphertext_blob = STANDARD.encode(ciphertext);
        let request = DecryptRequest { key_id: &self.id, ciphertext_blob: &ciphertext_blob, encryption_algorithm };
        let DecryptResponse { plaintext } = self.call("Decrypt", &request).await?;
        let plaintext = SecretString::new(plaintext);
        decoded(plaintext.expose()).map(SecretBytes::new)
    }
}
