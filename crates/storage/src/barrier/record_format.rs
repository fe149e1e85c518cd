//! The stored form of an encrypted record.
//!
//! ```text
//! record  = version:u8 (1)  term:u32  nonce:12  ciphertext  tag:16                     numbers little-endian
//! wrapped = version:u8 (2)  term:u32  generation:u32  nonce:12  ciphertext  tag:16
//! ```
//!
//! AES-256-GCM (NIST SP 800-38D) under the key of the term, with the storage path as associated data. The header needs
//! no authentication: a record with another version is rejected, and another term or generation selects another key,
//! under which the record does not authenticate. The plaintext of a wrapped record is again `nonce ciphertext tag`, under
//! a wrap key; see [`wrap_keys`](super::wrap_keys).

use keepfast_crypto::aead::{AeadKey, Unauthentic};

const VERSION: u8 = 1;
/// The version of a wrapped record.
const WRAPPED: u8 = 2;
/// Length in bytes of the header before the nonce.
const HEADER: usize = 5;
/// The same of a wrapped record.
const WRAPPED_HEADER: usize = 9;

/// Encrypts `plaintext` for `path`, in one allocation.
pub(crate) fn seal(key: &AeadKey, term: u32, path: &str, plaintext: &[u8]) -> Vec<u8> {
    let mut header = [VERSION; HEADER];
    header[1..].copy_from_slice(&term.to_le_bytes());
    key.seal_after(&header, path.as_bytes(), plaintext)
}

/// Encrypts what the wrap key of a generation has encrypted for `path`.
pub(super) fn seal_wrapped(key: &AeadKey, (term, generation): (u32, u32), path: &str, wrapped: &[u8]) -> Vec<u8> {
    let mut header = [WRAPPED; WRAPPED_HEADER];
    header[1..HEADER].copy_from_slice(&term.to_le_bytes());
    header[HEADER..].copy_from_slice(&generation.to_le_bytes());
    key.seal_after(&header, path.as_bytes(), wrapped)
}

/// The term of the key that encrypted a record; `None` when the record has no known version.
pub(crate) fn term(record: &[u8]) -> Option<u32> {
    let (header, _) = record.split_first_chunk::<HEADER>()?;
    let [version, term @ ..] = *header;
    (version == VERSION || version == WRAPPED).then(|| u32::from_le_bytes(term))
}

/// The generation of the wrap key of a record for which [`term`] has returned a term; `None` for one that is not wrapped.
pub(super) fn wrap_generation(record: &[u8]) -> Option<u32> {
    if record.first() != Some(&WRAPPED) {
        return None;
    }
    // A record that is too short has no generation that exists, and does not authenticate.
    Some(record.get(HEADER..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes)))
}

/// Decrypts a record for which [`term`] has returned a term. The plaintext of a wrapped one is still under its wrap key.
pub(crate) fn open(key: &AeadKey, path: &str, record: &[u8]) -> Result<Vec<u8>, Unauthentic> {
    let header = if record.first() == Some(&WRAPPED) { WRAPPED_HEADER } else { HEADER };
    key.open(path.as_bytes(), record.get(header..).unwrap_or_default())
}
