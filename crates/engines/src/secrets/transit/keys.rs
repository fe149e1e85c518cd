//! `keys/`: create, read, list, delete, configure, rotate and trim named keys.

use keepfast_crypto::keys::{EXTERNAL, HMAC_KEY_SIZES, KeyKind};
use keepfast_framework::fields::{Flag, Int, Seconds, Text, given};
use keepfast_framework::{Cx, Data, Error, Keys, Outcome, Page, Reply, Result, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;

use super::key_response::KeyResponse;
use super::named_key::{KEYS, KeyRecord, NewKey};
use super::{Transit, codec, external, usage};

/// The minimum period of automatic rotation, in seconds.
const MIN_PERIOD: u64 = 3600;
/// The default length of a generated HMAC key, in bytes.
const HMAC_SIZE: i64 = 32;

/// The path parameter of a key.
#[derive(Deserialize, JsonSchema)]
pub(super) struct KeyPath {
    /// Name of the key.
    pub name: Text,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Read {
    /// Name of the key.
    name: Text,
    /// Base64 context of a derived key, of whose derivation the public key is returned.
    context: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Create {
    /// Name of the key.
    name: Text,
    /// Type of the key; aes256-gcm96 when absent.
    #[serde(rename = "type", default, deserialize_with = "given")]
    kind: Option<Text>,
    /// Whether each use derives a key from a context. Default: false.
    derived: Option<Flag>,
    /// Whether equal plaintexts have equal ciphertexts; requires `derived`. Default: false.
    convergent_encryption: Option<Flag>,
    /// Whether the key can be exported; cannot be disabled later. Default: false.
    exportable: Option<Flag>,
    /// Whether the key can be backed up in plaintext; cannot be disabled later. Default: false.
    allow_plaintext_backup: Option<Flag>,
    /// Period of automatic rotation in seconds, at least an hour; 0 disables it. Default: 0.
    auto_rotate_period: Option<Seconds>,
    /// Length of an HMAC key in bytes. Default: 32.
    key_size: Option<Int>,
    /// The external key of a key of type external-key: `CONFIG:KEY`.
    external_key_ref: Option<Text>,
    /// Ignored by writes; base64 context of a derived key for reads.
    #[serde(rename = "context")]
    _context: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Configure {
    /// Name of the key.
    name: Text,
    /// The minimum version for decryption and verification.
    #[serde(default, deserialize_with = "given")]
    min_decryption_version: Option<Int>,
    /// The minimum version for encryption and signing; 0 for the latest only.
    #[serde(default, deserialize_with = "given")]
    min_encryption_version: Option<Int>,
    /// Whether the key can be deleted. Default for a new key: false.
    #[serde(default, deserialize_with = "given")]
    deletion_allowed: Option<Flag>,
    /// Allows export; cannot be disabled later.
    exportable: Option<Flag>,
    /// Allows plaintext backups; cannot be disabled later.
    allow_plaintext_backup: Option<Flag>,
    /// Period of automatic rotation in seconds, at least an hour; 0 disables it. Default: 0.
    #[serde(default, deserialize_with = "given")]
    auto_rotate_period: Option<Seconds>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Rotate {
    /// Name of the key.
    name: Text,
    /// The external key of the new version of a key of type external-key: `CONFIG:KEY`.
    external_key_ref: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Trim {
    /// Name of the key.
    name: Text,
    /// Versions below this one are destroyed.
    #[serde(default, deserialize_with = "given")]
    min_available_version: Option<Int>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Paged {
    /// Returns only names after this one.
    after: Option<Text>,
    /// The maximum number of names.
    limit: Option<Int>,
}

/// Validates the name of a key: letters, digits and underscores, with dots and hyphens between them.
pub(super) fn check_name(name: &str) -> Result<&str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let inner = |c: char| word(c) || matches!(c, '-' | '.');
    let fine = name.starts_with(word) && name.ends_with(word) && name.chars().all(inner);
    if fine { Ok(name) } else { Err(Error::unsupported_path()) }
}

pub(super) async fn list(_: &Transit, cx: &mut Cx, req: Paged) -> Result<Keys> {
    let limit = req.limit.and_then(|limit| usize::try_from(limit.0).ok()).filter(|limit| *limit > 0);
    let page = Page { after: req.after.map(String::from).filter(|after| !after.is_empty()), limit };
    Ok(Keys::of(KEYS.list(cx, "", &page).await?))
}

pub(super) async fn read(transit: &Transit, cx: &mut Cx, req: Read) -> Result<Option<Data<KeyResponse>>> {
    let name = check_name(&req.name)?;
    let Some(named_key) = transit.key_cache.get(cx, name).await? else { return Ok(None) };
    let context = req.context.filter(|context| !context.is_empty()).map(|context| codec::decode(&context));
    let context = context.transpose().map_err(|_| Error::invalid("failed to base64-decode context"))?;
    KeyResponse::of(name, &named_key.record, context.as_deref()).map(|view| Some(Data(view)))
}

pub(super) async fn create(_: &Transit, cx: &mut Cx, req: Create) -> Result<Data<KeyResponse>> {
    let name = check_name(&req.name)?.to_owned();
    let new = new_key(&req)?;
    if let Some(existing) = KEYS.get(cx, &name).await? {
        return KeyResponse::of(&name, &existing, None).map(Data);
    }
    check_derivation(&new)?;
    let mut record = new.record();
    match reference(req.external_key_ref.as_ref()) {
        Some(reference) => add_external(cx, &mut record, reference).await?,
        None => record.generate_version(cx.now()).await?,
    }
    KEYS.put(cx, &name, &record)?;
    KeyResponse::of(&name, &record, None).map(Data)
}

/// The reference to an external key, if there is one.
fn reference(given: Option<&Text>) -> Option<&str> {
    given.map(|text| &**text).filter(|text| !text.is_empty())
}

/// Adds a version that is an external key, if that is granted to this mount.
async fn add_external(cx: &mut Cx, record: &mut KeyRecord, reference: &str) -> Result<()> {
    cx.check_external_key(reference).await.map_err(external::fetch_error)?;
    record.add_external(reference.to_owned(), cx.now());
    Ok(())
}

/// The parameters of a new key, validated.
fn new_key(req: &Create) -> Result<NewKey> {
    let kind_name = req.kind.as_deref().unwrap_or("aes256-gcm96");
    let (derived, convergent) = (set(req.derived), set(req.convergent_encryption));
    let auto_rotate_period = period(req.auto_rotate_period)?.unwrap_or(0);
    if convergent && !derived {
        return Err(Error::invalid("convergent encryption requires derivation to be enabled"));
    }
    let kind = kind_of(kind_name, reference(req.external_key_ref.as_ref()).is_some())?;
    if kind == KeyKind::External && auto_rotate_period != 0 {
        return Err(Error::invalid("cannot enable auto-rotation with external keys"));
    }
    let key_size = match (kind, req.key_size.map(|size| size.0)) {
        (KeyKind::Hmac, size) => usize::try_from(size.filter(|size| *size != 0).unwrap_or(HMAC_SIZE))
            .ok()
            .filter(|size| HMAC_KEY_SIZES.contains(size))
            .ok_or_else(|| Error::invalid(format!("invalid key_size {}", size.unwrap_or_default())))?,
        (_, None | Some(0)) => 0,
        _ => return Err(Error::invalid(format!("key_size is not valid for algorithm {kind_name}"))),
    };
    let (exportable, allow_plaintext_backup) = (set(req.exportable), set(req.allow_plaintext_backup));
    Ok(NewKey { kind, derived, convergent, exportable, allow_plaintext_backup, auto_rotate_period, key_size })
}

/// The kind of a new key; only one of type external-key has a reference.
fn kind_of(name: &str, has_reference: bool) -> Result<KeyKind> {
    match (name == EXTERNAL, has_reference) {
        (true, true) => Ok(KeyKind::External),
        (true, false) => Err(Error::invalid("must provide external_key_ref to create policy of type external-key")),
        (false, true) => Err(Error::invalid("must provide type=external-key to use external_key_ref")),
        (false, false) => KeyKind::from_name(name).ok_or_else(|| Error::invalid(format!("unknown key type {name}"))),
    }
}

/// Refuses derivation for a kind of key that does not support it; only checked for new keys.
fn check_derivation(new: &NewKey) -> Result<()> {
    let kind = new.kind.name();
    if new.derived && !new.kind.derives() {
        return Err(Error::invalid(format!(
            "key derivation and convergent encryption not supported for keys of type {kind}"
        )));
    }
    if new.convergent && !new.kind.encrypts() {
        return Err(Error::invalid(format!("convergent encryption not supported for keys of type {kind}")));
    }
    Ok(())
}

fn set(flag: Option<Flag>) -> bool {
    flag.is_some_and(|flag| flag.0)
}

/// Validates a period of automatic rotation, in seconds.
pub(super) fn period(given: Option<Seconds>) -> Result<Option<u64>> {
    match given {
        Some(Seconds(seconds)) if seconds != 0 && seconds < MIN_PERIOD => {
            Err(Error::invalid("auto rotate period must be 0 to disable or at least an hour"))
        }
        other => Ok(other.map(|seconds| seconds.0)),
    }
}

pub(super) async fn delete(_: &Transit, cx: &mut Cx, req: KeyPath) -> Result<()> {
    let name = check_name(&req.name)?;
    let Some(record) = KEYS.get(cx, name).await? else {
        return Err(Error::invalid(format!("error deleting policy {name}: could not delete key; not found")));
    };
    if !record.deletion_allowed {
        return Err(Error::invalid(format!("error deleting policy {name}: deletion is not allowed for this key")));
    }
    KEYS.delete(cx, name);
    usage::delete(cx, name, record.latest);
    Ok(())
}

pub(super) async fn configure(_: &Transit, cx: &mut Cx, req: Configure) -> Result<Data<KeyResponse>> {
    let name = check_name(&req.name)?;
    let Some(mut key) = KEYS.get(cx, name).await? else {
        return Err(Error::invalid(format!("no existing key named {name} could be found")));
    };
    if let Some(given) = req.min_decryption_version {
        if given.0 == 0 {
            cx.warn(
                "since Vault 0.3 (prior to the OpenBao fork), transit key numbering starts at 1; forcing minimum to 1",
            );
        }
        key.min_decryption = bound(given, key.latest, "decryption")?.max(1);
    }
    if let Some(given) = req.min_encryption_version {
        key.min_encryption = bound(given, key.latest, "encryption")?;
    }
    if key.min_encryption > 0 && key.min_encryption < key.min_decryption {
        return Err(Error::invalid(format!(
            "cannot set min encryption/decryption values; min encryption version of {} must be greater than or equal to min decryption version of {}",
            key.min_encryption, key.min_decryption
        )));
    }
    if key.min_encryption < key.min_available {
        return Err(Error::invalid("min encryption version should not be less than min available version"));
    }
    if key.min_decryption < key.min_available {
        return Err(Error::invalid("min decryption version should not be less then min available version"));
    }
    if let Some(allowed) = req.deletion_allowed {
        key.deletion_allowed = allowed.0;
    }
    if let Some(seconds) = period(req.auto_rotate_period)? {
        if key.kind == KeyKind::External && seconds != 0 {
            return Err(Error::invalid("auto rotate period must be disabled on external keys"));
        }
        key.auto_rotate_period = seconds;
    }
    key.exportable |= set(req.exportable);
    key.allow_plaintext_backup |= set(req.allow_plaintext_backup);
    KEYS.put(cx, name, &key)?;
    KeyResponse::of(name, &key, None).map(Data)
}

fn bound(given: Int, latest: u32, what: &str) -> Result<u32> {
    if given.0 < 0 {
        return Err(Error::invalid(format!("min {what} version cannot be negative")));
    }
    let within = u32::try_from(given.0).ok().filter(|version| *version <= latest);
    within.ok_or_else(|| {
        Error::invalid(format!("cannot set min {what} version of {}, latest key version is {latest}", given.0))
    })
}

pub(super) async fn rotate(_: &Transit, cx: &mut Cx, req: Rotate) -> Result<Data<KeyResponse>> {
    let name = check_name(&req.name)?;
    let mut key = KEYS.get(cx, name).await?.ok_or_else(|| Error::invalid("key not found"))?;
    match (key.kind, reference(req.external_key_ref.as_ref())) {
        (KeyKind::External, Some(reference)) => {
            key.usable()?;
            add_external(cx, &mut key, reference).await?;
        }
        (KeyKind::External, None) => {
            return Err(Error::invalid("must provide external_key_ref to rotate policy of type external-key"));
        }
        (kind, Some(_)) => {
            return Err(Error::invalid(format!("cannot use external_key_ref on key of type {}", kind.name())));
        }
        (_, None) => rotate_record(name, &mut key, cx.now()).await?,
    }
    KEYS.put(cx, name, &key)?;
    KeyResponse::of(name, &key, None).map(Data)
}

/// Adds a generated version; an imported key is no longer marked as imported.
pub(super) async fn rotate_record(name: &str, key: &mut KeyRecord, now: Timestamp) -> Result<()> {
    key.usable()?;
    if key.imported && !key.allow_imported_rotation {
        return Err(Error::invalid(format!("imported key {name} does not allow rotation within Vault")));
    }
    key.imported = false;
    key.generate_version(now).await
}

pub(super) async fn trim(_: &Transit, cx: &mut Cx, req: Trim) -> Result<Data<KeyResponse>> {
    let name = check_name(&req.name)?;
    let mut key = KEYS.get(cx, name).await?.ok_or_else(|| Error::invalid("invalid key name"))?;
    let requested = req.min_available_version.ok_or_else(|| Error::invalid("missing min_available_version"))?;
    if requested.0 < i64::from(key.min_available) {
        return Err(Error::invalid("minimum available version cannot be decremented"));
    }
    let lowest = u32::try_from(requested.0).unwrap_or(u32::MAX);
    if key.min_encryption == 0 {
        return Err(Error::invalid(
            "minimum available version cannot be set when minimum encryption version is not set",
        ));
    }
    if lowest > key.min_encryption {
        return Err(Error::invalid("minimum available version cannot be greater than minmum encryption version"));
    }
    if lowest > key.min_decryption {
        return Err(Error::invalid("minimum available version cannot be greater than minimum decryption version"));
    }
    key.min_available = lowest;
    key.versions.retain(|version, _| *version >= lowest);
    KEYS.put(cx, name, &key)?;
    KeyResponse::of(name, &key, None).map(Data)
}

pub(super) async fn soft_delete(_: &Transit, cx: &mut Cx, req: KeyPath) -> Result<Outcome> {
    mark_deleted(cx, &req.name, true).await
}

pub(super) async fn soft_delete_restore(_: &Transit, cx: &mut Cx, req: KeyPath) -> Result<Outcome> {
    mark_deleted(cx, &req.name, false).await
}

async fn mark_deleted(cx: &mut Cx, name: &str, deleted: bool) -> Result<Outcome> {
    let name = check_name(name)?;
    let Some(mut key) = KEYS.get(cx, name).await? else { return Ok(Outcome::Empty(None)) };
    if key.soft_deleted == deleted {
        cx.warn(if deleted { "key was already marked as soft deleted" } else { "key was already restored" });
    }
    key.soft_deleted = deleted;
    KEYS.put(cx, name, &key)?;
    Data(KeyResponse::of(name, &key, None)?).into_outcome()
}
