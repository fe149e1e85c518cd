//! The keys that callers name: one file per algorithm family, one row of [`KeyKind`] per type.
//!
//! aws-lc does every operation with a private key. It lacks XChaCha20-Poly1305, which comes from
//! another library and is constant-time by design. A key is stored as its *material* (secret bytes in
//! the one format of its family) and used as a [`Key`], prepared once.
//!
//! | family | material | public half |
//! |---|---|---|
//! | symmetric, HMAC | the key | none |
//! | Ed25519, ML-DSA | the seed of 32 bytes | raw |
//! | ECDSA, RSA | PKCS#8 | SubjectPublicKeyInfo |
//! | ML-KEM | decapsulation key, encapsulation key | raw |

pub mod der;
pub mod digest;
pub mod ecdsa;
pub mod ed25519;
mod evp;
pub mod mldsa;
pub mod mlkem;
pub mod pair;
pub mod pem;
pub mod rsa;
pub mod symmetric;
pub mod wrapping;

#[cfg(test)]
mod known_answers;
#[cfg(test)]
mod tests;

use crate::random;
use crate::secret::SecretBytes;
use ecdsa::{Curve, EcKey};
use ed25519::Ed25519Key;
use mldsa::{MlDsa, MlDsaKey};
use mlkem::{MlKem, MlKemKey};
use rsa::RsaKey;
use symmetric::{Cipher, SymmetricKey};

/// Why an operation with a key failed. No variant reveals the key or a plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are not a key of this format.
    #[error("malformed key")]
    Malformed,
    /// The key is of another kind or size.
    #[error("wrong kind of key")]
    WrongKind,
    /// Decryption failed: key, associated data or ciphertext differ from what was sealed.
    #[error("message authentication failed")]
    Unauthentic,
    /// The operation needs a private key, and there is only the public half.
    #[error("only a public key")]
    PublicOnly,
    /// The digest does not have the length of its hash function.
    #[error("input must be hashed with given hash")]
    WrongDigestSize,
    /// The salt does not fit into the modulus.
    #[error("invalid salt length")]
    WrongSaltLength,
    /// The kind of key cannot do this.
    #[error("unsupported operation for the kind of key")]
    Unsupported,
    /// The library refused.
    #[error("cryptographic operation failed")]
    Failed,
}

/// The length of the salt of a PSS signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaltLength {
    /// The maximum length for a signature; any length for verification.
    #[default]
    Auto,
    /// The length of the digest.
    Hash,
    /// This many bytes.
    Bytes(u16),
}

/// The algorithm of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// A symmetric cipher.
    Symmetric(Cipher),
    /// Ed25519 signatures.
    Ed25519,
    /// ECDSA signatures and ECDH.
    Ecdsa(Curve),
    /// RSA signatures and encryption, with the bits of the modulus.
    Rsa(u16),
    /// HMAC only.
    Hmac,
    /// ML-DSA signatures.
    MlDsa(MlDsa),
    /// ML-KEM encryption.
    MlKem(MlKem),
    /// A key of another system, which does all operations: there is no material here.
    External,
}

/// The name of [`KeyKind::External`] in the API.
pub const EXTERNAL: &str = "external-key";

/// Minimum and maximum length of an HMAC key in bytes.
pub const HMAC_KEY_SIZES: std::ops::RangeInclusive<usize> = 32..=512;

