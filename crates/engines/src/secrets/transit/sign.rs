//! `sign/` and the signatures of `verify/`.

use std::sync::Arc;

use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::ecdsa::Marshaling;
use keepfast_crypto::keys::ed25519::Ed25519Key;
use keepfast_crypto::keys::rsa::RsaScheme;
use keepfast_crypto::keys::{Key, KeyError, KeyKind, SaltLength};
use keepfast_framework::external_key::{Signing, SigningHash};
use keepfast_framework::fields::{Flag, Int, Quoted, Text, given};
use keepfast_framework::{Cx, Data, Error, Outcome, Reply, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::batch::{self, Item};
use super::codec::{self, TagError};
use super::encrypt::{ItemError, NO_CONTEXT};
use super::external::Remote;
use super::keys::check_name;
use super::named_key::NamedKey;
use super::{Transit, hmac};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Sign {
    /// Name of the key.
    name: Text,
    /// Base64 of the input.
    input: Option<Text>,
    /// Base64 context of a derived key.
    context: Option<Text>,
    /// Hash function, in the path.
    urlalgorithm: Option<Text>,
    /// Hash function; sha2-256 when absent.
    hash_algorithm: Option<Text>,
    /// Deprecated: use `hash_algorithm`.
    algorithm: Option<Text>,
    /// Signature scheme of an RSA key: `pss` or `pkcs1v15`. Default: `pss`.
    signature_algorithm: Option<Text>,
    /// Format of an ECDSA signature: `asn1` or `jws`. Default: `asn1`.
    #[serde(default, deserialize_with = "given")]
    marshaling_algorithm: Option<Text>,
    /// Salt length of PSS: `auto`, `hash` or a number of bytes. Default: `auto`.
    #[serde(default, deserialize_with = "given")]
    salt_length: Option<Text>,
    /// Whether `input` is already a digest. Default: false.
    prehashed: Option<Flag>,
    /// Version of the key; 0 for the latest.
    key_version: Option<Int>,
    /// Several items in one request.
    #[serde(default, deserialize_with = "batch::unless_null")]
    batch_input: Option<Box<RawValue>>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Verify {
    /// Name of the key.
    pub name: Text,
    /// Base64 of the signed input.
    pub input: Option<Text>,
    /// The signature of `sign`.
    #[serde(default, deserialize_with = "given")]
    pub signature: Option<Text>,
    /// The HMAC of `hmac`.
    #[serde(default, deserialize_with = "given")]
    pub hmac: Option<Text>,
    /// Base64 context of a derived key.
    pub context: Option<Text>,
    /// Hash function, in the path.
    pub urlalgorithm: Option<Text>,
    /// Hash function; sha2-256 when absent.
    pub hash_algorithm: Option<Text>,
    /// Deprecated: use `hash_algorithm`.
    pub algorithm: Option<Text>,
    /// Signature scheme of an RSA key: `pss` or `pkcs1v15`. Default: `pss`.
    pub signature_algorithm: Option<Text>,
    /// Format of an ECDSA signature: `asn1` or `jws`. Default: `asn1`.
    #[serde(default, deserialize_with = "given")]
    pub marshaling_algorithm: Option<Text>,
    /// Salt length of PSS: `auto`, `hash` or a number of bytes. Default: `auto`.
    #[serde(default, deserialize_with = "given")]
    pub salt_length: Option<Text>,
    /// Whether `input` is already a digest. Default: false.
    pub prehashed: Option<Flag>,
    /// Several items in one request.
    #[serde(default, deserialize_with = "batch::unless_null")]
    pub batch_input: Option<Box<RawValue>>,
}

#[derive(Serialize, Default)]
struct SignResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    key_version: u32,
    /// Only of a derived key, as no other response contains its public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    /// The same in a batch, where OpenBao spells it differently.
    #[serde(rename = "publickey", skip_serializing_if = "Option::is_none")]
    public_key_in_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

#[derive(Serialize)]
pub(super) struct VerifyResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ItemError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// The parameters of a signature, the same for all items of a request.
pub(super) struct SignMode {
    /// `None` signs RSA input without a hash.
    hash: Option<Hash>,
    /// Whether the request names the hash function.
    names_hash: bool,
    prehashed: bool,
    scheme: String,
    marshaling: Marshaling,
    salt: SaltLength,
}

/// The request parameters for a [`SignMode`].
struct ModeParams<'a> {
    hash: Option<&'a Text>,
    scheme: Option<&'a Text>,
    marshaling: Marshaling,
    salt: SaltLength,
    prehashed: bool,
}

impl SignMode {
    /// Validates the parameters.
    fn new(requested: &ModeParams<'_>, named_key: &NamedKey) -> Result<Self> {
        let given = requested.hash.map(|text| &**text).filter(|name| !name.is_empty());
        let name = given.unwrap_or("sha2-256");
        let scheme = requested.scheme.map(|text| text.to_string()).unwrap_or_default();
        let hash = match name {
            "none" => None,
            known => Some(
                Hash::from_name(known)
                    .ok_or_else(|| Error::invalid(format!("invalid hash algorithm {}", Quoted(known))))?,
            ),
        };
        // The other system of an external key checks it.
        let signs_bare = matches!(named_key.record.kind, KeyKind::Ed25519 | KeyKind::MlDsa(_) | KeyKind::External);
        if hash.is_none() && !signs_bare && !(requested.prehashed && scheme == "pkcs1v15") {
            return Err(Error::invalid(
                "hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15",
            ));
        }
        Ok(SignMode {
            hash,
            names_hash: given.is_some(),
            prehashed: requested.prehashed,
            scheme,
            marshaling: requested.marshaling,
            salt: requested.salt,
        })
    }

    /// The signed bytes: the digest of the input, or the input if it is already a digest.
    fn digest(&self, input: Vec<u8>) -> Vec<u8> {
        match self.hash {
            Some(hash) if !self.prehashed => hash.digest(&input),
            _ => input,
        }
    }

    fn rsa(&self) -> Result<RsaScheme, ItemError> {
        match (&*self.scheme, self.hash) {
            ("" | "pss", Some(hash)) => Ok(RsaScheme::Pss(hash, self.salt)),
            ("pkcs1v15", hash) => Ok(RsaScheme::Pkcs1(hash)),
            (other, _) => Err(format!("unsupported rsa signature algorithm {other}").into()),
        }
    }

    /// The parameters for an external key.
    pub(super) fn signing<'a>(&self, input: &'a [u8]) -> Result<Signing<'a>, ItemError> {
        let pkcs1 = match &*self.scheme {
            "" | "pss" => false,
            "pkcs1v15" => true,
            other => return Err(format!("unsupported rsa signature algorithm {other}").into()),
        };
        let hash = match self.hash {
            _ if !self.names_hash => SigningHash::OfKey,
            None => SigningHash::None,
            Some(hash) => SigningHash::Of(hash),
        };
        let SignMode { prehashed, marshaling, salt, .. } = *self;
        Ok(Signing { input, prehashed, hash, pkcs1, salt, marshaling })
    }

    pub(super) fn tagged(&self, version: u32, signature: &[u8]) -> String {
        match self.marshaling {
            Marshaling::Asn1 => codec::tagged(version, signature),
            Marshaling::Jws => codec::tagged_url(version, signature),
        }
    }
}

