//! Authenticated symmetric ciphers: plain, derived and convergent.
//!
//! A sealed value is `nonce || ciphertext || tag`. AES-GCM: SP 800-38D; ChaCha20-Poly1305: RFC 8439;
//! XChaCha20-Poly1305: draft-irtf-cfrg-xchacha-03; AES-GCM-SIV: RFC 8452.

use super::KeyError;
use crate::hmac::HmacKey;
use crate::locked::LockedBytes;
use crate::{kdf, random};
use aws_lc_rs::aead;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

/// A cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-128-GCM with a nonce of 96 bits.
    Aes128Gcm,
    /// AES-256-GCM with a nonce of 96 bits.
    Aes256Gcm,
    /// AES-256-GCM-SIV: a repeated nonce reveals only that a plaintext is repeated.
    Aes256GcmSiv,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
    /// XChaCha20-Poly1305, whose 192-bit nonce can be random without a limit.
    XChaCha20Poly1305,
}

/// Bytes of the tag of every cipher.
const TAG: usize = 16;

impl Cipher {
    /// Bytes of a key.
    #[must_use]
    pub fn key_size(self) -> usize {
        if self == Self::Aes128Gcm { 16 } else { 32 }
    }

    /// Bytes of a nonce.
    #[must_use]
    pub fn nonce_size(self) -> usize {
        if self == Self::XChaCha20Poly1305 { 24 } else { 12 }
    }

    /// How many values one key may seal with random nonces before a repeated nonce is likely enough that
    /// the key must be rotated: 2^32 for 96 bits (SP 800-38D, 8.3), no limit for 192.
    #[must_use]
    pub fn seal_limit(self) -> Option<u64> {
        (self != Self::XChaCha20Poly1305).then_some(1 << 32)
    }
}

/// A key, prepared for one cipher. Wiped when dropped.
pub struct SymmetricKey {
    cipher: Cipher,
    inner: Inner,
    /// Set for convergent encryption: computes the nonce from the plaintext.
    nonce_key: Option<HmacKey>,
}

enum Inner {
    Library(aead::LessSafeKey),
    XChaCha(Box<XChaCha20Poly1305>),
}

impl SymmetricKey {
    /// Prepares a key.
    ///
    /// # Errors
    /// When `key` does not have the cipher's size.
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<Self, KeyError> {
        let algorithm = match cipher {
            Cipher::Aes128Gcm => &aead::AES_128_GCM,
            Cipher::Aes256Gcm => &aead::AES_256_GCM,
            Cipher::Aes256GcmSiv => &aead::AES_256_GCM_SIV,
            Cipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
            Cipher::XChaCha20Poly1305 => {
                let key = XChaCha20Poly1305::new_from_slice(key).map_err(|_| KeyError::Malformed)?;
                return Ok(Self { cipher, inner: Inner::XChaCha(Box::new(key)), nonce_key: None });
            }
        };
        let key = aead::UnboundKey::new(algorithm, key).map_err(|_| KeyError::Malformed)?;
        Ok(Self { cipher, inner: Inner::Library(aead::LessSafeKey::new(key)), nonce_key: None })
    }

    /// Prepares the key that `context` derives from `key`: HKDF-SHA-256 without salt. A convergent key
    /// derives 32 more bytes as the key for computing nonces.
    ///
    /// # Errors
    /// When `key` does not have the cipher's size.
    pub fn derive(cipher: Cipher, key: &[u8], context: &[u8], convergent: bool) -> Result<Self, KeyError> {
        if key.len() != cipher.key_size() {
            return Err(KeyError::Malformed);
        }
        let size = cipher.key_size();
        let mut derived = LockedBytes::zeroed(if convergent { size + 32 } else { size });
        kdf::hkdf_sha256(key, &[], context, derived.expose_mut());
        let (key, nonce_key) = derived.expose().split_at(size);
        let mut made = Self::new(cipher, key)?;
        made.nonce_key = convergent.then(|| HmacKey::new(nonce_key));
        Ok(made)
    }

    /// Seals `plaintext`, bound to `aad`.
    ///
    /// # Errors
    /// When the plaintext exceeds the cipher's limit (64 GiB).
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        let size = self.cipher.nonce_size();
        let mut sealed = Vec::with_capacity(size + plaintext.len() + TAG);
        match &self.nonce_key {
            Some(key) => sealed.extend_from_slice(&convergent_nonce(key, aad, plaintext)[..size]),
            None => {
                sealed.resize(size, 0);
                random::fill_nonce(&mut sealed);
            }
        }
        sealed.extend_from_slice(plaintext);
        let (nonce, text) = sealed.split_at_mut(size);
        match &self.inner {
            Inner::Library(key) => {
                let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::Failed)?;
                let tag = key.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), text);
                sealed.extend_from_slice(tag.map_err(|_| KeyError::Failed)?.as_ref());
            }
            Inner::XChaCha(key) => {
                let nonce: &XNonce = (&*nonce).try_into().map_err(|_| KeyError::Failed)?;
                let tag = key.encrypt_inout_detached(nonce, aad, text.into());
                sealed.extend_from_slice(&tag.map_err(|_| KeyError::Failed)?);
            }
        }
        Ok(sealed)
    }

    /// Opens `nonce || ciphertext || tag`.
    ///
    /// # Errors
    /// [`KeyError::Unauthentic`] when key, associated data or any bit differs.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        let parts = sealed.split_at_checked(self.cipher.nonce_size());
        let (nonce, rest) = parts.ok_or(KeyError::Unauthentic)?;
        let (text, tag) = rest.split_last_chunk::<TAG>().ok_or(KeyError::Unauthentic)?;
        match &self.inner {
            Inner::Library(key) => {
                let mut out = vec![0; text.len()];
                let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::Failed)?;
                key.open_separate_gather(nonce, aead::Aad::from(aad), text, tag, &mut out)
                    .map_err(|_| KeyError::Unauthentic)?;
                Ok(out)
            }
            Inner::XChaCha(key) => {
                let mut out = text.to_vec();
                let nonce: &XNonce = nonce.try_into().map_err(|_| KeyError::Failed)?;
                key.decrypt_inout_detached(nonce, aad, out.as_mut_slice().into(), tag.into())
                    .map_err(|_| KeyError::Unauthentic)?;
                Ok(out)
            }
        }
    }
}

/// The nonce of convergent encryption: equal for equal plaintexts, pseudorandom otherwise.
///
/// Without associated data it is HMAC(key, plaintext), like version 3 of Vault. With associated data
/// OpenBao uses the same nonce for different data, and two tags under one GCM nonce reveal the
/// authentication key; so here the nonce depends on the data too, keyed by the first HMAC.
fn convergent_nonce(key: &HmacKey, aad: &[u8], plaintext: &[u8]) -> [u8; 32] {
    let of_plaintext = key.mac(plaintext);
    if aad.is_empty() { of_plaintext } else { HmacKey::new(&of_plaintext).mac(aad) }
}
