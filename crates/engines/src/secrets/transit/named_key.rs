//! A named key with all its versions: the stored record, and the form prepared for use.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use keepfast_crypto::keys::{Key, KeyError, KeyKind};
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::{Error, Records, Result, Timestamp};
use serde::{Deserialize, Serialize};

use super::stored::{Material, by_name, der, rfc3339};

/// The named keys of a mount.
pub(super) const KEYS: Records<KeyRecord> = Records::at(FOLDER);
/// The storage prefix of keys.
pub(super) const FOLDER: &str = "key/";

/// The stored record of a named key.
#[derive(Serialize, Deserialize, Clone)]
pub(super) struct KeyRecord {
    #[serde(with = "by_name")]
    pub kind: KeyKind,
    #[serde(default)]
    pub derived: bool,
    #[serde(default)]
    pub convergent: bool,
    #[serde(default)]
    pub exportable: bool,
    #[serde(default)]
    pub allow_plaintext_backup: bool,
    #[serde(default)]
    pub deletion_allowed: bool,
    #[serde(default)]
    pub soft_deleted: bool,
    /// Imported, and never rotated here.
    #[serde(default)]
    pub imported: bool,
    #[serde(default)]
    pub allow_imported_rotation: bool,
    /// In seconds; 0 disables rotation.
    #[serde(default)]
    pub auto_rotate_period: u64,
    /// The length of an HMAC key in bytes; 0 for other kinds.
    #[serde(default)]
    pub key_size: usize,
    pub latest: u32,
    pub min_decryption: u32,
    #[serde(default)]
    pub min_encryption: u32,
    #[serde(default)]
    pub min_available: u32,
    /// The last backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backed_up: Option<Event>,
    /// The last restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Event>,
    pub versions: BTreeMap<u32, VersionRecord>,
}

/// The time of an operation on a key, and the latest version at that time.
#[derive(Serialize, Deserialize, Clone)]
pub(super) struct Event {
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    pub version: u32,
}

/// The stored record of one version.
#[derive(Serialize, Deserialize, Clone)]
pub(super) struct VersionRecord {
    pub created: Timestamp,
    /// `None` if only a public key was imported.
    pub material: Option<Material>,
    /// SubjectPublicKeyInfo, if only that was imported.
    #[serde(default, with = "der", skip_serializing_if = "Option::is_none")]
    pub public: Option<Vec<u8>>,
    /// The external key `CONFIG:KEY` of a version of type `external-key`, which has no material.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// The key of the `hmac` endpoint; that of an HMAC key is its material.
    pub hmac: Material,
    /// Certificates in DER, the leaf first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Material>,
}

/// The settings of a new key.
pub(super) struct NewKey {
    pub kind: KeyKind,
    pub derived: bool,
    pub convergent: bool,
    pub exportable: bool,
    pub allow_plaintext_backup: bool,
    pub auto_rotate_period: u64,
    pub key_size: usize,
}

impl NewKey {
    /// A key of this kind with all options disabled.
    pub(super) fn of(kind: KeyKind) -> Self {
        NewKey {
            kind,
            derived: false,
            convergent: false,
            exportable: false,
            allow_plaintext_backup: false,
            auto_rotate_period: 0,
            key_size: 0,
        }
    }

    /// The record of the key, without versions.
    pub(super) fn record(self) -> KeyRecord {
        KeyRecord {
            kind: self.kind,
            derived: self.derived,
            convergent: self.convergent,
            exportable: self.exportable,
            allow_plaintext_backup: self.allow_plaintext_backup,
            deletion_allowed: false,
            soft_deleted: false,
            imported: false,
            allow_imported_rotation: false,
            auto_rotate_period: self.auto_rotate_period,
            key_size: self.key_size,
            latest: 0,
            min_decryption: 1,
            min_encryption: 0,
            min_available: 0,
            backed_up: None,
            restored: None,
            versions: BTreeMap::new(),
        }
    }
}

impl KeyRecord {
    /// Adds a version with generated key material.
    pub(super) async fn generate_version(&mut self, now: Timestamp) -> Result<()> {
        let material = generate(self.kind, self.key_size).await?;
        self.add(Some(material.expose()), None, now);
        Ok(())
    }