/// Parses the format of the signature and the salt length, which are checked before the key is looked up.
fn parse_format(marshaling: Option<&Text>, salt: Option<&Text>) -> Result<(Marshaling, SaltLength)> {
    let salt = salt_length(salt.map_or("auto", |text| text))?;
    match marshaling.map(|text| &**text) {
        None | Some("asn1") => Ok((Marshaling::Asn1, salt)),
        Some("jws") => Ok((Marshaling::Jws, salt)),
        Some(other) => Err(Error::invalid(format!("invalid marshaling type {}", Quoted(other)))),
    }
}

fn salt_length(text: &str) -> Result<SaltLength> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(SaltLength::Auto),
        "hash" => Ok(SaltLength::Hash),
        number => match number.parse::<i64>() {
            // Go's constants: 0 is the longest that fits, -1 the digest's length.
            Ok(0) => Ok(SaltLength::Auto),
            Ok(-1) => Ok(SaltLength::Hash),
            Ok(length) if length < -1 => Err(Error::invalid(format!("salt length is invalid: {length}"))),
            Ok(length) => Ok(SaltLength::Bytes(u16::try_from(length).unwrap_or(u16::MAX))),
            Err(_) => Err(Error::invalid(format!("salt length neither 'auto', 'hash', nor an int: {text}"))),
        },
    }
}

