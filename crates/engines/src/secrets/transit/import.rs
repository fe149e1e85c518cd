//! Bring your own key: `wrapping_key`, `keys/NAME/import`, `keys/NAME/import_version`, and `byok-export/` for the
//! opposite direction.

use std::sync::Arc;

use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::rsa::RsaKey;
use keepfast_crypto::keys::{Key, KeyError, KeyKind, pem, wrapping};
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::fields::{Flag, Int, Seconds, Text, given};
use keepfast_framework::routes::Nothing;
use keepfast_framework::{Cx, Data, Error, Records, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::export::{Exported, portable, select_versions};
use super::keys::{check_name, period};
use super::named_key::{KEYS, NewKey, VersionRecord, load};
use super::stored::Material;
use super::{Transit, codec};

/// The RSA key that wraps imported keys: PKCS#8, one record.
const WRAPPING_KEY: Records<Material> = Records::at(WRAPPING_KEY_NAME);
/// The name of its record.
pub(super) const WRAPPING_KEY_NAME: &str = "wrapping-key";
/// The size of that key in bits, as in OpenBao.
const WRAPPING_BITS: u32 = 4096;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Import {
    /// Name of the key.
    name: Text,
    /// Type of the key; aes256-gcm96 when absent.
    #[serde(rename = "type", default, deserialize_with = "given")]
    kind: Option<Text>,
    /// Base64 of the AES key wrapped with RSA-OAEP, then the imported key wrapped with that AES key (AES-KWP).
    ciphertext: Option<Text>,
    /// PEM of a public key, to import only that.
    public_key: Option<Text>,
    /// Hash function of RSA-OAEP: SHA1, SHA224, SHA256, SHA384 or SHA512. Default: SHA256.
    #[serde(default, deserialize_with = "given")]
    hash_function: Option<Text>,
    /// Whether the key can be rotated here. Default: false.
    allow_rotation: Option<Flag>,
    /// Whether each use derives a key from a context. Default: false.
    derived: Option<Flag>,
    /// Ignored.
    #[allow(dead_code, reason = "a known parameter is accepted")]
    context: Option<Text>,
    /// Whether the key can be exported. Default: false.
    exportable: Option<Flag>,
    /// Whether the key can be backed up in plaintext. Default: false.
    allow_plaintext_backup: Option<Flag>,
    /// Period of automatic rotation in seconds, at least an hour; 0 disables it. Default: 0.
    auto_rotate_period: Option<Seconds>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ImportVersion {
    /// Name of the key.
    name: Text,
    /// Base64 of the wrapped key, as for `import`.
    ciphertext: Option<Text>,
    /// PEM of a public key, to import only that.
    public_key: Option<Text>,
    /// Hash function of RSA-OAEP. Default: SHA256.
    #[serde(default, deserialize_with = "given")]
    hash_function: Option<Text>,
    /// The version whose private key this is; a new version when absent.
    #[serde(default, deserialize_with = "given")]
    version: Option<Int>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ByokExport {
    /// Name of the RSA key that wraps.
    destination: Text,
    /// Name of the exported key.
    source: Text,
    /// One version, or `latest`; all when absent.
    version: Option<Text>,
    /// Hash function of RSA-OAEP. Default: SHA256.
    hash: Option<Text>,
}

#[derive(Serialize)]
pub(super) struct WrappingKeyResponse {
    public_key: String,
}

pub(super) async fn wrapping_key(transit: &Transit, cx: &mut Cx, _: Nothing) -> Result<Data<WrappingKeyResponse>> {
    let key = own_wrapping_key(transit, cx).await?;
    let spki = key.spki().map_err(Error::internal)?;
    Ok(Data(WrappingKeyResponse { public_key: pem::encode("PUBLIC KEY", &spki) }))
}

/// The mount's wrapping key, created on first use.
async fn own_wrapping_key(transit: &Transit, cx: &mut Cx) -> Result<Arc<RsaKey>> {
    if let Some(key) = transit.wrapping.lock().clone() {
        return Ok(key);
    }
    if let Some(stored) = WRAPPING_KEY.get(cx, "").await? {
        let key = Arc::new(RsaKey::from_pkcs8(stored.expose()).map_err(Error::internal)?);
        *transit.wrapping.lock() = Some(key.clone());
        return Ok(key);
    }
    let making = tokio::task::spawn_blocking(|| RsaKey::generate(WRAPPING_BITS));
    let pkcs8 = making.await.map_err(Error::internal)?.map_err(Error::internal)?;
    WRAPPING_KEY.put(cx, "", &Material::new(pkcs8.expose()))?;
    // The cache takes it from the next read, as this transaction may still lose a conflict.
    Ok(Arc::new(RsaKey::from_pkcs8(pkcs8.expose()).map_err(Error::internal)?))
}

/// The key of an import.
enum Imported {
    Private(SecretBytes),
    /// SubjectPublicKeyInfo.
    Public(Vec<u8>),
}

pub(super) async fn import(transit: &Transit, cx: &mut Cx, req: Import) -> Result<()> {
    let name = check_name(&req.name)?.to_owned();
    let kind_name = req.kind.as_deref().unwrap_or("aes256-gcm96");
    let kind = KeyKind::from_name(kind_name).ok_or_else(|| Error::invalid(format!("unknown key type: {kind_name}")))?;
    let hash = oaep_hash(req.hash_function.as_deref())?;
    let flag = |flag: Option<Flag>| flag.is_some_and(|flag| flag.0);
    let auto_rotate_period = period(req.auto_rotate_period)?.unwrap_or(0);
    if auto_rotate_period != 0 && !flag(req.allow_rotation) {
        return Err(Error::invalid("allow_rotation must be set to true if auto-rotation is enabled"));
    }
    if flag(req.derived) && !kind.derives() {
        let why = format!("key derivation and convergent encryption not supported for keys of type {kind_name}");
        return Err(Error::invalid(why));
    }
    if KEYS.get(cx, &name).await?.is_some() {
        let why = "the import path cannot be used with an existing key; use import-version to rotate an existing imported key";
        return Err(Error::invalid(why));
    }
    let imported = unwrap(transit, cx, kind, hash, req.ciphertext.as_deref(), req.public_key.as_deref()).await?;
    let key_size = match (&imported, kind) {
        (Imported::Private(material), KeyKind::Hmac) => material.expose().len(),
        _ => 0,
    };
    let mut record = NewKey {
        derived: flag(req.derived),
        exportable: flag(req.exportable),
        allow_plaintext_backup: flag(req.allow_plaintext_backup),
        auto_rotate_period,
        key_size,
        ..NewKey::of(kind)
    }
    .record();
    record.imported = true;
    record.allow_imported_rotation = flag(req.allow_rotation);
    add(&mut record, imported, cx);
    KEYS.put(cx, &name, &record)
}

fn add(record: &mut super::named_key::KeyRecord, imported: Imported, cx: &Cx) {
    match imported {
        Imported::Private(material) => record.add(Some(material.expose()), None, cx.now()),
        Imported::Public(spki) => record.add(None, Some(spki), cx.now()),
    }
}

pub(super) async fn import_version(transit: &Transit, cx: &mut Cx, req: ImportVersion) -> Result<()> {
    let name = check_name(&req.name)?.to_owned();
    let Some(mut key) = KEYS.get(cx, &name).await? else {
        let why = format!("no key found with name {name}; to import a new key, use the import/ endpoint");
        return Err(Error::invalid(why));
    };
    if !key.imported {
        return Err(Error::invalid("the import_version endpoint can only be used with an imported key"));
    }
    let hash = oaep_hash(req.hash_function.as_deref())?;
    let imported = unwrap(transit, cx, key.kind, hash, req.ciphertext.as_deref(), req.public_key.as_deref()).await?;
    match req.version.map(|version| version.0).filter(|version| *version != 0) {
        None => add(&mut key, imported, cx),
        Some(version) => {
            let stored = u32::try_from(version).ok().and_then(|version| key.versions.get_mut(&version));
            add_private_key(key.kind, stored.ok_or_else(|| Error::invalid("no such key version"))?, imported)?;
        }
    }
    KEYS.put(cx, &name, &key)
}

/// Adds the private key to a version that has only the public key.
fn add_private_key(kind: KeyKind, stored: &mut VersionRecord, imported: Imported) -> Result<()> {
    if stored.material.is_some() {
        return Err(Error::invalid("private key imported, key version cannot be updated"));
    }
    let Imported::Private(material) = imported else {
        return Err(Error::invalid("a private key is needed to update a key version"));
    };
    let completed = VersionRecord { material: Some(Material::new(material.expose())), public: None, ..stored.clone() };
    if spki(kind, &completed) != spki(kind, stored) {
        return Err(Error::invalid("cannot import key, key pair does not match"));
    }
    *stored = completed;
    Ok(())
}

fn spki(kind: KeyKind, stored: &VersionRecord) -> Option<Vec<u8>> {
    match load(kind, stored).ok()? {
        Key::Ed25519(key) => Some(key.spki()),
        Key::Ecdsa(key) => key.spki().ok(),
        Key::Rsa(key) => key.spki().ok(),
        _ => None,
    }
}

/// Unwraps the key and checks that it is of this kind.
async fn unwrap(
    transit: &Transit,
    cx: &mut Cx,
    kind: KeyKind,
    hash: Hash,
    ciphertext: Option<&str>,
    public_key: Option<&str>,
) -> Result<Imported> {
    let Some(ciphertext) = ciphertext.filter(|text| !text.is_empty()) else {
        return public(kind, public_key.unwrap_or_default());
    };
    let wrapped = codec::decode(ciphertext).map_err(|why| Error::invalid(why.to_string()))?;
    let own = own_wrapping_key(transit, cx).await?;
    let opened = wrapping::unwrap_key(&own, hash, &wrapped).map_err(|why| match why {
        KeyError::Malformed => Error::invalid("provided ciphertext is too short"),
        _ => Error::invalid("the wrapped key cannot be unwrapped with the wrapping key"),
    })?;
    let length = opened.expose().len();
    let material = Key::import(kind, opened.expose()).map_err(|_| match kind {
        KeyKind::Symmetric(_) | KeyKind::Hmac => {
            Error::invalid(format!("error importing key: invalid key size {length} bytes for key type {}", kind.name()))
        }
        _ => Error::invalid(format!("error importing key: invalid key type: expected {} in PKCS#8", kind.name())),
    })?;
    Ok(Imported::Private(material))
}

fn public(kind: KeyKind, text: &str) -> Result<Imported> {
    if !matches!(kind, KeyKind::Ed25519 | KeyKind::Ecdsa(_) | KeyKind::Rsa(_)) {
        return Err(Error::invalid("provided type does not support public_key import"));
    }
    let (_, spki) = pem::decode(text)
        .ok_or_else(|| Error::invalid("error importing key: error parsing public key: not in PEM format"))?;
    Key::load_public(kind, &spki)
        .map_err(|_| Error::invalid(format!("error importing key: invalid key type: expected {}", kind.name())))?;
    Ok(Imported::Public(spki))
}

/// The hash function of the OAEP, by its name in this endpoint.
fn oaep_hash(name: Option<&str>) -> Result<Hash> {
    let name = name.unwrap_or("SHA256");
    match name.to_ascii_uppercase().as_str() {
        "SHA1" => Ok(Hash::Sha1),
        "SHA224" => Ok(Hash::Sha224),
        "SHA256" => Ok(Hash::Sha256),
        "SHA384" => Ok(Hash::Sha384),
        "SHA512" => Ok(Hash::Sha512),
        _ => Err(Error::invalid(format!("unknown hash function: {name}"))),
    }
}

pub(super) async fn byok_export(transit: &Transit, cx: &mut Cx, req: ByokExport) -> Result<Data<Exported>> {
    let (destination, source) = (check_name(&req.destination)?, check_name(&req.source)?);
    let destination = transit.key_cache.get(cx, destination).await?;
    let destination = destination.ok_or_else(|| Error::invalid("no such destination key to export to"))?;
    let named_key =
        transit.key_cache.get(cx, source).await?.ok_or_else(|| Error::invalid("no such source key for export"))?;
    if !named_key.record.exportable {
        return Err(Error::invalid("key is not exportable"));
    }
    destination.record.usable()?;
    named_key.record.usable()?;
    let selected = select_versions(&named_key.record, req.version.as_deref().filter(|version| !version.is_empty()))?;
    let wrapper = destination.key(destination.record.latest).map_err(Error::internal)?;
    let Some(Key::Rsa(wrapper)) = wrapper.map(|key| &**key) else {
        let kind = destination.record.kind.name();
        return Err(Error::invalid(format!(
            "key wrapping (requring message signing) is not supported for key type {kind}"
        )));
    };
    let hash = oaep_hash(req.hash.as_deref())?;
    let keys = selected.into_iter().map(|(version, stored)| {
        let key = portable(named_key.record.kind, stored)?;
        let wrapped = wrapping::wrap_key(wrapper, hash, &key).map_err(Error::internal)?;
        Ok((version.to_string(), codec::encode(&wrapped)))
    });
    let keys = keys.collect::<Result<_>>()?;
    Ok(Data(Exported { keys, name: source.to_owned(), kind: named_key.record.kind.name() }))
}
