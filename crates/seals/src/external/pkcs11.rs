//! External keys of an HSM, by the program and the session of the seal pkcs11.
//!
//! Source: <https://openbao.org/api-docs/system/external-keys/plugins/pkcs11>.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::ecdsa::{Curve, Marshaling};
use keepfast_crypto::keys::ed25519::Ed25519Key;
use keepfast_crypto::keys::rsa::{RsaKey, RsaScheme};
use keepfast_crypto::keys::{Key, SaltLength, der};
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::Clock;
use keepfast_framework::external_key::{
    ExternalKey, ExternalKeyConnection, ExternalKeyError, ExternalKeyPlugin, Parameter, Parameters, Signing,
};
use keepfast_framework::seal::{SealError, SealErrorClass};
use tokio::sync::OnceCell;

use super::signing::{self, ToSign, no_encryption, no_signatures, remarshaled, wrong_ciphertext};
use super::{HsmLibrary, TIMEOUT};
use crate::call::{json_body, misconfigured, wrong_key};
use crate::pkcs11::protocol::{
    Described, EncryptWith, HsmHash, KeyName, MAX_INPUT, Mechanism, Request, Response, SignWith,
};
use crate::pkcs11::{
    HsmProgram, HsmSettings, MAX_TEXT, Pkcs11, SecretText, number, own_program, unexpected, variables_of,
};
use crate::stanza::Environment;

const CONFIG: &[Parameter] = &[
    Parameter::text("lib").required(),
    Parameter::text("slot"),
    Parameter::text("serial"),
    Parameter::text("token_label"),
    Parameter::secret("pin").required(),
];
const KEY: &[Parameter] = &[Parameter::text("label"), Parameter::text("id"), Parameter::text("rsa_oaep_hash")];

/// The start of the associated data of AES-GCM. That of a seal is empty: without it, a caller could decrypt the wrapped key
/// of a seal with the same key of the HSM.
const DOMAIN: &[u8] = b"keepfast-external-key\0";
/// Bytes of the nonce and the tag of a ciphertext of AES-GCM.
const GCM_OVERHEAD: usize = 28;
/// The bytes of the padding of a signature by PKCS#1 v1.5.
const PKCS1_OVERHEAD: usize = 11;

/// A library that the configuration of the server declares.
#[derive(Clone)]
struct Library {
    path: String,
    program: Result<HsmProgram, String>,
}

/// The plugin.
pub(super) struct Pkcs11Plugin {
    libraries: BTreeMap<String, Library>,
    clock: Arc<dyn Clock>,
}

impl Pkcs11Plugin {
    pub(super) fn new(
        libraries: &BTreeMap<String, HsmLibrary>,
        environment: &dyn Environment,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let libraries = libraries.iter().map(|(alias, library)| {
            let variables =
                variables_of(library.variables.iter().map(String::as_str), |name| environment.variable(name));
            let path = library.helper_program.clone().map_or_else(own_program, Ok);
            let program = path.map(|path| HsmProgram { path, variables });
            (alias.clone(), Library { path: library.path.clone(), program })
        });
        Pkcs11Plugin { libraries: libraries.collect(), clock: clock.clone() }
    }
}

impl ExternalKeyPlugin for Pkcs11Plugin {
    fn config_parameters(&self) -> &'static [Parameter] {
        CONFIG
    }

    fn key_parameters(&self) -> &'static [Parameter] {
        KEY
    }

    fn connect(&self, config: &Parameters) -> Result<Arc<dyn ExternalKeyConnection>, String> {
        let lib = config.text("lib").unwrap_or_default();
        let library = self.libraries.get(&lib).ok_or(
            "lib is not the alias of a library: the configuration of the server declares them by kms_library \"pkcs11\"",
        )?;
        let text = |name: &str| short(config, name);
        let slot = text("slot")?.map(|slot| number(&slot).ok_or("slot must be a number")).transpose()?;
        let (serial, token_label) = (text("serial")?, text("token_label")?);
        if slot.is_none() && serial.is_none() && token_label.is_none() {
            return Err("one of slot, serial and token_label is required".to_owned());
        }
        let pin = config.secret("pin").ok_or("pin is required")?;
        if pin.expose().len() > MAX_TEXT {
            return Err(format!("pin is longer than {MAX_TEXT} bytes"));
        }
        let settings = HsmSettings {
            lib: library.path.clone(),
            slot,
            token_label,
            serial,
            pin,
            is_seal: false,
            key: KeyName { label: None, id: None },
            mechanism: Mechanism::AesGcm,
        };
        let session = Pkcs11::new(settings, library.program.clone()?, self.clock.clone(), TIMEOUT);
        Ok(Arc::new(Connection(Arc::new(session))))
    }
}

