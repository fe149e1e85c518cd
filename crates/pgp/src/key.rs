//! Public keys of version 4 (RFC 4880, section 5.5.2): RSA, EdDSA and ECDH on Curve25519.

use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::ed25519::Ed25519Key;
use keepfast_crypto::keys::rsa::{RsaKey, RsaScheme};
use keepfast_crypto::openpgp;

use crate::packet::read_number;

/// The object identifiers of the curves, as packets have them.
const ED25519: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];
const CURVE25519: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x97, 0x55, 0x01, 0x05, 0x01];
/// The octet before a point of these curves.
const NATIVE: u8 = 0x40;

/// A key of a certificate.
pub(crate) struct PublicKey<'a> {
    /// The body of its packet.
    pub(crate) body: &'a [u8],
    /// Seconds since the epoch.
    pub(crate) created: u64,
    pub(crate) material: Material,
}

/// The numbers of a key.
pub(crate) enum Material {
    Rsa {
        /// SubjectPublicKeyInfo.
        spki: Vec<u8>,
        /// Bytes of the modulus.
        size: usize,
        /// Whether the algorithm number allows encryption: 1 and 2, not 3.
        may_encrypt: bool,
        /// Whether the algorithm number allows signatures: 1 and 3, not 2.
        may_sign: bool,
    },
    Ed25519([u8; 32]),
    X25519 {
        public: [u8; 32],
        hash: Hash,
        hash_id: u8,
        cipher_id: u8,
        kek_size: usize,
    },
    /// Another algorithm.
    Other,
}

impl<'a> PublicKey<'a> {
    /// Reads the body of a packet; `None` when it is not a key of version 4.
    pub(crate) fn read(body: &'a [u8]) -> Option<Self> {
        let (fixed, numbers) = body.split_first_chunk::<6>()?;
        let [4, a, b, c, d, algorithm] = *fixed else { return None };
        let created = u64::from(u32::from_be_bytes([a, b, c, d]));
        // Longer bodies have no fingerprint: its length has two bytes.
        u16::try_from(body.len()).ok()?;
        let material = match algorithm {
            1..=3 => rsa(algorithm, numbers)?,
            18 => ecdh(numbers)?,
            22 => eddsa(numbers)?,
            _ => Material::Other,
        };
        Some(PublicKey { body, created, material })
    }

    /// The key as signatures hash it (section 5.2.4).
    pub(crate) fn hashed(&self) -> Vec<u8> {
        let length = u16::try_from(self.body.len()).unwrap_or(u16::MAX);
        [&[0x99], length.to_be_bytes().as_slice(), self.body].concat()
    }

    /// The fingerprint, 20 bytes (section 12.2). Its last 8 are the id of the key.
    pub(crate) fn fingerprint(&self) -> Vec<u8> {
        Hash::Sha1.digest(&self.hashed())
    }

    /// Whether the numbers of a signature are valid for a digest.
    pub(crate) fn verifies(&self, hash: Hash, digest: &[u8], numbers: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { spki, size, may_sign: true, .. } => {
                let Some((number, [])) = read_number(numbers) else { return false };
                let Some(padding) = size.checked_sub(number.len()) else { return false };
                let signature = [&vec![0; padding], number].concat();
                let key = RsaKey::from_spki(spki);
                key.is_ok_and(|key| key.verify(RsaScheme::Pkcs1(Some(hash)), digest, &signature).unwrap_or(false))
            }
            Material::Ed25519(public) => {
                let Some((r, rest)) = read_number(numbers) else { return false };
                let Some((s, [])) = read_number(rest) else { return false };
                if r.len() > 32 || s.len() > 32 {
                    return false;
                }
                let mut signature = [0; 64];
                signature[32 - r.len()..32].copy_from_slice(r);
                signature[64 - s.len()..].copy_from_slice(s);
                Ed25519Key::from_public(public).is_ok_and(|key| key.verify(digest, &signature))
            }
            _ => false,
        }
    }

    /// Whether signatures of the key can be verified.
    pub(crate) fn can_verify(&self) -> bool {
        matches!(self.material, Material::Rsa { may_sign: true, .. } | Material::Ed25519(_))
    }

    /// Whether something can be encrypted to the numbers of the key.
    pub(crate) fn can_encrypt(&self) -> bool {
        matches!(self.material, Material::Rsa { may_encrypt: true, .. } | Material::X25519 { .. })
    }
}

fn rsa(algorithm: u8, numbers: &[u8]) -> Option<Material> {
    let (modulus, rest) = read_number(numbers)?;
    let (exponent, []) = read_number(rest)? else { return None };
    let spki = openpgp::rsa_spki(modulus, exponent);
    // Smaller and larger keys are not used.
    if RsaKey::from_spki(&spki).is_err() {
        return Some(Material::Other);
    }
    Some(Material::Rsa { spki, size: modulus.len(), may_encrypt: algorithm != 3, may_sign: algorithm != 2 })
}

/// The curve, and the bytes after it.
fn curve(numbers: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = numbers.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// A point of 32 bytes, and the bytes after it.
fn point(numbers: &[u8]) -> Option<([u8; 32], &[u8])> {
    let (number, rest) = read_number(numbers)?;
    let point = number.strip_prefix(&[NATIVE])?.try_into().ok()?;
    Some((point, rest))
}

fn eddsa(numbers: &[u8]) -> Option<Material> {
    let (curve, rest) = curve(numbers)?;
    if curve != ED25519 {
        return Some(Material::Other);
    }
    let (public, []) = point(rest)? else { return None };
    Some(Material::Ed25519(public))
}

fn ecdh(numbers: &[u8]) -> Option<Material> {
    let (curve, rest) = curve(numbers)?;
    if curve != CURVE25519 {
        return Some(Material::Other);
    }
    let (public, [3, 1, hash_id, cipher_id]) = point(rest)? else { return None };
    let (hash_id, cipher_id) = (*hash_id, *cipher_id);
    let hash = match hash_id {
        8 => Hash::Sha256,
        9 => Hash::Sha384,
        10 => Hash::Sha512,
        _ => return Some(Material::Other),
    };
    let kek_size = match cipher_id {
        7 => 16,
        9 => 32,
        _ => return Some(Material::Other),
    };
    Some(Material::X25519 { public, hash, hash_id, cipher_id, kek_size })
}

/// The parameters of the KDF of ECDH (RFC 6637, section 8), for the key with this fingerprint.
pub(crate) fn kdf_parameters(hash_id: u8, cipher_id: u8, fingerprint: &[u8]) -> Vec<u8> {
    let length = u8::try_from(CURVE25519.len()).unwrap_or(u8::MAX);
    [&[length], CURVE25519, &[18, 3, 1, hash_id, cipher_id], b"Anonymous Sender    ", fingerprint].concat()
}