    /// Adds a version with this material, or with only a public key.
    pub(super) fn add(&mut self, material: Option<&[u8]>, public: Option<Vec<u8>>, now: Timestamp) {
        let hmac = match (self.kind, material) {
            (KeyKind::Hmac, Some(material)) => Material::new(material),
            _ => Material::new(random::bytes::<32>().as_slice()),
        };
        self.latest += 1;
        let material = material.map(Material::new);
        let record = VersionRecord { created: now, material, public, external: None, hmac, certificates: Vec::new() };
        self.versions.insert(self.latest, record);
    }

    /// Adds a version that is an external key.
    pub(super) fn add_external(&mut self, reference: String, now: Timestamp) {
        self.add(None, None, now);
        if let Some(added) = self.versions.get_mut(&self.latest) {
            added.external = Some(reference);
        }
    }

    /// The versions from the minimum for decryption on.
    pub(super) fn live(&self) -> impl Iterator<Item = (u32, &VersionRecord)> {
        self.versions.range(self.min_decryption.max(1)..).map(|(version, record)| (*version, record))
    }

    /// One of those versions.
    pub(super) fn live_version(&self, version: u32) -> Option<&VersionRecord> {
        self.versions.get(&version).filter(|_| version >= self.min_decryption.max(1))
    }

    /// The version for an encryption or signature: `requested`, or the latest for 0. Errors name the operation as
    /// `doing`.
    pub(super) fn version_for(&self, requested: i64, doing: &str) -> Result<u32, String> {
        if requested < 0 {
            return Err(format!("requested version for {doing} is negative"));
        }
        let version = match u32::try_from(requested) {
            Ok(0) => return Ok(self.latest),
            Ok(version) if version <= self.latest => version,
            _ => return Err(format!("requested version for {doing} is higher than the latest key version")),
        };
        if version < self.min_encryption {
            return Err(format!("requested version for {doing} is less than the minimum encryption key version"));
        }
        Ok(version)
    }

    /// Refuses the use of a soft-deleted key.
    pub(super) fn usable(&self) -> Result<()> {
        if self.soft_deleted { Err(Error::invalid("refusing to use soft-deleted key")) } else { Ok(()) }
    }
}

/// Generates material, on another thread if that is slow.
async fn generate(kind: KeyKind, size: usize) -> Result<SecretBytes> {
    if kind.is_slow_to_generate() {
        let making = tokio::task::spawn_blocking(move || Key::generate(kind, size));
        return making.await.map_err(Error::internal)?.map_err(Error::internal);
    }
    Key::generate(kind, size).map_err(Error::internal)
}

/// A named key, prepared for use and shared by requests.
pub(super) struct NamedKey {
    pub record: KeyRecord,
    prepared: BTreeMap<u32, Prepared>,
}

/// One version, prepared on first use.
#[derive(Default)]
struct Prepared {
    key: OnceLock<Arc<Key>>,
    /// Encryptions that are reserved in storage and not yet used.
    uses: AtomicU64,
}

impl NamedKey {
    /// Creates the ring of a key; its versions are prepared on first use.
    pub(super) fn new(record: KeyRecord) -> Self {
        let prepared = record.versions.keys().map(|version| (*version, Prepared::default())).collect();
        NamedKey { record, prepared }
    }

    /// A prepared version; `None` if it does not exist or is below the minimum.
    pub(super) fn key(&self, version: u32) -> Result<Option<&Arc<Key>>, KeyError> {
        if version < self.record.min_decryption {
            return Ok(None);
        }
        let (Some(slot), Some(stored)) = (self.prepared.get(&version), self.record.versions.get(&version)) else {
            return Ok(None);
        };
        if slot.key.get().is_none() {
            let key = load(self.record.kind, stored)?;
            let _ = slot.key.set(Arc::new(key));
        }
        Ok(slot.key.get())
    }

    /// Takes `count` of the reserved uses of a version; returns whether there were enough.
    pub(super) fn take_uses(&self, version: u32, count: u64) -> bool {
        let Some(slot) = self.prepared.get(&version) else { return false };
        slot.uses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count)).is_ok()
    }

    /// Adds to the reserved uses of a version.
    pub(super) fn add_uses(&self, version: u32, count: u64) {
        if let Some(slot) = self.prepared.get(&version) {
            slot.uses.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// Prepares one version.
pub(super) fn load(kind: KeyKind, stored: &VersionRecord) -> Result<Key, KeyError> {
    match (&stored.material, &stored.public) {
        (Some(material), _) => Key::load(kind, material.expose()),
        (None, Some(public)) => Key::load_public(kind, public),
        (None, None) => Err(KeyError::Malformed),
    }
}