/// A text that is not too long for the program.
fn short(parameters: &Parameters, name: &str) -> Result<Option<String>, String> {
    match parameters.text(name) {
        Some(text) if text.len() > MAX_TEXT => Err(format!("{name} is longer than {MAX_TEXT} bytes")),
        found => Ok(found),
    }
}

struct Connection(Arc<Pkcs11>);

impl ExternalKeyConnection for Connection {
    fn key(&self, key: &Parameters) -> Result<Arc<dyn ExternalKey>, String> {
        let id = short(key, "id")?.map(|id| id.trim_start_matches("0x").to_ascii_lowercase());
        if id.as_ref().is_some_and(|id| hex::decode(id).is_err()) {
            return Err("id must be hex, such as 0x1a2b".to_owned());
        }
        let name = KeyName { label: short(key, "label")?, id };
        if name.label.is_none() && name.id.is_none() {
            return Err("label or id is required".to_owned());
        }
        let oaep = match key.text("rsa_oaep_hash").unwrap_or_default().as_str() {
            "" | "sha256" => HsmHash::Sha256,
            "sha1" => HsmHash::Sha1,
            "sha224" => HsmHash::Sha224,
            "sha384" => HsmHash::Sha384,
            "sha512" => HsmHash::Sha512,
            _ => return Err("rsa_oaep_hash must be sha1, sha224, sha256, sha384 or sha512".to_owned()),
        };
        Ok(Arc::new(HsmKey { session: self.0.clone(), name, oaep, kind: OnceCell::new() }))
    }
}

struct HsmKey {
    session: Arc<Pkcs11>,
    name: KeyName,
    oaep: HsmHash,
    /// Read at the first call.
    kind: OnceCell<HsmKind>,
}

/// The kind of a key.
enum HsmKind {
    Aes,
    /// A key pair: its SubjectPublicKeyInfo, parsed.
    Pair(Vec<u8>, Box<Key>),
    Other,
}

impl HsmKey {
    /// Sends a request. When the caller goes away, the exchange with the program still ends in its own time.
    async fn call(&self, request: &Request<&str>) -> Result<Response<SecretText>, ExternalKeyError> {
        let (session, frame) = (self.session.clone(), json_body(request)?);
        let sent = tokio::spawn(async move { session.send(frame).await }).await;
        let sent = sent.unwrap_or_else(|error| Err(SealError::new(SealErrorClass::Crashed, error.to_string())));
        Ok(sent?)
    }

    async fn kind(&self) -> Result<&HsmKind, ExternalKeyError> {
        self.kind.get_or_try_init(|| self.read_kind()).await
    }

    async fn read_kind(&self) -> Result<HsmKind, ExternalKeyError> {
        let Response::Described(described) = self.call(&Request::Describe(self.name.clone())).await? else {
            return Err(unexpected().into());
        };
        let spki = match described {
            Described::Aes => return Ok(HsmKind::Aes),
            Described::Other => return Ok(HsmKind::Other),
            Described::Rsa { modulus, exponent } => RsaKey::spki_from_numbers(&bytes(&modulus)?, &bytes(&exponent)?),
            Described::Ec { parameters, point } => {
                let curve = Curve::from_oid(&bytes(&parameters)?);
                let curve =
                    curve.ok_or_else(|| misconfigured("the key of the HSM is on a curve that is not supported"))?;
                curve.spki_of_point(&point_of(&point)?)
            }
            Described::Edwards { point } => {
                let key = Ed25519Key::from_public(&point_of(&point)?);
                key.map_err(|_| misconfigured("the key of the HSM is on a curve that is not supported"))?.spki()
            }
        };
        let public = Key::from_spki(&spki).map_err(|_| misconfigured("the public key of the HSM is not valid"))?;
        Ok(HsmKind::Pair(spki, Box::new(public)))
    }

    async fn public(&self) -> Result<&Key, ExternalKeyError> {
        match self.kind().await? {
            HsmKind::Pair(_, public) => Ok(public),
            HsmKind::Aes | HsmKind::Other => Err(no_signatures()),
        }
    }

