//! The stored form of an encrypted record.
//!
//! ```text
//! record = version:u8 (1)  term:u32 (little-endian)  nonce:12  ciphertext  tag:16
//! ```
//!
//! AES-256-GCM (NIST SP 800-38D) under the key of the term, with the storage path as associated data. The header needs
//! no authentication: a record with another version is rejected, and another term selects another key, under which the
//! record does not authenticate.

use keepfast_crypto::aead::{AeadKey, Unauthentic};

const VERSION: u8 = 1;
/// Length in bytes of the header before the nonce.
const HEADER: usize = 5;

/// Encrypts `plaintext` for `path`, in one allocation.
pub(crate) fn seal(key: &AeadKey, term: u32, path: &str, plaintext: &[u8]) -> Vec<u8> {
    let mut header = [VERSION; HEADER];
    header[1..].copy_from_slice(&term.to_le_bytes());
    key.seal_after(&header, path.as_bytes(), plaintext)
}

/// The term of the key that encrypted a record; `None` when the record has no known version.
pub(crate) fn term(record: &[u8]) -> Option<u32> {
    let (header, _) = record.split_first_chunk::<HEADER>()?;
    let [version, term @ ..] = *header;
    (version == VERSION).then(|| u32::from_le_bytes(term))
}

/// Decrypts a record for which [`term`] has returned a term.
pub(crate) fn open(key: &AeadKey, path: &str, record: &[u8]) -> Result<Vec<u8>, Unauthentic> {
    key.open(path.as_bytes(), record.get(HEADER..).unwrap_or_default())
}
