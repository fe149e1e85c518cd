//! `export/`, `backup/` and `restore/`: the ways a key leaves a mount, each of which must have been allowed before.

use std::collections::BTreeMap;

use keepfast_crypto::Zeroizing;
use keepfast_crypto::keys::ed25519::Ed25519Key;
use keepfast_crypto::keys::{Key, KeyKind};
use keepfast_framework::fields::{Flag, Text};
use keepfast_framework::{Cx, Data, Error, Result, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::foreign::Foreign;
use super::keys::{Named, checked};
use super::ring::{Event, KEYS, KeyRecord, VersionRecord, load};
use super::view::{certificate_chain, public_text};
use super::{Transit, codec, policy};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Export {
    /// `encryption-key`, `signing-key`, `hmac-key`, `public-key` or `certificate-chain`.
    #[serde(rename = "type")]
    kind: Text,
    /// Name of the key.
    name: Text,
    /// One version, or `latest`; all when absent.
    version: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Restore {
    /// Name of the key; that of the backup when absent.
    name: Option<Text>,
    /// What `backup` returned.
    backup: Option<Text>,
    /// Whether an existing key is replaced.
    force: Option<Flag>,
}

/// Keys by version, as text.
#[derive(Serialize)]
pub(super) struct Exported {
    pub keys: BTreeMap<String, String>,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct BackedUp {
    backup: String,
}

/// A backup of a key that OpenBao's form has no place for: format 1.
#[derive(Serialize, Deserialize)]
struct Backup {
    keepfast_transit_backup: u32,
    name: String,
    key: KeyRecord,
}

/// What of a key is exported.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Encryption,
    Signing,
    Hmac,
    Public,
    Certificates,
}

pub(super) async fn export(transit: &Transit, cx: &mut Cx, req: Export) -> Result<Option<Data<Exported>>> {
    let name = checked(&req.name)?;
    let part = match &*req.kind {
        "encryption-key" => Part::Encryption,
        "signing-key" => Part::Signing,
        "hmac-key" => Part::Hmac,
        "public-key" => Part::Public,
        "certificate-chain" => Part::Certificates,
        other => return Err(Error::invalid(format!("invalid export type: {other}"))),
    };
    let Some(ring) = transit.rings.get(cx, name).await? else { return Ok(None) };
    let key = &ring.record;
    allowed(key, part)?;
    key.usable()?;
    let keys = selected(key, req.version.as_deref().filter(|version| !version.is_empty()))?
        .into_iter()
        .map(|(version, stored)| exported(key.kind, part, stored).map(|text| (version.to_string(), text)));
    let keys = keys.collect::<Result<_>>()?;
    Ok(Some(Data(Exported { keys, name: name.to_owned(), kind: key.kind.name() })))
}

/// Whether the key has this part and may give it away.
fn allowed(key: &KeyRecord, part: Part) -> Result<()> {
    let is_private = !matches!(part, Part::Public | Part::Certificates);
    if is_private && !key.exportable {
        return Err(Error::invalid("private key material is not exportable"));
    }
    let missing = match part {
        Part::Encryption if !key.kind.encrypts() => "encryption not supported for the key",
        Part::Signing if !key.kind.signs() => "signing not supported for the key",
        Part::Certificates if !key.kind.signs() => {
            "certificate chain not supported for keys that do not support signing"
        }
        _ => return Ok(()),
    };
    Err(Error::invalid(missing))
}

/// The versions that a request asks for.
pub(super) fn selected<'a>(key: &'a KeyRecord, version: Option<&str>) -> Result<Vec<(u32, &'a VersionRecord)>> {
    let version = match version {
        None | Some("") => return Ok(key.live().collect()),
        Some("latest") => key.latest,
        Some(text) => {
            let number: i64 = text.parse().map_err(|_| Error::invalid("invalid key version"))?;
            // One below 0 is below every minimum, one beyond 2^32 is beyond every version.
            u32::try_from(number.max(0)).unwrap_or(u32::MAX)
        }
    };
    if version < key.min_decryption {
        return Err(Error::invalid("version for export is below minimum decryption version"));
    }
    let stored =
        key.versions.get(&version).ok_or_else(|| Error::invalid("version does not exist or cannot be found"))?;
    Ok(vec![(version, stored)])
}

fn exported(kind: KeyKind, part: Part, stored: &VersionRecord) -> Result<String> {
    let without = |what: &str| Error::invalid(format!("unknown key type {} for export type {what}", kind.name()));
    match part {
        Part::Hmac => Ok(codec::encode(stored.hmac.expose())),
        Part::Public if !kind.has_public_key() => Err(without("public-key")),
        Part::Public => {
            let text = public_text(kind, stored).map_err(Error::internal)?;
            // As the peer: without the last newline on the curves, with it for RSA.
            Ok(if matches!(kind, KeyKind::Ecdsa(_)) { text.trim_end().to_owned() } else { text })
        }
        Part::Certificates if stored.certificates.is_empty() => {
            Err(Error::invalid("selected key version does not have a certificate chain imported"))
        }
        Part::Certificates => Ok(certificate_chain(stored).trim_end().to_owned()),
        Part::Encryption | Part::Signing => private_text(kind, stored),
    }
}

/// The private key of a version as text: base64, or PEM of the format of its family.
fn private_text(kind: KeyKind, stored: &VersionRecord) -> Result<String> {
    let none = || Error::invalid("the key version does not have a private part");
    let material = stored.material.as_ref().ok_or_else(none)?.expose();
    match load(kind, stored).map_err(Error::internal)? {
        Key::Ed25519(key) => Ok(codec::encode(key.exported(material).expose())),
        Key::Ecdsa(key) => Ok(key.private_pem().map_err(Error::internal)?.expose().trim_end().to_owned()),
        Key::Rsa(key) => Ok(key.private_pem().map_err(Error::internal)?.expose().clone()),
        Key::Symmetric(_) | Key::Hmac(_) | Key::MlDsa(_) | Key::MlKem(_) => Ok(codec::encode(material)),
    }
}

/// A private key as other software imports it: PKCS#8, or the key itself.
pub(super) fn portable(kind: KeyKind, stored: &VersionRecord) -> Result<Zeroizing<Vec<u8>>> {
    let none = || Error::invalid("the key version does not have a private part");
    let material = stored.material.as_ref().ok_or_else(none)?.expose();
    let bytes = match kind {
        KeyKind::Ed25519 => Ed25519Key::pkcs8(material).map_err(Error::internal)?.expose().clone(),
        _ => material.to_vec(),
    };
    Ok(Zeroizing::new(bytes))
}

pub(super) async fn backup(_: &Transit, cx: &mut Cx, req: Named) -> Result<Data<BackedUp>> {
    let name = checked(&req.name)?;
    let mut key = KEYS.get(cx, name).await?.ok_or_else(|| Error::invalid(format!("key {name:?} not found")))?;
    key.usable()?;
    if !key.exportable {
        return Err(refused("exporting is disallowed on the policy"));
    }
    if !key.allow_plaintext_backup {
        return Err(refused("plaintext backup is disallowed on the policy"));
    }
    key.backed_up = Some(Event { time: cx.now(), version: key.latest });
    KEYS.put(cx, name, &key)?;
    let json = match policy::written(name, &key) {
        Some(json) => json,
        None => {
            let backup = Backup { keepfast_transit_backup: 1, name: name.to_owned(), key };
            Zeroizing::new(serde_json::to_vec(&backup)?)
        }
    };
    Ok(Data(BackedUp { backup: codec::encode(&json) }))
}

pub(super) async fn restore(_: &Transit, cx: &mut Cx, req: Restore) -> Result<()> {
    let given =
        req.backup.filter(|text| !text.is_empty()).ok_or_else(|| Error::invalid("'backup' must be supplied"))?;
    let json = Zeroizing::new(codec::decode(&given).map_err(|why| Error::invalid(why.to_string()))?);
    let (name_within, mut key) = read_backup(&json).ok_or_else(|| Error::invalid(NO_BACKUP))?;
    // The path alone gives another name.
    let renamed = req.name.map(String::from).filter(|_| !cx.request().path.ends_with("restore"));
    let name = renamed.filter(|name| !name.is_empty()).unwrap_or(name_within);
    let name = checked(&name)?;
    sound(&key)?;
    if KEYS.get(cx, name).await?.is_some() && !req.force.is_some_and(|flag| flag.0) {
        return Err(refused(&format!("key {name:?} already exists")));
    }
    key.restored = Some(Event { time: cx.now(), version: key.latest });
    KEYS.put(cx, name, &key)
}

/// A refusal with the peer's 500, by which clients know it: hvac's tests expect that exception.
fn refused(why: &str) -> Error {
    Error::new(Status::INTERNAL, format!("1 error occurred:\n\t* {why}\n\n"))
}

const NO_BACKUP: &str = "'backup' is not a backup of a transit key";

/// The name and key of a backup of ours, or of Vault's or OpenBao's.
fn read_backup(json: &[u8]) -> Option<(String, KeyRecord)> {
    match serde_json::from_slice::<Backup>(json) {
        Ok(backup) => (backup.keepfast_transit_backup == 1).then_some((backup.name, backup.key)),
        Err(_) => serde_json::from_slice::<Foreign>(json).ok()?.read(),
    }
}

/// Refuses a backup that no mount can have made: what it says is as untrusted as any input.
fn sound(key: &KeyRecord) -> Result<()> {
    let bounds = [key.min_decryption, key.min_encryption, key.min_available];
    let fits = key.latest >= 1
        && key.min_decryption >= 1
        && bounds.into_iter().all(|bound| bound <= key.latest)
        && key.versions.contains_key(&key.latest)
        && key.versions.keys().all(|version| (1..=key.latest).contains(version))
        && (!key.derived || key.kind.derives())
        && (!key.convergent || key.derived && key.kind.encrypts())
        && key.versions.values().all(|stored| load(key.kind, stored).is_ok());
    if fits { Ok(()) } else { Err(Error::invalid(NO_BACKUP)) }
}

/// Whether the bytes read as a sound backup, for tests with any bytes.
#[cfg(test)]
pub(super) fn reads(json: &[u8]) -> bool {
    read_backup(json).is_some_and(|(_, key)| sound(&key).is_ok())
}
