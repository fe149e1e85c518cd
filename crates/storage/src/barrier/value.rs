//! The stored form of an encrypted record.
//!
//! ```text
//! record = version:u8 (1)  term:u32 (little-endian)  nonce:12  ciphertext  tag:16
//! ```
//!
//! AES-256-GCM (NIST SP 800-38D) under the key of the term, with the storage path as associated data. The header needs
//! no protection of its own: another version is not read, and another term means another key, which does not fit.

use keepfast_crypto::aead::{AeadKey, Unauthentic};

const VERSION: u8 = 1;
/// Bytes before the nonce.
const HEADER: usize = 5;

/// Encrypts `plaintext` for `path`, in one allocation.
pub(crate) fn seal(key: &AeadKey, term: u32, path: &str, plaintext: &[u8]) -> Vec<u8> {
    let mut header = [VERSION; HEADER];
    header[1..].copy_from_slice(&term.to_le_bytes());
    key.seal_after(&header, path.as_bytes(), plaintext)
}

/// The term under which a record is encrypted; `None` when it is no record of a known version.
pub(crate) fn term(record: &[u8]) -> Option<u32> {
    let (header, _) = record.split_first_chunk::<HEADER>()?;
    let [version, term @ ..] = *header;
    (version == VERSION).then(|| u32::from_le_bytes(term))
}

/// Decrypts a record of which [`term`] has answered.
pub(crate) fn open(key: &AeadKey, path: &str, record: &[u8]) -> Result<Vec<u8>, Unauthentic> {
    key.open(path.as_bytes(), record.get(HEADER..).unwrap_or_default())
}