impl KeyKind {
    /// Every kind with material and its name in the API.
    pub const ALL: [(Self, &'static str); 19] = [
        (Self::Symmetric(Cipher::Aes128Gcm), "aes128-gcm96"),
        (Self::Symmetric(Cipher::Aes256Gcm), "aes256-gcm96"),
        (Self::Symmetric(Cipher::Aes256GcmSiv), "aes256-gcm-siv"),
        (Self::Symmetric(Cipher::ChaCha20Poly1305), "chacha20-poly1305"),
        (Self::Symmetric(Cipher::XChaCha20Poly1305), "xchacha20-poly1305"),
        (Self::Ed25519, "ed25519"),
        (Self::Ecdsa(Curve::P256), "ecdsa-p256"),
        (Self::Ecdsa(Curve::P384), "ecdsa-p384"),
        (Self::Ecdsa(Curve::P521), "ecdsa-p521"),
        (Self::Rsa(2048), "rsa-2048"),
        (Self::Rsa(3072), "rsa-3072"),
        (Self::Rsa(4096), "rsa-4096"),
        (Self::Hmac, "hmac"),
        (Self::MlDsa(MlDsa::MlDsa44), "ml-dsa-44"),
        (Self::MlDsa(MlDsa::MlDsa65), "ml-dsa-65"),
        (Self::MlDsa(MlDsa::MlDsa87), "ml-dsa-87"),
        (Self::MlKem(MlKem::MlKem768), "ml-kem-768"),
        (Self::MlKem(MlKem::MlKem1024), "ml-kem-1024"),
        (Self::MlKem(MlKem::X25519MlKem768), "x25519-ml-kem-768"),
    ];

    /// Its name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        if self == Self::External {
            return EXTERNAL;
        }
        let row = Self::ALL.into_iter().find(|(kind, _)| *kind == self);
        row.map_or("rsa", |(_, name)| name)
    }

    /// The kind with material that has this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(kind, _)| kind)
    }

    /// Whether it encrypts and decrypts.
    #[must_use]
    pub fn encrypts(self) -> bool {
        matches!(self, Self::Symmetric(_) | Self::Rsa(_) | Self::MlKem(_) | Self::External)
    }

    /// Whether it signs and verifies.
    #[must_use]
    pub fn signs(self) -> bool {
        matches!(self, Self::Ed25519 | Self::Ecdsa(_) | Self::Rsa(_) | Self::MlDsa(_) | Self::External)
    }

    /// Whether it supports key derivation from a context.
    #[must_use]
    pub fn derives(self) -> bool {
        matches!(self, Self::Symmetric(_) | Self::Ed25519)
    }

    /// Whether its encryption binds associated data.
    #[must_use]
    pub fn binds_associated_data(self) -> bool {
        matches!(self, Self::Symmetric(_) | Self::MlKem(_) | Self::External)
    }

    /// Whether its material has a public half.
    #[must_use]
    pub fn has_public_key(self) -> bool {
        !matches!(self, Self::Symmetric(_) | Self::Hmac | Self::External)
    }

    /// Whether one operation takes milliseconds, so that a batch of them must yield to other tasks.
    #[must_use]
    pub fn is_slow_to_use(self) -> bool {
        matches!(self, Self::Rsa(_) | Self::MlDsa(_))
    }

    /// Whether generation takes so long that it must not run on a thread that serves requests.
    #[must_use]
    pub fn is_slow_to_generate(self) -> bool {
        matches!(self, Self::Rsa(_))
    }
}

/// A key, prepared for use. Wiped when dropped.
pub enum Key {
    /// A symmetric cipher.
    Symmetric(SymmetricKey),
    /// Ed25519.
    Ed25519(Ed25519Key),
    /// A NIST curve.
    Ecdsa(EcKey),
    /// RSA.
    Rsa(RsaKey),
    /// HMAC; the material itself.
    Hmac(SecretBytes),
    /// ML-DSA.
    MlDsa(MlDsaKey),
    /// ML-KEM.
    MlKem(MlKemKey),
}

impl Key {
    /// Generates the material of a key. `hmac_size` is the length of an HMAC key in bytes.
    ///
    /// # Errors
    /// When the library fails, or the size is out of [`HMAC_KEY_SIZES`].
    pub fn generate(kind: KeyKind, hmac_size: usize) -> Result<SecretBytes, KeyError> {
        let size = match kind {
            KeyKind::Ecdsa(curve) => return EcKey::generate(curve),
            KeyKind::Rsa(bits) => return RsaKey::generate(bits.into()),
            KeyKind::MlKem(set) => return MlKemKey::generate(set),
            KeyKind::Symmetric(cipher) => cipher.key_size(),
            KeyKind::Ed25519 | KeyKind::MlDsa(_) => 32,
            KeyKind::Hmac if HMAC_KEY_SIZES.contains(&hmac_size) => hmac_size,
            KeyKind::Hmac => return Err(KeyError::Malformed),
            KeyKind::External => return Err(KeyError::Unsupported),
        };
        let mut material = SecretBytes::new(vec![0; size]);
        random::fill(material.expose_mut());
        Ok(material)
    }