pub(super) async fn sign(transit: &Transit, cx: &mut Cx, req: Sign) -> Result<Outcome> {
    let name = check_name(&req.name)?;
    let (marshaling, salt) = parse_format(req.marshaling_algorithm.as_ref(), req.salt_length.as_ref())?;
    let named_key = transit.key_cache.get(cx, name).await?.ok_or_else(|| Error::invalid("signing key not found"))?;
    if !named_key.record.kind.signs() {
        return Err(Error::invalid(format!("key type {} does not support signing", named_key.record.kind.name())));
    }
    named_key.record.usable()?;
    let mode = SignMode::new(
        &ModeParams {
            hash: req
                .urlalgorithm
                .as_ref()
                .filter(|name| !name.is_empty())
                .or(req.hash_algorithm.as_ref())
                .or(req.algorithm.as_ref()),
            scheme: req.signature_algorithm.as_ref(),
            marshaling,
            salt,
            prehashed: req.prehashed.is_some_and(|flag| flag.0),
        },
        &named_key,
    )?;
    let requested = req.key_version.unwrap_or_default().0;
    let Some(raw) = &req.batch_input else {
        let mut remote = Remote::of(cx, &named_key, 1)?;
        let context = req.context.map(String::from);
        let item = Item { input: Some(req.input.map(String::from).unwrap_or_default()), context, ..Item::default() };
        let signed = sign_any(&mut remote, &named_key, &mode, requested, &item).await?;
        let (version, signature, public_key) = signed.map_err(Error::invalid)?;
        let signed =
            SignResult { signature: Some(signature), key_version: version, public_key, ..SignResult::default() };
        return Data(signed).into_outcome();
    };
    let items = batch::lenient_items(raw, false)?;
    let mut remote = Remote::of(cx, &named_key, items.len())?;
    let mut signed = Vec::with_capacity(items.len());
    for item in items {
        let result = sign_any(&mut remote, &named_key, &mode, requested, &item).await?;
        let reference = Some(item.reference.unwrap_or_default());
        signed.push(match result {
            Ok((key_version, signature, public_key_in_batch)) => SignResult {
                signature: Some(signature),
                key_version,
                public_key_in_batch,
                reference,
                ..SignResult::default()
            },
            Err(error) => SignResult { error: Some(error), reference, ..SignResult::default() },
        });
        batch::yield_if_slow(named_key.record.kind).await;
    }
    batch::respond(signed)
}

/// The version, the signature, and the public key of a derived key.
type SignedItem = (u32, String, Option<String>);

/// Signs one item here, or with the external key.
async fn sign_any(
    remote: &mut Option<Remote<'_>>,
    named_key: &NamedKey,
    mode: &SignMode,
    requested: i64,
    item: &Item,
) -> Result<Result<SignedItem, ItemError>> {
    match remote {
        Some(remote) => remote.sign(mode, requested, item).await,
        None => Ok(sign_item(named_key, mode, requested, item)),
    }
}

/// Signs one item.
fn sign_item(named_key: &NamedKey, mode: &SignMode, requested: i64, item: &Item) -> Result<SignedItem, ItemError> {
    let input = input_of(item)?;
    let context = context_of(item)?;
    let version = named_key.record.version_for(requested, "signing")?;
    let key = prepared(named_key, version)?;
    if named_key.record.derived {
        let key = derive(named_key, version, &context)?;
        let signature = key.sign(&input).map_err(failed)?;
        return Ok((version, mode.tagged(version, &signature), Some(codec::encode(key.public()))));
    }
    let signature = match &**key {
        Key::Ed25519(key) => key.sign(&input),
        Key::MlDsa(key) => key.sign(&input),
        Key::Ecdsa(_) if mode.prehashed && input.is_empty() => return Err("ecdsa: hash cannot be empty".into()),
        Key::Ecdsa(key) => key.sign(&mode.digest(input), mode.marshaling),
        Key::Rsa(key) => key.sign(mode.rsa()?, &mode.digest(input)),
        _ => Err(KeyError::Unsupported),
    };
    let signature = signature.map_err(|why| signing_error(why, mode))?;
    Ok((version, mode.tagged(version, &signature), None))
}

