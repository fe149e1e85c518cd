//! `encrypt/`, `decrypt/`, `rewrap/` and `datakey/`.

use std::borrow::Cow;
use std::sync::Arc;

use keepfast_crypto::keys::symmetric::SymmetricKey;
use keepfast_crypto::keys::{Key, KeyError, KeyKind};
use keepfast_crypto::{Zeroizing, random};
use keepfast_framework::fields::{Flag, Int, Text, given};
use keepfast_framework::routes::Exists;
use keepfast_framework::{Cx, Data, Error, Outcome, Reply, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::batch::{self, Item};
use super::codec::{self, TagError};
use super::config::SETTINGS;
use super::external::Remote;
use super::keys::check_name;
use super::named_key::{KEYS, NamedKey, NewKey};
use super::{Transit, usage};

/// Why one item failed; part of the response.
pub(super) type ItemError = Cow<'static, str>;

/// The error of a derived key without a context.
pub(super) const NO_CONTEXT: &str = "missing 'context' for key derivation; the key was created using a derived key, which means additional, per-request information must be included in order to perform operations with the key";

#[derive(Deserialize, JsonSchema)]
pub(super) struct Encrypt {
    /// Name of the key.
    name: Text,
    /// Base64 of the plaintext.
    #[serde(default, deserialize_with = "given")]
    plaintext: Option<Text>,
    /// Base64 context of a derived key.
    context: Option<Text>,
    /// Base64 of data that the ciphertext authenticates but does not contain.
    associated_data: Option<Text>,
    /// Version of the key; 0 for the latest.
    key_version: Option<Int>,
    /// Several items in one request.
    #[serde(default, deserialize_with = "batch::unless_null")]
    batch_input: Option<Box<RawValue>>,
    /// Status code of the response when some items of a batch fail. Default: 400.
    partial_failure_response_code: Option<Int>,
    /// Type of the key, if this request creates it.
    #[serde(rename = "type", default, deserialize_with = "given")]
    kind: Option<Text>,
    /// Whether a key that this request creates is convergent.
    convergent_encryption: Option<Flag>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Decrypt {
    /// Name of the key.
    name: Text,
    /// The ciphertext of `encrypt`.
    ciphertext: Option<Text>,
    /// Base64 context of a derived key.
    context: Option<Text>,
    /// Base64 of the data that the ciphertext authenticates.
    associated_data: Option<Text>,
    /// Several items in one request.
    #[serde(default, deserialize_with = "batch::unless_null")]
    batch_input: Option<Box<RawValue>>,
    /// Status code of the response when some items of a batch fail. Default: 400.
    partial_failure_response_code: Option<Int>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Rewrap {
    /// Name of the key.
    name: Text,
    /// The ciphertext of `encrypt`.
    ciphertext: Option<Text>,
    /// Base64 context of a derived key.
    context: Option<Text>,
    /// Version of the key to encrypt with; 0 for the latest.
    key_version: Option<Int>,
    /// Several items in one request.
    #[serde(default, deserialize_with = "batch::unless_null")]
    batch_input: Option<Box<RawValue>>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct DataKey {
    /// `plaintext` or `wrapped`: whether the response contains the plaintext of the new key.
    plaintext: Text,
    /// Name of the key that encrypts the new key.
    name: Text,
    /// Base64 context of a derived key.
    context: Option<Text>,
    /// Base64 of data that the ciphertext authenticates.
    associated_data: Option<Text>,
    /// Length of the new key in bits: 128, 256 or 512. Default: 256.
    #[serde(default, deserialize_with = "given")]
    bits: Option<Int>,
    /// Version of the key; 0 for the latest.
    key_version: Option<Int>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct KeyPath {
    /// Name of the key.
    name: Text,
}

/// A ciphertext or an error.
#[derive(Serialize, Default)]
struct Encrypted {
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

/// A plaintext in base64, or an error with an empty plaintext.
#[derive(Serialize)]
struct Decrypted {
    plaintext: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

/// Whether the key exists. If not, encrypting creates it, which policies treat as a separate capability.
pub(super) async fn exists(transit: &Transit, cx: &mut Cx, req: KeyPath) -> Result<Exists> {
    Ok(Exists(transit.key_cache.get(cx, &req.name).await?.is_some()))
}

pub(super) async fn encrypt(transit: &Transit, cx: &mut Cx, req: Encrypt) -> Result<Outcome> {
    let name = check_name(&req.name)?;
    let batched = req.batch_input.is_some();
    let items = match &req.batch_input {
        Some(raw) => batch::items(raw)?,
        None => vec![Item {
            plaintext: Some(req.plaintext.ok_or_else(|| Error::invalid("missing plaintext to encrypt"))?.0),
            context: req.context.map(String::from),
            associated_data: req.associated_data.map(String::from),
            key_version: req.key_version,
            ..Item::default()
        }],
    };
    if let Some(at) = items.iter().position(|item| item.plaintext.is_none()) {
        return Err(batch::parse_error(&format!("'[{at}].plaintext' missing plaintext to encrypt")));
    }
    let with_context = all_have_context(&items)?;
    let convergent = req.convergent_encryption.is_some_and(|flag| flag.0);
    let named_key = match transit.key_cache.get(cx, name).await? {
        Some(named_key) => named_key,
        None => create(cx, name, req.kind.as_deref(), with_context, convergent).await?,
    };
    named_key.record.usable()?;
    refuse_associated_data(named_key.record.kind, &items)?;
    usage::reserve_each(cx, name, &named_key, &items).await?;
    let mut failed = 0;
    let mut results: Vec<Encrypted> = Vec::with_capacity(items.len());
    let mut remote = Remote::of(cx, &named_key, items.len())?;
    for item in items {
        let result = match &mut remote {
            Some(remote) => remote.seal_item(&item).await?,
            None => seal_item(&named_key, &item),
        };
        failed += usize::from(result.is_err());
        results.push(encrypted(result, batched.then(|| item.reference.unwrap_or_default())));
    }
    match results.pop() {
        Some(Encrypted { error: Some(error), .. }) if !batched => Err(Error::invalid(error)),
        Some(only) if !batched => Data(only).into_outcome(),
        last => {
            results.extend(last);
            batch::respond_with_failures(cx, results, failed, req.partial_failure_response_code)
        }
    }
}

fn encrypted(result: Result<(u32, String), ItemError>, reference: Option<String>) -> Encrypted {
    match result {
        Ok((version, ciphertext)) => {
            Encrypted { ciphertext: Some(ciphertext), key_version: Some(version), reference, ..Encrypted::default() }
        }
        Err(error) => Encrypted { error: Some(error), reference, ..Encrypted::default() },
    }
}

/// Whether the items have a context: all or none must.
fn all_have_context(items: &[Item]) -> Result<bool> {
    let contexts = items.iter().filter(|item| has(&item.context)).count();
    if contexts != 0 && contexts != items.len() {
        return Err(Error::invalid("context should be set either in all the request blocks or in none"));
    }
    Ok(contexts != 0)
}

fn has(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

/// Creates the key of an `encrypt`, if the mount allows that.
async fn create(cx: &mut Cx, name: &str, kind: Option<&str>, derived: bool, convergent: bool) -> Result<Arc<NamedKey>> {
    if SETTINGS.get(cx, "").await?.unwrap_or_default().disable_upsert {
        return Err(Error::invalid("encryption key not found"));
    }
    if convergent && !derived {
        return Err(Error::invalid("convergent encryption requires derivation to be enabled, so context is required"));
    }
    let kind = kind.unwrap_or("aes256-gcm96");
    // Only ciphers: `encrypt` must not create a key pair by mistake.
    let known = KeyKind::from_name(kind).ok_or_else(|| Error::invalid(format!("unknown key type {kind}")))?;
    if !matches!(known, KeyKind::Symmetric(_)) {
        return Err(Error::invalid(format!("key type {kind} not supported for this operation")));
    }
    let mut record = NewKey { derived, convergent, ..NewKey::of(known) }.record();
    record.generate_version(cx.now()).await?;
    KEYS.put(cx, name, &record)?;
    Ok(Arc::new(NamedKey::new(record)))
}

/// Refuses associated data if the key's cipher cannot authenticate it.
fn refuse_associated_data(kind: KeyKind, items: &[Item]) -> Result<()> {
    if kind.binds_associated_data() {
        return Ok(());
    }
    match items.iter().position(|item| has(&item.associated_data)) {
        Some(at) => {
            let kind = kind.name();
            Err(Error::invalid(format!("'[{at}].associated_data' provided for non-AEAD cipher suite {kind}")))
        }
        None => Ok(()),
    }
}

/// Encrypts the plaintext of one item.
fn seal_item(named_key: &NamedKey, item: &Item) -> Result<(u32, String), ItemError> {
    let context = context_of(named_key, item.context.as_deref())?;
    let plaintext = plaintext_of(item)?;
    check_encrypts(named_key)?;
    let version = named_key.record.version_for(item.key_version.unwrap_or_default().0, "encryption")?;
    let aad = associated_data_of(item.associated_data.as_deref())?;
    seal(named_key, version, &context, &aad, &plaintext)
}

/// The decoded plaintext of an item.
pub(super) fn plaintext_of(item: &Item) -> Result<Zeroizing<Vec<u8>>, ItemError> {
    let plaintext = codec::decode(item.plaintext.as_deref().unwrap_or_default());
    Ok(Zeroizing::new(plaintext.map_err(|why| why.to_string())?))
}

fn check_encrypts(named_key: &NamedKey) -> Result<(), ItemError> {
    let kind = named_key.record.kind;
    if kind.encrypts() {
        Ok(())
    } else {
        Err(format!("message encryption not supported for key type {}", kind.name()).into())
    }
}

/// Encrypts with one version.
pub(super) fn seal(
    named_key: &NamedKey,
    version: u32,
    context: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<(u32, String), ItemError> {
    let sealed = match &**key(named_key, version)? {
        Key::Symmetric(key) if !named_key.record.derived => key.seal(aad, plaintext).map_err(failed)?,
        Key::Symmetric(_) => derive(named_key, version, context)?.seal(aad, plaintext).map_err(failed)?,
        Key::MlKem(key) => key.seal(aad, plaintext).map_err(failed)?,
        Key::Rsa(key) => key.encrypt(plaintext).map_err(|_| {
            ItemError::from("failed to RSA encrypt the plaintext: crypto/rsa: message too long for RSA key size")
        })?,
        _ => return Err("message encryption not supported".into()),
    };
    Ok((version, codec::tagged(version, &sealed)))
}

/// Decrypts one ciphertext.
fn open(named_key: &NamedKey, ciphertext: &str, context: &[u8], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, ItemError> {
    if !named_key.record.kind.encrypts() {
        return Err(format!("message decryption not supported for key type {}", named_key.record.kind.name()).into());
    }
    let (version, sealed) = parse(named_key, ciphertext)?;
    let cipher = match named_key.record.kind {
        KeyKind::Symmetric(cipher) => Some(cipher),
        _ => None,
    };
    if cipher.is_some_and(|cipher| sealed.len() < cipher.nonce_size()) {
        return Err("invalid ciphertext length".into());
    }
    let unauthentic = || match named_key.record.kind.name() {
        name if name.contains("chacha") => "chacha20poly1305: message authentication failed",
        _ => "cipher: message authentication failed",
    };
    let opened = match &**key(named_key, version)? {
        Key::Symmetric(key) if !named_key.record.derived => key.open(aad, &sealed),
        Key::Symmetric(_) => derive(named_key, version, context)?.open(aad, &sealed),
        Key::MlKem(key) => key.open(aad, &sealed),
        Key::Rsa(key) => match key.decrypt(&sealed) {
            Ok(plaintext) => return Ok(Zeroizing::new(plaintext.expose().clone())),
            Err(KeyError::PublicOnly) => {
                return Err("cannot decrypt ciphertext, key version does not have a private counterpart".into());
            }
            Err(_) => return Err("failed to RSA decrypt the ciphertext: crypto/rsa: decryption error".into()),
        },
        _ => return Err("message decryption not supported".into()),
    };
    opened.map(Zeroizing::new).map_err(|_| unauthentic().into())
}

/// The version and the bytes of a ciphertext, if the key's settings allow that version.
pub(super) fn parse(named_key: &NamedKey, ciphertext: &str) -> Result<(u32, Vec<u8>), ItemError> {
    let (version, body) = codec::parse_tagged(ciphertext).map_err(|why| match why {
        TagError::NoPrefix => "invalid ciphertext: no prefix",
        TagError::WrongFields => "invalid ciphertext: wrong number of fields",
        TagError::NoVersion => "invalid ciphertext: version number could not be decoded",
    })?;
    // The oldest releases wrote 0 for the first version.
    let version = if version == 0 { 1 } else { version };
    if version > i64::from(named_key.record.latest) {
        return Err("invalid ciphertext: version is too new".into());
    }
    if version < i64::from(named_key.record.min_decryption) {
        return Err("ciphertext or signature version is disallowed by policy (too old)".into());
    }
    let version = u32::try_from(version).map_err(|_| "invalid ciphertext: version is too new")?;
    let sealed = codec::decode(body).map_err(|_| "invalid ciphertext: could not decode base64")?;
    Ok((version, sealed))
}

fn key(named_key: &NamedKey, version: u32) -> Result<&Arc<Key>, ItemError> {
    named_key.key(version).map_err(failed)?.ok_or(ItemError::Borrowed("no such key version"))
}

/// The key that a context derives from a version.
fn derive(named_key: &NamedKey, version: u32, context: &[u8]) -> Result<SymmetricKey, ItemError> {
    let KeyKind::Symmetric(cipher) = named_key.record.kind else {
        return Err("the key type derives no cipher key".into());
    };
    let material = named_key.record.versions.get(&version).and_then(|stored| stored.material.as_ref());
    let material = material.ok_or("no such key version")?;
    SymmetricKey::derive(cipher, material.expose(), context, named_key.record.convergent).map_err(failed)
}

fn failed(why: KeyError) -> ItemError {
    why.to_string().into()
}

/// The context of an item; a derived key requires one.
fn context_of(named_key: &NamedKey, text: Option<&str>) -> Result<Vec<u8>, ItemError> {
    let context = codec::decode(text.unwrap_or_default()).map_err(|why| why.to_string())?;
    if named_key.record.derived && named_key.record.kind.encrypts() && context.is_empty() {
        return Err(NO_CONTEXT.into());
    }
    Ok(context)
}

pub(super) fn associated_data_of(text: Option<&str>) -> Result<Vec<u8>, ItemError> {
    let decoded = codec::decode(text.unwrap_or_default());
    Ok(decoded.map_err(|why| format!("unable to get associated_data/additional_data from factory[0]: {why}"))?)
}

pub(super) async fn decrypt(transit: &Transit, cx: &mut Cx, req: Decrypt) -> Result<Outcome> {
    let name = check_name(&req.name)?;
    let batched = req.batch_input.is_some();
    let items = match &req.batch_input {
        Some(raw) => batch::items(raw)?,
        None => vec![Item {
            ciphertext: Some(required_ciphertext(req.ciphertext)?),
            context: req.context.map(String::from),
            associated_data: req.associated_data.map(String::from),
            ..Item::default()
        }],
    };
    if let Some(at) = items.iter().position(|item| item.ciphertext.is_none()) {
        return Err(batch::parse_error(&format!("'[{at}].ciphertext' missing ciphertext to decrypt")));
    }
    all_have_context(&items)?;
    let named_key = require_key(transit, cx, name).await?;
    refuse_associated_data(named_key.record.kind, &items)?;
    let mut failures = 0;
    let mut results: Vec<Decrypted> = Vec::with_capacity(items.len());
    let mut remote = Remote::of(cx, &named_key, items.len())?;
    for item in items {
        batch::yield_if_slow(named_key.record.kind).await;
        let opened = match &mut remote {
            Some(remote) => remote.open_item(&item).await?,
            None => open_item(&named_key, &item),
        };
        let reference = batched.then(|| item.reference.unwrap_or_default());
        match opened {
            Ok(plaintext) => results.push(Decrypted { plaintext: codec::encode(&plaintext), error: None, reference }),
            Err(error) if !batched => return Err(Error::invalid(error)),
            Err(error) => {
                failures += 1;
                results.push(Decrypted { plaintext: String::new(), error: Some(error), reference });
            }
        }
    }
    match results.pop() {
        Some(only) if !batched => Data(only).into_outcome(),
        last => {
            results.extend(last);
            batch::respond_with_failures(cx, results, failures, req.partial_failure_response_code)
        }
    }
}

fn required_ciphertext(ciphertext: Option<Text>) -> Result<String> {
    let given = ciphertext.map(String::from).filter(|text| !text.is_empty());
    given.ok_or_else(|| Error::invalid("missing ciphertext to decrypt"))
}

/// The key of an operation that requires it to exist.
pub(super) async fn require_key(transit: &Transit, cx: &mut Cx, name: &str) -> Result<Arc<NamedKey>> {
    let named_key = transit.key_cache.get(cx, name).await?;
    let named_key = named_key.ok_or_else(|| Error::invalid("encryption key not found"))?;
    named_key.record.usable()?;
    Ok(named_key)
}

fn open_item(named_key: &NamedKey, item: &Item) -> Result<Zeroizing<Vec<u8>>, ItemError> {
    let context = context_of(named_key, item.context.as_deref())?;
    let aad = associated_data_of(item.associated_data.as_deref())?;
    open(named_key, ciphertext_of(item)?, &context, &aad)
}

/// The ciphertext of an item.
pub(super) fn ciphertext_of(item: &Item) -> Result<&str, ItemError> {
    let ciphertext = item.ciphertext.as_deref().filter(|text| !text.is_empty());
    ciphertext.ok_or(ItemError::Borrowed("missing ciphertext to decrypt"))
}

pub(super) async fn rewrap(transit: &Transit, cx: &mut Cx, req: Rewrap) -> Result<Outcome> {
    let name = check_name(&req.name)?;
    let batched = req.batch_input.is_some();
    let items = match &req.batch_input {
        Some(raw) => batch::lenient_items(raw, true)?,
        None => vec![Item {
            ciphertext: Some(required_ciphertext(req.ciphertext)?),
            context: req.context.map(String::from),
            key_version: req.key_version,
            ..Item::default()
        }],
    };
    all_have_context(&items)?;
    let named_key = require_key(transit, cx, name).await?;
    usage::reserve_each(cx, name, &named_key, &items).await?;
    let mut results = Vec::with_capacity(items.len());
    let mut remote = Remote::of(cx, &named_key, items.len())?;
    for item in items {
        batch::yield_if_slow(named_key.record.kind).await;
        let result = match &mut remote {
            Some(remote) => remote.rewrap_item(&item).await?,
            None => rewrap_item(&named_key, &item),
        };
        match result {
            Err(error) if !batched => return Err(Error::invalid(error)),
            result => results.push(encrypted(result, batched.then(|| item.reference.unwrap_or_default()))),
        }
    }
    match results.pop() {
        Some(only) if !batched => Data(only).into_outcome(),
        last => {
            results.extend(last);
            batch::respond(results)
        }
    }
}

fn rewrap_item(named_key: &NamedKey, item: &Item) -> Result<(u32, String), ItemError> {
    let plaintext = open_item(named_key, item)?;
    let context = context_of(named_key, item.context.as_deref())?;
    let version = named_key.record.version_for(item.key_version.unwrap_or_default().0, "encryption")?;
    seal(named_key, version, &context, &[], &plaintext)
}

pub(super) async fn data_key(transit: &Transit, cx: &mut Cx, req: DataKey) -> Result<Outcome> {
    let name = check_name(&req.name)?;
    let shown = match &*req.plaintext {
        "plaintext" => true,
        "wrapped" => false,
        _ => return Err(Error::invalid("Invalid path, must be 'plaintext' or 'wrapped'")),
    };
    let context = codec::decode(req.context.as_deref().unwrap_or_default());
    let context = context.map_err(|_| Error::invalid("failed to base64-decode context"))?;
    let named_key = require_key(transit, cx, name).await?;
    let mut key = match req.bits.map_or(256, |bits| bits.0) {
        bits @ (128 | 256 | 512) => Zeroizing::new(vec![0; usize::try_from(bits / 8).unwrap_or(64)]),
        _ => return Err(Error::invalid("invalid bit length")),
    };
    random::fill(&mut key);
    let aad = req.associated_data.map(String::from).filter(|text| !text.is_empty());
    if aad.is_some() && !named_key.record.kind.binds_associated_data() {
        let kind = named_key.record.kind.name();
        return Err(Error::invalid(format!("'associated_data' provided for non-AEAD cipher suite {kind}")));
    }
    check_encrypts(&named_key).map_err(Error::invalid)?;
    let aad = associated_data_of(aad.as_deref()).map_err(Error::invalid)?;
    let version =
        named_key.record.version_for(req.key_version.unwrap_or_default().0, "encryption").map_err(Error::invalid)?;
    if named_key.record.derived && context.is_empty() {
        return Err(Error::invalid(NO_CONTEXT));
    }
    usage::reserve(cx, name, &named_key, version, 1).await?;
    let sealed = match Remote::of(cx, &named_key, 1)? {
        Some(mut remote) => remote.seal(version, &key, &aad).await?,
        None => seal(&named_key, version, &context, &aad, &key),
    };
    let (version, ciphertext) = sealed.map_err(Error::invalid)?;
    let plaintext = shown.then(|| codec::encode(&key));
    Data(Encrypted { ciphertext: Some(ciphertext), key_version: Some(version), plaintext, ..Encrypted::default() })
        .into_outcome()
}