    /// Prepares a key from its material.
    ///
    /// # Errors
    /// When the material is not a key of this kind.
    pub fn load(kind: KeyKind, material: &[u8]) -> Result<Self, KeyError> {
        Ok(match kind {
            KeyKind::Symmetric(cipher) => Self::Symmetric(SymmetricKey::new(cipher, material)?),
            KeyKind::Ed25519 => Self::Ed25519(Ed25519Key::from_seed(material)?),
            KeyKind::Ecdsa(curve) => Self::Ecdsa(EcKey::from_pkcs8(curve, material)?),
            KeyKind::Rsa(bits) => Self::Rsa(sized(RsaKey::from_pkcs8(material)?, bits)?),
            KeyKind::Hmac if HMAC_KEY_SIZES.contains(&material.len()) => {
                Self::Hmac(SecretBytes::new(material.to_vec()))
            }
            KeyKind::Hmac => return Err(KeyError::Malformed),
            KeyKind::MlDsa(set) => Self::MlDsa(MlDsaKey::from_seed(set, material)?),
            KeyKind::MlKem(set) => Self::MlKem(MlKemKey::from_bytes(set, material)?),
            KeyKind::External => return Err(KeyError::Unsupported),
        })
    }

    /// Prepares a public key from a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// When it is not a public key of this kind, or the kind has none.
    pub fn load_public(kind: KeyKind, spki: &[u8]) -> Result<Self, KeyError> {
        Ok(match kind {
            KeyKind::Ed25519 => Self::Ed25519(Ed25519Key::from_public(&Ed25519Key::public_from_spki(spki)?)?),
            KeyKind::Ecdsa(curve) => Self::Ecdsa(EcKey::from_spki(curve, spki)?),
            KeyKind::Rsa(bits) => Self::Rsa(sized(RsaKey::from_spki(spki)?, bits)?),
            _ => return Err(KeyError::Unsupported),
        })
    }

    /// Prepares a public key of RSA, of a NIST curve or of Ed25519 from a SubjectPublicKeyInfo, which says its kind.
    ///
    /// # Errors
    /// When it is malformed, or a key of another kind.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        if let Ok(public) = Ed25519Key::public_from_spki(spki) {
            return Ok(Self::Ed25519(Ed25519Key::from_public(&public)?));
        }
        let mut on_curves = Curve::ALL.into_iter().filter_map(|curve| EcKey::from_spki(curve, spki).ok());
        if let Some(key) = on_curves.next() {
            return Ok(Self::Ecdsa(key));
        }
        RsaKey::from_spki(spki).map(Self::Rsa)
    }

    /// The public key as DER of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// When the kind has no public key in that format.
    pub fn spki(&self) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Rsa(key) => key.spki(),
            Self::Ecdsa(key) => key.spki(),
            Self::Ed25519(key) => Ok(key.spki()),
            _ => Err(KeyError::Unsupported),
        }
    }

    /// Converts an imported key to material: PKCS#8 for kinds with a public half, else the key itself.
    /// [`load`](Self::load) accepts the result.
    ///
    /// # Errors
    /// When it is not a key of this kind.
    pub fn import(kind: KeyKind, imported: &[u8]) -> Result<SecretBytes, KeyError> {
        if kind == KeyKind::Ed25519 {
            return Ok(SecretBytes::new(Ed25519Key::seed_from_pkcs8(imported)?.expose().to_vec()));
        }
        // Encoded again, so that the stored format does not depend on the software of the importer.
        Ok(match Self::load(kind, imported)? {
            Self::Ecdsa(key) => key.pkcs8()?,
            Self::Rsa(key) => key.pkcs8()?,
            _ => SecretBytes::new(imported.to_vec()),
        })
    }
}

fn sized(key: RsaKey, bits: u16) -> Result<RsaKey, KeyError> {
    if key.bits() == u32::from(bits) { Ok(key) } else { Err(KeyError::WrongKind) }
}