/// An error of signing, with OpenBao's text.
fn signing_error(why: KeyError, mode: &SignMode) -> ItemError {
    match (why, &*mode.scheme, mode.salt) {
        (KeyError::PublicOnly, ..) => "requested version for signing does not contain a private part".into(),
        (KeyError::WrongDigestSize, "pkcs1v15", _) => "crypto/rsa: input must be hashed message".into(),
        (KeyError::WrongDigestSize, ..) => "crypto/rsa: input must be hashed with given hash".into(),
        (KeyError::WrongSaltLength, _, SaltLength::Bytes(n)) => format!("requested salt length {n} is invalid").into(),
        (why, ..) => failed(why),
    }
}

fn failed(why: KeyError) -> ItemError {
    why.to_string().into()
}

/// The decoded input of an item.
pub(super) fn input_of(item: &Item) -> Result<Vec<u8>, ItemError> {
    let input = item.input.as_deref().ok_or("missing input")?;
    Ok(codec::decode(input).map_err(|why| format!("unable to decode input as base64: {why}"))?)
}

fn context_of(item: &Item) -> Result<Vec<u8>, ItemError> {
    Ok(codec::decode(item.context.as_deref().unwrap_or_default()).map_err(|_| "failed to base64-decode context")?)
}

fn prepared(named_key: &NamedKey, version: u32) -> Result<&Arc<Key>, ItemError> {
    named_key.key(version).map_err(failed)?.ok_or(ItemError::Borrowed("no such key version"))
}

/// The key that a context derives from a version.
fn derive(named_key: &NamedKey, version: u32, context: &[u8]) -> Result<Ed25519Key, ItemError> {
    if context.is_empty() {
        return Err(format!("error deriving key: {NO_CONTEXT}").into());
    }
    let material = named_key.record.versions.get(&version).and_then(|stored| stored.material.as_ref());
    Ed25519Key::derive(material.ok_or("no such key version")?.expose(), context).map_err(failed)
}

pub(super) async fn verify(transit: &Transit, cx: &mut Cx, req: Verify) -> Result<Outcome> {
    let name = check_name(&req.name)?.to_owned();
    let batched = req.batch_input.is_some();
    let items = match &req.batch_input {
        Some(raw) => batch::lenient_items(raw, false)?,
        None => vec![Item {
            input: Some(req.input.as_deref().unwrap_or_default().to_owned()),
            signature: req.signature.as_deref().map(str::to_owned),
            hmac: req.hmac.as_deref().map(str::to_owned),
            context: req.context.as_deref().map(str::to_owned),
            ..Item::default()
        }],
    };
    let by_hmac = is_by_hmac(&items, batched)?;
    let hash = req
        .urlalgorithm
        .as_ref()
        .filter(|name| !name.is_empty())
        .or(req.hash_algorithm.as_ref())
        .or(req.algorithm.as_ref());
    let results: Vec<Result<bool, ItemError>> = if by_hmac {
        let hash = hmac::hash_for_verify(hash)?;
        let named_key = super::encrypt::require_key(transit, cx, &name).await?;
        items.iter().map(|item| hmac::verify_item(&named_key, hash, item)).collect()
    } else {
        let (marshaling, salt) = parse_format(req.marshaling_algorithm.as_ref(), req.salt_length.as_ref())?;
        let named_key = transit.key_cache.get(cx, &name).await?;
        let named_key = named_key.ok_or_else(|| Error::invalid("signature verification key not found"))?;
        named_key.record.usable()?;
        if !named_key.record.kind.signs() {
            return Err(Error::invalid(format!(
                "key type {} does not support verification",
                named_key.record.kind.name()
            )));
        }
        let prehashed = req.prehashed.is_some_and(|flag| flag.0);
        let scheme = req.signature_algorithm.as_ref();
        let mode = SignMode::new(&ModeParams { hash, scheme, marshaling, salt, prehashed }, &named_key)?;
        match Remote::of(cx, &named_key, items.len())? {
            Some(mut remote) => {
                let mut verified = Vec::with_capacity(items.len());
                for item in &items {
                    verified.push(remote.verify(&mode, item).await?);
                }
                verified
            }
            None => items.iter().map(|item| verify_item(&named_key, &mode, item)).collect(),
        }
    };
    if !batched {
        let valid = results.into_iter().next().unwrap_or(Ok(false)).map_err(Error::invalid)?;
        return Data(VerifyResult { valid: Some(valid), error: None, reference: None }).into_outcome();
    }
    let verified = results.into_iter().zip(items).map(|(result, item)| {
        let reference = Some(item.reference.unwrap_or_default());
        match result {
            Ok(valid) => VerifyResult { valid: Some(valid), error: None, reference },
            // OpenBao adds `valid: false` to the error of a signature, but not to that of an HMAC.
            Err(error) => VerifyResult { valid: (!by_hmac).then_some(false), error: Some(error), reference },
        }
    });
    batch::respond(verified.collect())
}

