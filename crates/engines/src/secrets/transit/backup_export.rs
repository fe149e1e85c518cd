//! Creates backups in OpenBao's format, the JSON of a key policy, which `backup_import.rs` reads. Kinds of keys that
//! OpenBao lacks and versions with only a public key have no such format.

use std::collections::BTreeMap;

use keepfast_crypto::Zeroizing;
use keepfast_crypto::keys::der::{self, Element};
use keepfast_crypto::keys::ecdsa::Curve;
use keepfast_crypto::keys::symmetric::Cipher;
use keepfast_crypto::keys::{Key, KeyKind, pem};
use keepfast_framework::Timestamp;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::codec;
use super::named_key::{Event, KeyRecord, VersionRecord, load};
use super::stored::{Material, rfc3339};

/// A backup of the key in that format, if it has one.
pub(super) fn openbao_backup(name: &str, key: &KeyRecord) -> Option<Zeroizing<Vec<u8>>> {
    let number = number(key.kind)?;
    let versions: Option<BTreeMap<u32, Version<'_>>> =
        key.versions.iter().map(|(number, stored)| Some((*number, Version::of(key, stored)?))).collect();
    let versions = versions?;
    let empty = Version::EMPTY;
    let archive = (0..=key.latest).map(|number| versions.get(&number).unwrap_or(&empty)).collect();
    let live = versions.range(key.min_decryption.max(1)..).map(|(number, version)| (*number, version)).collect();
    let policy = Policy {
        name,
        key_size: key.key_size,
        keys: live,
        derived: key.derived,
        kdf: u32::from(key.derived),
        convergent_encryption: key.convergent,
        exportable: key.exportable,
        min_decryption_version: key.min_decryption,
        min_encryption_version: key.min_encryption,
        latest_version: key.latest,
        archive_version: key.latest,
        archive_min_version: 0,
        min_available_version: key.min_available,
        deletion_allowed: key.deletion_allowed,
        convergent_version: -i32::from(key.convergent),
        kind: number,
        backup_info: key.backed_up.as_ref(),
        restore_info: key.restored.as_ref(),
        allow_plaintext_backup: key.allow_plaintext_backup,
        version_template: "",
        storage_prefix: "",
        auto_rotate_period: key.auto_rotate_period.saturating_mul(1_000_000_000),
        imported: key.imported,
        allow_imported_rotation: key.allow_imported_rotation,
        soft_deleted: key.soft_deleted,
    };
    serde_json::to_vec(&Document { policy, archived_keys: Archive { keys: archive } }).ok().map(Zeroizing::new)
}

/// OpenBao's number of a type.
fn number(kind: KeyKind) -> Option<u32> {
    Some(match kind {
        KeyKind::Symmetric(Cipher::Aes256Gcm) => 0,
        KeyKind::Ecdsa(Curve::P256) => 1,
        KeyKind::Ed25519 => 2,
        KeyKind::Rsa(2048) => 3,
        KeyKind::Rsa(4096) => 4,
        KeyKind::Symmetric(Cipher::ChaCha20Poly1305) => 5,
        KeyKind::Ecdsa(Curve::P384) => 6,
        KeyKind::Ecdsa(Curve::P521) => 7,
        KeyKind::Symmetric(Cipher::Aes128Gcm) => 8,
        KeyKind::Rsa(3072) => 9,
        KeyKind::Hmac => 10,
        KeyKind::Symmetric(Cipher::XChaCha20Poly1305) => 11,
        _ => return None,
    })
}

#[derive(Serialize)]
struct Document<'a> {
    policy: Policy<'a>,
    archived_keys: Archive<'a>,
}

#[derive(Serialize)]
struct Archive<'a> {
    keys: Vec<&'a Version<'a>>,
}

