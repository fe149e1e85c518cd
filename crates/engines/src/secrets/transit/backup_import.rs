//! Restores backups of Vault or OpenBao: the JSON of their key policies. So keys move here without single exports, and
//! their ciphertexts decrypt here.

use std::collections::BTreeMap;

use keepfast_crypto::Zeroizing;
use keepfast_crypto::keys::ecdsa::{Curve, EcKey};
use keepfast_crypto::keys::rsa::RsaKey;
use keepfast_crypto::keys::symmetric::Cipher;
use keepfast_crypto::keys::{Key, KeyKind, pem};
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::named_key::{Event, KeyRecord, NewKey, VersionRecord};
use super::stored::Material;

/// A backup.
#[derive(Deserialize)]
pub(super) struct VaultBackup {
    policy: Policy,
    archived_keys: Option<Archive>,
}

/// A key with the versions that decrypt.
#[derive(Deserialize)]
struct Policy {
    name: String,
    keys: BTreeMap<u32, Version>,
    #[serde(rename = "type")]
    kind: u32,
    derived: bool,
    kdf: u32,
    convergent_encryption: bool,
    exportable: bool,
    min_decryption_version: u32,
    min_encryption_version: u32,
    latest_version: u32,
    min_available_version: u32,
    deletion_allowed: bool,
    allow_plaintext_backup: bool,
    /// In nanoseconds.
    #[serde(default)]
    auto_rotate_period: u64,
    #[serde(default, rename = "Imported")]
    imported: bool,
    #[serde(default, rename = "AllowImportedKeyRotation")]
    allow_imported_rotation: bool,
    backup_info: Option<Event>,
    /// Only OpenBao has this field, which tells its type numbers from Vault's.
    soft_deleted: Option<bool>,
}