    /// The mechanism with which the key encrypts.
    async fn encryption(&self, associated_data: &[u8]) -> Result<EncryptWith, ExternalKeyError> {
        match self.kind().await? {
            HsmKind::Aes if associated_data.len() > MAX_INPUT => Err(too_long()),
            HsmKind::Aes => Ok(EncryptWith::AesGcm(STANDARD.encode([DOMAIN, associated_data].concat()))),
            HsmKind::Pair(_, key) if !matches!(**key, Key::Rsa(_)) => Err(no_encryption()),
            HsmKind::Pair(..) if associated_data.is_empty() => Ok(EncryptWith::Oaep(self.oaep)),
            HsmKind::Pair(..) => Err(ExternalKeyError::refused("the external key does not support associated data")),
            HsmKind::Other => Err(no_encryption()),
        }
    }
}

/// The longest input of RSA (RFC 8017): `overhead` is what the padding needs of the modulus. `None` for other keys.
fn longest_of_rsa(public: &Key, overhead: usize) -> Option<usize> {
    let Key::Rsa(key) = public else { return None };
    Some((key.bits() as usize).div_ceil(8).saturating_sub(overhead))
}

/// The bytes of the padding of OAEP.
fn oaep_overhead(hash: HsmHash) -> usize {
    let hash = match hash {
        HsmHash::Sha1 => Hash::Sha1,
        HsmHash::Sha224 => Hash::Sha224,
        HsmHash::Sha256 => Hash::Sha256,
        HsmHash::Sha384 => Hash::Sha384,
        HsmHash::Sha512 => Hash::Sha512,
    };
    2 * hash.size() + 2
}

fn check_rsa_length(input: &[u8], longest: Option<usize>) -> Result<(), ExternalKeyError> {
    match longest {
        Some(longest) if input.len() > longest => Err(ExternalKeyError::refused(format!(
            "the input is too long for the external key: at most {longest} bytes"
        ))),
        _ => Ok(()),
    }
}

/// The refusal of an input, where the HSM says that it is wrong. The key was found before.
fn refused_input(error: ExternalKeyError) -> ExternalKeyError {
    match error {
        ExternalKeyError::Unavailable(SealError { class: SealErrorClass::WrongKey, .. }) => {
            ExternalKeyError::refused("the HSM refused the input for this key")
        }
        other => other,
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, SealError> {
    STANDARD.decode(text).map_err(|_| unexpected())
}

/// The point of CKA_EC_POINT: an OCTET STRING, or the bytes without it in older libraries.
fn point_of(text: &str) -> Result<Vec<u8>, SealError> {
    let point = bytes(text)?;
    Ok(der::whole(&point, 0x04).map(|string| string.content.to_vec()).unwrap_or(point))
}

fn too_long() -> ExternalKeyError {
    ExternalKeyError::refused("the input is too long for a key of an HSM: at most 16 KiB")
}

/// The DigestInfo of a digest (RFC 8017, 9.2), without a hash function the input itself.
fn digest_info(hash: Option<Hash>, digest: Vec<u8>) -> Result<Vec<u8>, ExternalKeyError> {
    let Some(hash) = hash else { return Ok(digest) };
    let arc: &[u8] = match hash {
        Hash::Sha1 => &[6, 5, 0x2b, 0x0e, 3, 2, 0x1a],
        Hash::Sha224 => &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 4],
        Hash::Sha256 => &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1],
        Hash::Sha384 => &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2],
        Hash::Sha512 => &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3],
        _ => return Err(ExternalKeyError::refused("keys of HSMs do not sign with SHA-3")),
    };
    let algorithm = der::write(der::SEQUENCE, &[arc, &[5, 0]].concat());
    Ok(der::write(der::SEQUENCE, &[algorithm, der::write(0x04, &digest)].concat()))
}

fn hsm_hash(hash: Hash) -> Result<HsmHash, ExternalKeyError> {
    match hash {
        Hash::Sha1 => Ok(HsmHash::Sha1),
        Hash::Sha224 => Ok(HsmHash::Sha224),
        Hash::Sha256 => Ok(HsmHash::Sha256),
        Hash::Sha384 => Ok(HsmHash::Sha384),
        Hash::Sha512 => Ok(HsmHash::Sha512),
        _ => Err(ExternalKeyError::refused("keys of HSMs do not sign with SHA-3")),
    }
}

