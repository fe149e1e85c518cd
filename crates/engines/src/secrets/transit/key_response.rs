//! A key in responses, always without key material (CVE-2022-25244).

use std::collections::BTreeMap;

use keepfast_crypto::keys::ed25519::Ed25519Key;
use keepfast_crypto::keys::{Key, KeyError, KeyKind, pem};
use keepfast_framework::{Error, Result};
use serde::Serialize;

use super::codec;
use super::named_key::{Event, KeyRecord, VersionRecord, load};

/// A key without its secrets, with the fields in OpenBao's order.
#[derive(Serialize)]
pub(super) struct KeyResponse {
    allow_plaintext_backup: bool,
    auto_rotate_period: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup_info: Option<Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    convergent_encryption: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    convergent_encryption_version: Option<i32>,
    deletion_allowed: bool,
    derived: bool,
    exportable: bool,
    imported_key: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    imported_key_allow_rotation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kdf: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<BTreeMap<String, VersionResponse>>,
    latest_version: u32,
    min_available_version: u32,
    min_decryption_version: u32,
    min_encryption_version: u32,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    restore_info: Option<Event>,
    soft_deleted: bool,
    supports_decryption: bool,
    supports_derivation: bool,
    supports_encryption: bool,
    supports_signing: bool,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// A version without its secrets.
#[derive(Serialize)]
#[serde(untagged)]
enum VersionResponse {
    /// The creation time of a version of a symmetric key, in Unix seconds.
    Created(i64),
    /// The external key of a version.
    External(String),
    /// A version of a key pair.
    Pair { certificate_chain: String, creation_time: String, name: &'static str, public_key: String },
}

impl KeyResponse {
    /// The view of a key. With a context, the public keys of a derived key are those of that context.
    pub(super) fn of(name: &str, key: &KeyRecord, context: Option<&[u8]>) -> Result<Self> {
        let kind = key.kind;
        let versions =
            || key.live().map(|(version, stored)| Ok((version.to_string(), version_view(key, stored, context)?)));
        Ok(KeyResponse {
            allow_plaintext_backup: key.allow_plaintext_backup,
            auto_rotate_period: key.auto_rotate_period,
            backup_info: key.backed_up.clone(),
            convergent_encryption: key.derived.then_some(key.convergent),
            // OpenBao's value for "each version has its own".
            convergent_encryption_version: key.convergent.then_some(-1),
            deletion_allowed: key.deletion_allowed,
            derived: key.derived,
            exportable: key.exportable,
            imported_key: key.imported,
            imported_key_allow_rotation: key.imported.then_some(key.allow_imported_rotation),
            kdf: key.derived.then_some("hkdf_sha256"),
            key_size: (kind == KeyKind::Hmac).then_some(key.key_size),
            keys: (kind != KeyKind::Hmac).then(|| versions().collect::<Result<_>>()).transpose()?,
            latest_version: key.latest,
            min_available_version: key.min_available,
            min_decryption_version: key.min_decryption,
            min_encryption_version: key.min_encryption,
            name: name.to_owned(),
            restore_info: key.restored.clone(),
            soft_deleted: key.soft_deleted,
            supports_decryption: kind.encrypts(),
            supports_derivation: kind.derives(),
            supports_encryption: kind.encrypts(),
            supports_signing: kind.signs(),
            kind: kind.name(),
        })
    }
}

fn version_view(key: &KeyRecord, stored: &VersionRecord, context: Option<&[u8]>) -> Result<VersionResponse> {
    if let Some(reference) = &stored.external {
        return Ok(VersionResponse::External(reference.clone()));
    }
    if !key.kind.has_public_key() {
        return Ok(VersionResponse::Created(stored.created.unix()));
    }
    let public_key = match (key.derived, context, &stored.material) {
        (true, Some(context), Some(seed)) => {
            let derived = Ed25519Key::derive(seed.expose(), context).map_err(Error::internal)?;
            codec::encode(derived.public())
        }
        (true, ..) => String::new(),
        (false, ..) => public_text(key.kind, stored).map_err(Error::internal)?,
    };
    Ok(VersionResponse::Pair {
        certificate_chain: certificate_chain(stored).trim_end().to_owned(),
        creation_time: stored.created.rfc3339(),
        name: match key.kind {
            KeyKind::Ecdsa(curve) => curve.name(),
            other => other.name(),
        },
        public_key,
    })
}

/// The public key of a version as text: base64 for Ed25519, ML-DSA and ML-KEM, PEM for the rest.
pub(super) fn public_text(kind: KeyKind, stored: &VersionRecord) -> Result<String, KeyError> {
    Ok(match load(kind, stored)? {
        Key::Ed25519(key) => codec::encode(key.public()),
        Key::MlDsa(key) => codec::encode(key.public()),
        Key::MlKem(key) => codec::encode(&key.public()?),
        Key::Ecdsa(key) => pem::encode("PUBLIC KEY", &key.spki()?),
        Key::Rsa(key) => pem::encode("PUBLIC KEY", &key.spki()?),
        Key::Symmetric(_) | Key::Hmac(_) => return Err(KeyError::Unsupported),
    })
}

/// The certificates of a version as PEM, one after the other; empty if there are none.
pub(super) fn certificate_chain(stored: &VersionRecord) -> String {
    let blocks: Vec<String> = stored.certificates.iter().map(|der| pem::encode("CERTIFICATE", der.expose())).collect();
    blocks.concat()
}
