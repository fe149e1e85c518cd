//! The keys of the barrier, one per term. Records name their term, so that old ones stay readable after a rotation.
//!
//! The keyring is stored as a record of term 0 under the root key. Its plaintext is
//!
//! ```text
//! keyring = version:u8 (1)  count:u32  entry*          entries in the order of their terms, the last one is in use
//! entry   = term:u32  installed:i64 (Unix seconds)  key:32           numbers little-endian
//! ```

use std::sync::{Arc, atomic::AtomicU64};

use keepfast_crypto::{
    aead::AeadKey,
    compare::equal,
    kdf::hkdf_sha256,
    locked::Key256,
    random,
    secret::{Secret, SecretBytes},
};

use super::{RootKey, record_format};
use crate::Digest;

const VERSION: u8 = 1;
const HEAD: usize = 5;
/// The salt of derived keys.
const DERIVED: &[u8] = b"keepfast barrier derived key 1";
const ENTRY: usize = 4 + 8 + 32;

/// All keys, the root key, and the digest of the stored form. Immutable: a change creates a new keyring.
pub(crate) struct Keyring {
    root: RootKey,
    terms: Vec<Arc<Term>>,
    stored: Digest,
}

/// One key of the keyring.
pub(crate) struct Term {
    pub(crate) number: u32,
    pub(crate) installed: i64,
    pub(crate) key: AeadKey,
    /// Encryptions under this key that the backend has not counted: those of an earlier version, and those of batches
    /// that failed since the barrier was opened.
    pub(crate) uncounted: AtomicU64,
    /// The key bytes as stored in the keyring.
    bytes: Key256,
}

/// Why a stored keyring cannot be used.
pub(crate) enum Unusable {
    /// The record was encrypted under another root key, or modified.
    WrongKey,
    /// The record does not have the form that this version writes.
    Damaged,
}

impl Keyring {
    /// Creates the first keyring, with one new key. Also returns the stored form.
    pub(crate) fn first(root: &RootKey, path: &str, now: i64) -> (Self, Vec<u8>) {
        Self::sealed(root.clone(), vec![Arc::new(Term::new(1, now, random::key()))], path)
    }

    /// Returns a keyring with one more key, which becomes the active one.
    pub(crate) fn rotated(&self, path: &str, now: i64) -> Option<(Self, Vec<u8>)> {
        let number = self.active()?.number.checked_add(1)?;
        let mut terms = self.terms.clone();
        terms.push(Arc::new(Term::new(number, now, random::key())));
        Some(Self::sealed(self.root.clone(), terms, path))
    }

    /// Returns the same keys under another root key.
    pub(crate) fn rewrapped(&self, root: &RootKey, path: &str) -> (Self, Vec<u8>) {
        Self::sealed(root.clone(), self.terms.clone(), path)
    }

    /// A keyring without keys, for a closed barrier.
    pub(crate) fn empty() -> Self {
        Self { root: RootKey::zeroed(), terms: Vec::new(), stored: Digest([0; 16]) }
    }

    /// Decodes the stored form. Terms that `known` has keep their counters.
    pub(crate) fn load(root: &RootKey, path: &str, record: &[u8], known: &Self) -> Result<Self, Unusable> {
        if record_format::term(record) != Some(0) {
            return Err(Unusable::Damaged);
        }
        let plain = record_format::open(&AeadKey::new(root), path, record).map_err(|_| Unusable::WrongKey)?;
        let plain: SecretBytes = Secret::new(plain);
        let mut terms = parse(plain.expose()).ok_or(Unusable::Damaged)?;
        for term in &mut terms {
            if let Some(same) = known.term(term.number).filter(|same| equal(same.bytes.expose(), term.bytes.expose())) {
                *term = same.clone();
            }
        }
        Ok(Self { root: root.clone(), terms, stored: Digest::of(record) })
    }

    fn sealed(root: RootKey, terms: Vec<Arc<Term>>, path: &str) -> (Self, Vec<u8>) {
        let record = record_format::seal(&AeadKey::new(&root), 0, path, format(&terms).expose());
        let stored = Digest::of(&record);
        (Self { root, terms, stored }, record)
    }

    /// The active key, which encrypts; `None` when the barrier is closed.
    pub(crate) fn active(&self) -> Option<&Arc<Term>> {
        self.terms.last()
    }

    /// The key of a term. Terms count from 1 without gaps.
    pub(crate) fn term(&self, number: u32) -> Option<&Arc<Term>> {
        self.terms.get((number as usize).checked_sub(1)?)
    }

    /// The root key.
    pub(crate) fn root(&self) -> &RootKey {
        &self.root
    }

    /// Digest of the stored form that these keys were read from or written to.
    pub(crate) fn stored(&self) -> Digest {
        self.stored
    }
}

impl Term {
    fn new(number: u32, installed: i64, bytes: Key256) -> Self {
        Self { number, installed, key: AeadKey::new(&bytes), uncounted: AtomicU64::new(0), bytes }
    }

    /// A key for another use than the encryption of records: HKDF of the key of the term.
    pub(crate) fn derive(&self, purpose: &str) -> Key256 {
        let mut out = Key256::zeroed();
        hkdf_sha256(self.bytes.expose(), DERIVED, purpose.as_bytes(), out.expose_mut());
        out
    }
}

fn format(terms: &[Arc<Term>]) -> SecretBytes {
    // Allocated at full size: growing would leave copies of keys in freed memory.
    let mut out = Secret::new(Vec::with_capacity(HEAD + terms.len() * ENTRY));
    let bytes = out.expose_mut();
    bytes.push(VERSION);
    bytes.extend_from_slice(&(terms.len() as u32).to_le_bytes());
    for term in terms {
        bytes.extend_from_slice(&term.number.to_le_bytes());
        bytes.extend_from_slice(&term.installed.to_le_bytes());
        bytes.extend_from_slice(term.bytes.expose());
    }
    out
}

fn parse(plain: &[u8]) -> Option<Vec<Arc<Term>>> {
    let (head, entries) = plain.split_first_chunk::<HEAD>()?;
    let [version, count @ ..] = *head;
    let count = u32::from_le_bytes(count) as usize;
    if version != VERSION || count == 0 || entries.len() != count.checked_mul(ENTRY)? {
        return None;
    }
    let mut terms = Vec::with_capacity(count);
    for (entry, expected) in entries.chunks_exact(ENTRY).zip(1..) {
        let (number, rest) = entry.split_first_chunk::<4>()?;
        let (installed, key) = rest.split_first_chunk::<8>()?;
        let number = u32::from_le_bytes(*number);
        if number != expected {
            return None;
        }
        terms.push(Arc::new(Term::new(number, i64::from_le_bytes(*installed), Key256::from_slice(key)?)));
    }
    Some(terms)
}