/// The mechanism of a signature, and its input.
fn mechanism(public: &Key, to_sign: ToSign) -> Result<(SignWith, Vec<u8>), ExternalKeyError> {
    Ok(match to_sign {
        ToSign::Message(message) => (SignWith::Eddsa, message),
        ToSign::Ecdsa(_, digest) => (SignWith::Ecdsa, digest),
        ToSign::Rsa(RsaScheme::Pkcs1(hash), digest) => (SignWith::RsaPkcs1, digest_info(hash, digest)?),
        ToSign::Rsa(RsaScheme::Pss(hash, salt), digest) => {
            let modulus = if let Key::Rsa(key) = public { key.bits() as usize } else { 0 };
            let longest = ((modulus.saturating_sub(1)).div_ceil(8)).saturating_sub(hash.size() + 2);
            let salt = match salt {
                SaltLength::Auto => longest,
                SaltLength::Hash => hash.size(),
                SaltLength::Bytes(bytes) => usize::from(bytes),
            };
            let salt = u16::try_from(salt).ok().filter(|_| salt <= longest);
            let salt = salt.ok_or_else(|| ExternalKeyError::refused("the external key cannot use this salt length"))?;
            (SignWith::RsaPss { hash: hsm_hash(hash)?, salt }, digest)
        }
    })
}

#[async_trait]
impl ExternalKey for HsmKey {
    async fn public_key(&self) -> Result<Vec<u8>, ExternalKeyError> {
        match self.kind().await? {
            HsmKind::Pair(spki, _) => Ok(spki.clone()),
            HsmKind::Aes | HsmKind::Other => Err(ExternalKeyError::refused("the external key has no public key")),
        }
    }

    async fn sign(&self, signing: &Signing<'_>) -> Result<Vec<u8>, ExternalKeyError> {
        let public = self.public().await?;
        let (with, input) = mechanism(public, signing::to_sign(public, signing)?)?;
        if input.len() > MAX_INPUT {
            return Err(too_long());
        }
        if with == SignWith::RsaPkcs1 {
            check_rsa_length(&input, longest_of_rsa(public, PKCS1_OVERHEAD))?;
        }
        let input = STANDARD.encode(input);
        let signed = self.call(&Request::Sign(self.name.clone(), with, &input)).await;
        let Response::Bytes(signature) = signed.map_err(refused_input)? else {
            return Err(unexpected().into());
        };
        let signature = bytes(&signature)?;
        let Key::Ecdsa(key) = public else { return Ok(signature) };
        let signature = remarshaled(key, &signature, Marshaling::Jws, signing);
        Ok(signature.ok_or_else(unexpected)?)
    }

    async fn verify(&self, signing: &Signing<'_>, signature: &[u8]) -> Result<bool, ExternalKeyError> {
        signing::verify(self.public().await?, signing, signature)
    }

    async fn encrypt(&self, plaintext: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, ExternalKeyError> {
        let with = self.encryption(associated_data).await?;
        if plaintext.len() > MAX_INPUT {
            return Err(too_long());
        }
        if let (EncryptWith::Oaep(hash), HsmKind::Pair(_, public)) = (&with, self.kind().await?) {
            check_rsa_length(plaintext, longest_of_rsa(public, oaep_overhead(*hash)))?;
        }
        let input = SecretString::new(STANDARD.encode(plaintext));
        let called = self.call(&Request::Encrypt(self.name.clone(), with, input.expose())).await;
        let Response::Bytes(ciphertext) = called.map_err(refused_input)? else {
            return Err(unexpected().into());
        };
        Ok(bytes(&ciphertext)?)
    }

    async fn decrypt(&self, ciphertext: &[u8], associated_data: &[u8]) -> Result<SecretBytes, ExternalKeyError> {
        let with = self.encryption(associated_data).await?;
        let fits = match with {
            EncryptWith::AesGcm(_) => (GCM_OVERHEAD..=MAX_INPUT + GCM_OVERHEAD).contains(&ciphertext.len()),
            EncryptWith::Oaep(_) => ciphertext.len() <= MAX_INPUT,
        };
        if !fits {
            return Err(wrong_ciphertext());
        }
        let input = STANDARD.encode(ciphertext);
        let called = self.call(&Request::Decrypt(self.name.clone(), with, &input)).await;
        let Response::Decrypted(SecretText(plaintext)) = called.map_err(|error| match error {
            // The key was found before: it did not create these bytes.
            ExternalKeyError::Unavailable(SealError { class: SealErrorClass::WrongKey, .. }) => wrong_ciphertext(),
            other => other,
        })?
        else {
            return Err(unexpected().into());
        };
        let plaintext = STANDARD.decode(plaintext.expose()).map(SecretBytes::new);
        plaintext.map_err(|_| wrong_key("the response of the program is not base64").into())
    }
}
