//! `export/`, `backup/` and `restore/`: the ways to move a key out of a mount and back. The settings of the key must
//! allow them.

use std::collections::BTreeMap;

use keepfast_crypto::Zeroizing;
use keepfast_crypto::keys::ed25519::Ed25519Key;
use keepfast_crypto::keys::{Key, KeyKind};
use keepfast_framework::fields::{Flag, Text};
use keepfast_framework::{Cx, Data, Error, Result, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backup_import::VaultBackup;
use super::key_response::{certificate_chain, public_text};
use super::keys::{KeyPath, check_name};
use super::named_key::{Event, KEYS, KeyRecord, VersionRecord, load};
use super::{Transit, backup_export, codec};

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
    /// Name of the key; that in the backup when absent.
    name: Option<Text>,
    /// The backup from `backup`.
    backup: Option<Text>,
    /// Whether an existing key is replaced.
    force: Option<Flag>,
}

/// Keys as text, by version.
#[derive(Serialize)]
pub(super) struct Exported {
    pub keys: BTreeMap<String, String>,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct BackupResponse {
    backup: String,
}

/// A backup of a key that has no OpenBao format: format 1 of Keepfast.
#[derive(Serialize, Deserialize)]
struct Backup {
    keepfast_transit_backup: u32,
    name: String,
    key: KeyRecord,
}

/// The exported part of a key.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Encryption,
    Signing,
    Hmac,
    Public,
    Certificates,
}

pub(super) async fn export(transit: &Transit, cx: &mut Cx, req: Export) -> Result<Option<Data<Exported>>> {
    let name = check_name(&req.name)?;
    let part = match &*req.kind {
        "encryption-key" => Part::Encryption,
        "signing-key" => Part::Signing,
        "hmac-key" => Part::Hmac,
        "public-key" => Part::Public,
        "certificate-chain" => Part::Certificates,
        other => return Err(Error::invalid(format!("invalid export type: {other}"))),
    };
    let Some(named_key) = transit.key_cache.get(cx, name).await? else { return Ok(None) };
    let key = &named_key.record;
    check_exportable(key, part)?;
    key.usable()?;
    let keys = select_versions(key, req.version.as_deref().filter(|version| !version.is_empty()))?
        .into_iter()
        .map(|(version, stored)| exported(key.kind, part, stored).map(|text| (version.to_string(), text)));
    let keys = keys.collect::<Result<_>>()?;
    Ok(Some(Data(Exported { keys, name: name.to_owned(), kind: key.kind.name() })))
}

/// Checks that the key has this part and may export it.
fn check_exportable(key: &KeyRecord, part: Part) -> Result<()> {
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

/// The requested versions.
pub(super) fn select_versions<'a>(key: &'a KeyRecord, version: Option<&str>) -> Result<Vec<(u32, &'a VersionRecord)>> {
    let version = match version {
        None | Some("") => return Ok(key.live().collect()),
        Some("latest") => key.latest,
        Some(text) => {
            let number: i64 = text.parse().map_err(|_| Error::invalid("invalid key version"))?;
            // A negative number is below every minimum, one above 2^32 exceeds every version.
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
            // As in OpenBao: PEM of EC keys lacks the final newline, PEM of RSA keys has it.
            Ok(if matches!(kind, KeyKind::Ecdsa(_)) { text.trim_end().to_owned() } else { text })
        }
        Part::Certificates if stored.certificates.is_empty() => {
            Err(Error::invalid("selected key version does not have a certificate chain imported"))
        }
        Part::Certificates => Ok(certificate_chain(stored).trim_end().to_owned()),
        Part::Encryption | Part::Signing => private_text(kind, stored),
    }
}

/// The private key of a version as text: base64, or PEM in the format of its type.
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

/// A private key in the format of other software: PKCS#8, or the raw key.
pub(super) fn portable(kind: KeyKind, stored: &VersionRecord) -> Result<Zeroizing<Vec<u8>>> {
    let none = || Error::invalid("the key version does not have a private part");
    let material = stored.material.as_ref().ok_or_else(none)?.expose();
    let bytes = match kind {
        KeyKind::Ed25519 => Ed25519Key::pkcs8(material).map_err(Error::internal)?.expose().clone(),
        _ => material.to_vec(),
    };
    Ok(Zeroizing::new(bytes))
}

pub(super) async fn backup(_: &Transit, cx: &mut Cx, req: KeyPath) -> Result<Data<BackupResponse>> {
    let name = check_name(&req.name)?;
    let mut key = KEYS.get(cx, name).await?.ok_or_else(|| Error::invalid(format!("key {name:?} not found")))?;
    key.usable()?;
    if !key.exportable {
        return Err(internal_error("exporting is disallowed on the policy"));
    }
    if !key.allow_plaintext_backup {
        return Err(internal_error("plaintext backup is disallowed on the policy"));
    }
    if key.kind == KeyKind::External {
        return Err(Error::invalid("a key of type external-key has no backup: its material is in another system"));
    }
    key.backed_up = Some(Event { time: cx.now(), version: key.latest });
    KEYS.put(cx, name, &key)?;
    let json = match backup_export::openbao_backup(name, &key) {
        Some(json) => json,
        None => {
            let backup = Backup { keepfast_transit_backup: 1, name: name.to_owned(), key };
            Zeroizing::new(serde_json::to_vec(&backup)?)
        }
    };
    Ok(Data(BackupResponse { backup: codec::encode(&json) }))
}

pub(super) async fn restore(_: &Transit, cx: &mut Cx, req: Restore) -> Result<()> {
    let given =
        req.backup.filter(|text| !text.is_empty()).ok_or_else(|| Error::invalid("'backup' must be supplied"))?;
    let json = Zeroizing::new(codec::decode(&given).map_err(|why| Error::invalid(why.to_string()))?);
    let (name_within, mut key) = read_backup(&json).ok_or_else(|| Error::invalid(NO_BACKUP))?;
    // Only the path can give another name.
    let renamed = req.name.map(String::from).filter(|_| !cx.request().path.ends_with("restore"));
    let name = renamed.filter(|name| !name.is_empty()).unwrap_or(name_within);
    let name = check_name(&name)?;
    check_backup(&key)?;
    if KEYS.get(cx, name).await?.is_some() && !req.force.is_some_and(|flag| flag.0) {
        return Err(internal_error(&format!("key {name:?} already exists")));
    }
    key.restored = Some(Event { time: cx.now(), version: key.latest });
    KEYS.put(cx, name, &key)
}

/// An error with OpenBao's status 500, which clients rely on: hvac's tests expect that exception.
fn internal_error(why: &str) -> Error {
    Error::new(Status::INTERNAL, format!("1 error occurred:\n\t* {why}\n\n"))
}

const NO_BACKUP: &str = "'backup' is not a backup of a transit key";

/// The name and key of a backup by Keepfast, Vault or OpenBao.
fn read_backup(json: &[u8]) -> Option<(String, KeyRecord)> {
    match serde_json::from_slice::<Backup>(json) {
        Ok(backup) => (backup.keepfast_transit_backup == 1).then_some((backup.name, backup.key)),
        Err(_) => serde_json::from_slice::<VaultBackup>(json).ok()?.read(),
    }
}

/// Refuses a backup that no mount can have created, as a backup is untrusted input.
fn check_backup(key: &KeyRecord) -> Result<()> {
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

/// Whether the bytes parse as a valid backup, for tests with arbitrary bytes.
#[cfg(test)]
pub(super) fn parses(json: &[u8]) -> bool {
    read_backup(json).is_some_and(|(_, key)| check_backup(&key).is_ok())
}