/// All versions; the first element is unused.
#[derive(Deserialize)]
struct Archive {
    keys: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    key: Option<Material>,
    hmac_key: Option<Material>,
    time: Option<String>,
    ec_d: Option<Box<RawValue>>,
    rsa_key: Option<RsaNumbers>,
    #[serde(default)]
    convergent_version: i32,
    certificate_chain: Option<Vec<Material>>,
    #[serde(default)]
    public_key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RsaNumbers {
    n: Box<RawValue>,
    e: Box<RawValue>,
    d: Box<RawValue>,
    primes: Vec<Box<RawValue>>,
    precomputed: RsaPrecomputed,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RsaPrecomputed {
    dp: Box<RawValue>,
    dq: Box<RawValue>,
    qinv: Box<RawValue>,
}

impl VaultBackup {
    /// The name and the key, if this engine supports its type.
    pub(super) fn read(self) -> Option<(String, KeyRecord)> {
        let VaultBackup { policy, archived_keys } = self;
        let kind = kind(policy.kind, policy.soft_deleted.is_some())?;
        // 1 is HKDF. Older derivation functions have not been used for ten years.
        if policy.derived && policy.kdf != 1 {
            return None;
        }
        let mut record = NewKey {
            derived: policy.derived,
            convergent: policy.convergent_encryption,
            exportable: policy.exportable,
            allow_plaintext_backup: policy.allow_plaintext_backup,
            auto_rotate_period: policy.auto_rotate_period / 1_000_000_000,
            ..NewKey::of(kind)
        }
        .record();
        record.deletion_allowed = policy.deletion_allowed;
        record.soft_deleted = policy.soft_deleted.unwrap_or_default();
        record.imported = policy.imported;
        record.allow_imported_rotation = policy.allow_imported_rotation;
        record.latest = policy.latest_version;
        record.backed_up = policy.backup_info;
        record.min_decryption = policy.min_decryption_version.max(1);
        record.min_encryption = policy.min_encryption_version;
        record.min_available = policy.min_available_version;
        let archived = archived_keys.into_iter().flat_map(|archive| archive.keys).zip(0_u32..).map(|(v, n)| (n, v));
        for (number, version) in archived.chain(policy.keys) {
            let lost = number < record.min_available || version.is_empty();
            if number == 0 || lost || record.versions.contains_key(&number) {
                continue;
            }
            // The first two versions of convergent encryption took the nonce from the client or from the plaintext
            // alone.
            if record.convergent && version.convergent_version != 3 {
                return None;
            }
            record.versions.insert(number, version.read(kind)?);
        }
        if kind == KeyKind::Hmac {
            let latest = record.versions.get(&record.latest)?;
            record.key_size = latest.material.as_ref()?.expose().len();
        }
        Some((policy.name, record))
    }
}

/// The kind of a type number.
fn kind(number: u32, openbao: bool) -> Option<KeyKind> {
    Some(match (number, openbao) {
        (0, _) => KeyKind::Symmetric(Cipher::Aes256Gcm),
        (1, _) => KeyKind::Ecdsa(Curve::P256),
        (2, _) => KeyKind::Ed25519,
        (3, _) => KeyKind::Rsa(2048),
        (4, _) => KeyKind::Rsa(4096),
        (5, _) => KeyKind::Symmetric(Cipher::ChaCha20Poly1305),
        (6, _) => KeyKind::Ecdsa(Curve::P384),
        (7, _) => KeyKind::Ecdsa(Curve::P521),
        (8, _) => KeyKind::Symmetric(Cipher::Aes128Gcm),
        (9, _) => KeyKind::Rsa(3072),
        (10, true) | (11, false) => KeyKind::Hmac,
        (11, true) => KeyKind::Symmetric(Cipher::XChaCha20Poly1305),
        _ => return None,
    })
}

impl Version {
    fn is_empty(&self) -> bool {
        self.key.is_none() && self.ec_d.is_none() && self.rsa_key.is_none() && self.public_key.is_empty()
    }

    fn read(self, kind: KeyKind) -> Option<VersionRecord> {
        let material = match (kind, &self.ec_d, &self.rsa_key, &self.key) {
            (KeyKind::Ecdsa(curve), Some(number), ..) => {
                let number = number_of(number)?;
                // The number is zero if only the public key was imported.
                if number.iter().all(|byte| *byte == 0) {
                    None
                } else {
                    Some(EcKey::pkcs8_from_number(curve, &number).ok()?)
                }
            }
            (KeyKind::Rsa(_), _, Some(numbers), _) => Some(numbers.pkcs8()?),
            (KeyKind::Ed25519, _, _, Some(pair)) => Some(SecretBytes::new(pair.expose().get(..32)?.to_vec())),
            (KeyKind::Symmetric(_) | KeyKind::Hmac, _, _, Some(key)) => Some(SecretBytes::new(key.expose().to_vec())),
            _ => None,
        };
        let public = if material.is_none() { Some(pem::decode(&self.public_key)?.1) } else { None };
        if let Some(spki) = &public {
            Key::load_public(kind, spki).ok()?;
        }
        let created = self.time.as_deref().and_then(Timestamp::parse_rfc3339).unwrap_or(Timestamp::EPOCH);
        let material = material.map(|material| Material::new(material.expose()));
        let hmac = if kind == KeyKind::Hmac { material.clone() } else { self.hmac_key };
        let certificates = self.certificate_chain.unwrap_or_default();
        Some(VersionRecord { created, material, public, external: None, hmac: hmac?, certificates })
    }
}

impl RsaNumbers {
    fn pkcs8(&self) -> Option<SecretBytes> {
        let [p, q] = &self.primes[..] else { return None };
        let RsaPrecomputed { dp, dq, qinv } = &self.precomputed;
        let numbers = [&self.n, &self.e, &self.d, p, q, dp, dq, qinv].map(|number| number_of(number));
        let [Some(n), Some(e), Some(d), Some(p), Some(q), Some(dp), Some(dq), Some(qinv)] = &numbers else {
            return None;
        };
        RsaKey::pkcs8_from_numbers([n, e, d, p, q, dp, dq, qinv]).ok()
    }
}

/// The maximum number of digits: that of RSA with 8192 bits.
const MAX_DIGITS: usize = 2467;

/// The bytes, big-endian, of a whole number in decimal digits.
fn number_of(json: &RawValue) -> Option<Zeroizing<Vec<u8>>> {
    let digits = json.get().as_bytes();
    if digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Nine digits at a time into limbs of 32 bits, the lowest first.
    let mut limbs = Zeroizing::new(vec![0_u32; digits.len() / 9 + 1]);
    for chunk in digits.chunks(9) {
        let scale = chunk.iter().fold(1, |scale, _| scale * 10);
        let mut carry = chunk.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        for limb in limbs.iter_mut() {
            carry += u64::from(*limb) * scale;
            *limb = u32::try_from(carry & 0xffff_ffff).unwrap_or_default();
            carry >>= 32;
        }
    }
    Some(Zeroizing::new(limbs.iter().rev().flat_map(|limb| limb.to_be_bytes()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_numbers_are_converted_to_bytes() {
        let number = |text: &str| {
            let bytes = number_of(&RawValue::from_string(text.to_owned()).unwrap())?;
            Some(bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>())
        };
        assert_eq!(number("0"), Some(vec![]));
        assert_eq!(number("255"), Some(vec![255]));
        assert_eq!(number("256"), Some(vec![1, 0]));
        assert_eq!(number("340282366920938463463374607431768211455"), Some(vec![255; 16]));
        assert_eq!(number("340282366920938463463374607431768211456"), Some([vec![1], vec![0; 16]].concat()));
        assert_eq!(number(&"9".repeat(MAX_DIGITS)).map(|bytes| bytes.len()), Some(1025));
        assert_eq!(number(&"9".repeat(MAX_DIGITS + 1)), None);
        for bad in ["-1", "1.5", "1e3", "\"1\"", "null"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
