//! AES-256-GCM (NIST SP 800-38D) for the barrier and for other sealed records.
//!
//! A sealed value is `nonce (12) || ciphertext || tag (16)`. The nonce is random, so one key may seal
//! at most 2^32 values (SP 800-38D, 8.3); the owner of the key counts and rotates.

use crate::locked::Key256;
use crate::random;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Bytes of the nonce at the start of a sealed value.
pub const NONCE: usize = 12;
/// Bytes of the authentication tag at the end of a sealed value.
pub const TAG: usize = 16;
/// Number of bytes by which a sealed value is longer than its plaintext.
pub const OVERHEAD: usize = NONCE + TAG;

/// The value was not sealed with this key and associated data, or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value does not authenticate")]
pub struct Unauthentic;

/// An AES-256-GCM key with a precomputed schedule. The library wipes it when it is dropped.
pub struct AeadKey(LessSafeKey);

impl AeadKey {
    /// Prepares a key from locked memory.
    #[must_use]
    pub fn new(key: &Key256) -> Self {
        Self::from_bytes(key.expose())
    }

    /// Prepares a key.
    #[must_use]
    pub fn from_bytes(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key);
        Self(LessSafeKey::new(key.unwrap_or_else(|_| unreachable!("AES-256-GCM takes keys of 32 bytes"))))
    }

    /// Seals `plaintext`, bound to `aad`: `nonce || ciphertext || tag`.
    #[must_use]
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        self.seal_after(&[], aad, plaintext)
    }

    /// Seals `plaintext` behind a clear `header`, in one allocation:
    /// `header || nonce || ciphertext || tag`. The header is not bound unless `aad` contains it.
    #[must_use]
    pub fn seal_after(&self, header: &[u8], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let nonce = random::nonce::<NONCE>();
        let start = header.len() + NONCE;
        let mut sealed = Vec::with_capacity(start + plaintext.len() + TAG);
        sealed.extend_from_slice(header);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut sealed[start..]);
        // Only a plaintext beyond 64 GiB fails, which no caller can have in memory.
        let tag = tag.unwrap_or_else(|_| unreachable!("the plaintext is shorter than 64 GiB"));
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens `nonce || ciphertext || tag`. The returned plaintext is not wiped on drop: wrap it in a
    /// [`Secret`](crate::secret::Secret) to keep it.
    ///
    /// # Errors
    /// [`Unauthentic`] when key, associated data or any bit of the value differs.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unauthentic> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>().ok_or(Unauthentic)?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG>().ok_or(Unauthentic)?;
        let mut plaintext = vec![0; ciphertext.len()];
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0.open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, &mut plaintext).map_err(|_| Unauthentic)?;
        Ok(plaintext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    // McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 14 and 16.
    #[test]
    fn opens_the_published_vectors() {
        let key = AeadKey::from_bytes(&[0; 32]);
        let sealed =
            [[0; 12].as_slice(), &hex::<32>("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919")];
        assert_eq!(key.open(&[], &sealed.concat()).unwrap(), [0; 16]);

        let key = AeadKey::from_bytes(&hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"));
        let sealed = hex::<{ 12 + 60 + 16 }>(
            "cafebabefacedbaddecaf888\
             522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662\
             76fc6ece0f4e1768cddf8853bb2d551b",
        );
        let aad = hex::<20>("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain = hex::<60>(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        );
        assert_eq!(key.open(&aad, &sealed).unwrap(), plain);
    }

    #[test]
    fn refuses_every_flipped_bit_and_every_cut() {
        let key = AeadKey::new(&random::key());
        let sealed = key.seal(b"path", b"plaintext");
        assert_eq!(sealed.len(), 9 + OVERHEAD);
        assert_eq!(key.open(b"path", &sealed).unwrap(), b"plaintext");
        assert_eq!(key.open(b"other", &sealed), Err(Unauthentic));
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(b"path", &changed), Err(Unauthentic), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(key.open(b"path", &sealed[..length]), Err(Unauthentic), "length {length}");
        }
    }

    #[test]
    fn seals_behind_a_header_without_growing() {
        let key = AeadKey::new(&random::key());
        let sealed = key.seal_after(b"header", b"aad", b"text");
        assert_eq!(sealed.len(), sealed.capacity());
        assert_eq!(key.open(b"aad", sealed.strip_prefix(b"header").unwrap()).unwrap(), b"text");
    }
}