/// Whether the items have HMACs instead of signatures; all must agree.
fn is_by_hmac(items: &[Item], batched: bool) -> Result<bool> {
    let hmacs = items.iter().filter(|item| item.hmac.is_some()).count();
    let signatures = items.iter().filter(|item| item.signature.is_some()).count();
    match (hmacs, signatures) {
        (0, 0) if batched => Err(Error::invalid("no batch_input elements have 'signature' or 'hmac'")),
        (0, 0) => Err(Error::invalid("neither a 'signature' nor an 'hmac' were given to verify")),
        // If every item has both, the signatures are verified, as they prove more.
        (hmacs, signatures) if signatures == items.len() => Ok(hmacs != 0 && signatures == 0),
        (hmacs, _) if hmacs == items.len() => Ok(true),
        (_, 0) => Err(Error::invalid("some elements of batch_input are missing 'hmac'")),
        (0, _) => Err(Error::invalid("some elements of batch_input are missing 'signature'")),
        _ => Err(Error::invalid("elements of batch_input must all provide 'signature' or all provide 'hmac'")),
    }
}

fn verify_item(named_key: &NamedKey, mode: &SignMode, item: &Item) -> Result<bool, ItemError> {
    let input = input_of(item)?;
    let context = context_of(item)?;
    let (version, signature) = signature_of(named_key, mode, item)?;
    if named_key.record.derived {
        return Ok(derive(named_key, version, &context)?.verify(&input, &signature));
    }
    let verified = match &**prepared(named_key, version)? {
        Key::Ed25519(key) => Ok(key.verify(&input, &signature)),
        Key::MlDsa(key) => Ok(key.verify(&input, &signature)),
        Key::Ecdsa(key) => key.verify(&mode.digest(input), &signature, mode.marshaling),
        Key::Rsa(key) => key.verify(mode.rsa()?, &mode.digest(input), &signature),
        _ => Err(KeyError::Unsupported),
    };
    match verified {
        Ok(valid) => Ok(valid),
        Err(KeyError::Malformed) => Err("supplied signature is invalid".into()),
        // A digest or salt of impossible length makes the signature invalid.
        Err(KeyError::WrongDigestSize | KeyError::WrongSaltLength) => Ok(false),
        Err(why) => Err(failed(why)),
    }
}

/// The version and the bytes of the signature of an item, if the key's settings allow that version.
pub(super) fn signature_of(named_key: &NamedKey, mode: &SignMode, item: &Item) -> Result<(u32, Vec<u8>), ItemError> {
    let text = item.signature.as_deref().unwrap_or_default();
    let (version, body) = codec::parse_tagged(text).map_err(|why| match why {
        TagError::NoPrefix => "invalid signature: no prefix",
        TagError::WrongFields => "invalid signature: wrong number of fields",
        TagError::NoVersion => "invalid signature: version number could not be decoded",
    })?;
    if version > i64::from(named_key.record.latest) {
        return Err("invalid signature: version is too new".into());
    }
    if version < i64::from(named_key.record.min_decryption) {
        return Err("ciphertext or signature version is disallowed by policy (too old)".into());
    }
    let version = u32::try_from(version).map_err(|_| "invalid signature: version is too new")?;
    let signature = match mode.marshaling {
        Marshaling::Asn1 => codec::decode(body).ok(),
        Marshaling::Jws => codec::decode_url(body),
    };
    Ok((version, signature.ok_or("invalid base64 signature value")?))
}
