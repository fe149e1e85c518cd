//! Ed25519 (RFC 8032), with and without key derivation.

use super::KeyError;
use crate::kdf;
use crate::locked::Locked;
use crate::random;
use crate::secret::Secret;
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// A key pair, or only a public key. The library wipes it when it is dropped.
pub struct Ed25519Key {
    pair: Option<Ed25519KeyPair>,
    public: [u8; 32],
}

/// DER in front of the seed in PKCS#8 of an Ed25519 key.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// DER in front of the 32 bytes of an Ed25519 SubjectPublicKeyInfo.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl Ed25519Key {
    /// A new seed, which is the private key.
    #[must_use]
    pub fn generate() -> Locked<32> {
        random::key()
    }

    /// The key pair of a seed.
    ///
    /// # Errors
    /// When `seed` is not 32 bytes long.
    pub fn from_seed(seed: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Malformed)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Failed)?;
        Ok(Self { pair: Some(pair), public })
    }

    /// A public key, which can only verify.
    ///
    /// # Errors
    /// When `public` is not 32 bytes long.
    pub fn from_public(public: &[u8]) -> Result<Self, KeyError> {
        Ok(Self { pair: None, public: public.try_into().map_err(|_| KeyError::Malformed)? })
    }

    /// Reads the public key from a SubjectPublicKeyInfo (RFC 8410).
    ///
    /// # Errors
    /// When it is not an Ed25519 key.
    pub fn public_from_spki(der: &[u8]) -> Result<[u8; 32], KeyError> {
        let public = der.strip_prefix(&SPKI_PREFIX).ok_or(KeyError::Malformed)?;
        public.try_into().map_err(|_| KeyError::Malformed)
    }

    /// The public key as a SubjectPublicKeyInfo (RFC 8410).
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), &self.public].concat()
    }

    /// Reads the seed from a PKCS#8 document (RFC 5208 or RFC 5958).
    ///
    /// # Errors
    /// When it is not an Ed25519 key, or its public half does not match the seed.
    pub fn seed_from_pkcs8(der: &[u8]) -> Result<Locked<32>, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::Malformed)?;
        let seed = pair.seed().map_err(|_| KeyError::Failed)?;
        let bytes: Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(|_| KeyError::Failed)?;
        Locked::from_slice(bytes.as_ref()).ok_or(KeyError::Malformed)
    }

    /// Encodes a seed as PKCS#8 (RFC 8410), for import by other software.
    ///
    /// # Errors
    /// When `seed` is not 32 bytes long.
    pub fn pkcs8(seed: &[u8]) -> Result<Secret<Vec<u8>>, KeyError> {
        if seed.len() != 32 {
            return Err(KeyError::Malformed);
        }
        let mut der = Vec::with_capacity(PKCS8_PREFIX.len() + 32);
        der.extend_from_slice(&PKCS8_PREFIX);
        der.extend_from_slice(seed);
        Ok(Secret::new(der))
    }

    /// Derives the key pair for `context` from the key with this seed: HKDF-SHA-256 without salt over
    /// seed and public key, like Vault.
    ///
    /// # Errors
    /// When `seed` is not 32 bytes long.
    pub fn derive(seed: &[u8], context: &[u8]) -> Result<Self, KeyError> {
        let parent = Self::from_seed(seed)?;
        let mut derived = Locked::<32>::zeroed();
        kdf::hkdf_sha256(parent.exported(seed).expose(), &[], context, derived.expose_mut());
        Self::from_seed(derived.expose())
    }

    /// Signs a message.
    ///
    /// # Errors
    /// When there is only a public key.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let pair = self.pair.as_ref().ok_or(KeyError::PublicOnly)?;
        Ok(pair.sign(message).as_ref().to_vec())
    }

    /// Whether `signature` is a signature of `message` by this key.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message, signature).is_ok()
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The private key in the format of an export: the seed, then the public key.
    #[must_use]
    pub fn exported(&self, seed: &[u8]) -> Secret<Vec<u8>> {
        let mut both = Vec::with_capacity(64);
        both.extend_from_slice(seed);
        both.extend_from_slice(&self.public);
        Secret::new(both)
    }
}