#[derive(Serialize)]
struct Policy<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    key_size: usize,
    keys: BTreeMap<u32, &'a Version<'a>>,
    derived: bool,
    kdf: u32,
    convergent_encryption: bool,
    exportable: bool,
    min_decryption_version: u32,
    min_encryption_version: u32,
    latest_version: u32,
    archive_version: u32,
    archive_min_version: u32,
    min_available_version: u32,
    deletion_allowed: bool,
    convergent_version: i32,
    #[serde(rename = "type")]
    kind: u32,
    backup_info: Option<&'a Event>,
    restore_info: Option<&'a Event>,
    allow_plaintext_backup: bool,
    version_template: &'a str,
    storage_prefix: &'a str,
    auto_rotate_period: u64,
    #[serde(rename = "Imported")]
    imported: bool,
    #[serde(rename = "AllowImportedKeyRotation")]
    allow_imported_rotation: bool,
    soft_deleted: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct Version<'a> {
    key: Option<Material>,
    hmac_key: Option<&'a Material>,
    #[serde(with = "rfc3339")]
    time: Timestamp,
    ec_x: Option<Decimal>,
    ec_y: Option<Decimal>,
    ec_d: Option<Decimal>,
    rsa_key: Option<RsaNumbers>,
    rsa_public_key: Option<()>,
    public_key: String,
    convergent_version: u32,
    creation_time: i64,
    certificate_chain: Option<&'a [Material]>,
    external_key_ref: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RsaNumbers {
    n: Decimal,
    e: Decimal,
    d: Decimal,
    primes: [Decimal; 2],
    precomputed: Precomputed,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Precomputed {
    dp: Decimal,
    dq: Decimal,
    qinv: Decimal,
    #[serde(rename = "CRTValues")]
    crt_values: [(); 0],
}

impl<'a> Version<'a> {
    /// Takes the place of a trimmed version, and of the first element.
    const EMPTY: Version<'static> = Version {
        key: None,
        hmac_key: None,
        time: Timestamp::EPOCH,
        ec_x: None,
        ec_y: None,
        ec_d: None,
        rsa_key: None,
        rsa_public_key: None,
        public_key: String::new(),
        convergent_version: 0,
        creation_time: 0,
        certificate_chain: None,
        external_key_ref: "",
    };

    fn of(key: &KeyRecord, stored: &'a VersionRecord) -> Option<Self> {
        let material = stored.material.as_ref()?;
        let mut version = Version {
            hmac_key: Some(&stored.hmac),
            time: stored.created,
            convergent_version: if key.convergent { 3 } else { 0 },
            creation_time: stored.created.unix(),
            certificate_chain: (!stored.certificates.is_empty()).then_some(&stored.certificates[..]),
            ..Version::EMPTY
        };
        match load(key.kind, stored).ok()? {
            Key::Symmetric(_) | Key::Hmac(_) => version.key = Some(material.clone()),
            Key::Ed25519(pair) => {
                version.key = Some(Material::new(pair.exported(material.expose()).expose()));
                version.public_key = codec::encode(pair.public());
            }
            Key::Ecdsa(pair) => {
                let spki = pair.spki().ok()?;
                let point = &spki[spki.len().checked_sub(2 * pair.curve().size())?..];
                let (x, y) = point.split_at(pair.curve().size());
                let [_, number, ..] = private_part(material.expose())?[..] else { return None };
                (version.ec_x, version.ec_y) = (Some(Decimal::of(x)), Some(Decimal::of(y)));
                version.ec_d = Some(Decimal::of(number.content));
                version.public_key = pem::encode("PUBLIC KEY", &spki);
            }
            Key::Rsa(_) => {
                let [_, n, e, d, p, q, dp, dq, qinv] = private_part(material.expose())?[..] else { return None };
                let number = |element: Element<'_>| Decimal::of(element.content);
                let precomputed = Precomputed { dp: number(dp), dq: number(dq), qinv: number(qinv), crt_values: [] };
                let primes = [number(p), number(q)];
                version.rsa_key = Some(RsaNumbers { n: number(n), e: number(e), d: number(d), primes, precomputed });
            }
            Key::MlDsa(_) | Key::MlKem(_) => return None,
        }
        Some(version)
    }
}

/// The elements of the ECPrivateKey or RSAPrivateKey in PKCS#8.
fn private_part(pkcs8: &[u8]) -> Option<Vec<Element<'_>>> {
    let [_version, _algorithm, key, ..] = der::children(der::whole(pkcs8, der::SEQUENCE)?.content)?[..] else {
        return None;
    };
    der::children(der::whole(key.content, der::SEQUENCE)?.content)
}

/// A whole number, written in JSON with all its digits.
struct Decimal(Zeroizing<String>);

impl Decimal {
    /// From a number in big-endian bytes.
    fn of(big_endian: &[u8]) -> Self {
        const BILLION: u64 = 1_000_000_000;
        // Nine digits per limb, the lowest first. The capacity suffices for all, as growing would leave copies in
        // memory.
        let mut limbs = Zeroizing::new(Vec::with_capacity(big_endian.len() / 3 + 2));
        limbs.push(0_u64);
        for byte in big_endian {
            let mut carry = u64::from(*byte);
            for limb in limbs.iter_mut() {
                carry += *limb << 8;
                *limb = carry % BILLION;
                carry /= BILLION;
            }
            if carry != 0 {
                limbs.push(carry);
            }
        }
        let mut text = Zeroizing::new(String::with_capacity(limbs.len() * 9));
        for limb in limbs.iter().rev() {
            let digits = Zeroizing::new(format!("{limb:09}"));
            text.push_str(&digits);
        }
        let digits = text.trim_start_matches('0');
        Decimal(Zeroizing::new(if digits.is_empty() { "0" } else { digits }.to_owned()))
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(|_| S::Error::custom("not a number"))?;
        raw.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_encoded_with_all_their_digits() {
        for (bytes, digits) in [
            (&[][..], "0"),
            (&[0, 0], "0"),
            (&[1, 0], "256"),
            (&[0x3b, 0x9a, 0xca, 0x00], "1000000000"),
            (&[255; 16], "340282366920938463463374607431768211455"),
        ] {
            assert_eq!(Decimal::of(bytes).0.as_str(), digits);
        }
    }
}
