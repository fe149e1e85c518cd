//! The wrap keys. They encrypt the values below wrapped prefixes before the keyring does, so that a caller with the keyring
//! or the root key, but without them, reads no such value. The seal record has them under the keys of its slots.
//!
//! ```text
//! value = AEAD(HKDF(wrap key, term), path ‖ generation:u32, plaintext)     encrypted again under the key of the term
//! keys  = version:u8 (1)  (generation:u32  key:32)*                        the newest last; numbers little-endian
//! ```
//!
//! The key differs by the term, so that the limit of encryptions of a term limits it as well.

use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use keepfast_crypto::{
    aead::AeadKey,
    kdf::hkdf_sha256,
    locked::Key256,
    random,
    secret::{Secret, SecretBytes},
};

use super::{Barrier, keyring::Term, record_format};
use crate::{Digest, StorageError};

/// The most wrap keys of a storage: the newest, and during a rewrap the one before it.
const MAX_KEYS: usize = 2;
const VERSION: u8 = 1;
const ENTRY: usize = 4 + 32;
/// The salt of the keys that encrypt values.
const VALUES: &[u8] = b"keepfast wrapped value 1";
/// The terms of which a wrap key keeps its derived key ready.
const READY_TERMS: usize = 4;

/// The wrap keys of a storage, the newest last.
#[derive(Clone, Default)]
pub struct WrapKeys(Vec<WrapKey>);

#[derive(Clone)]
struct WrapKey {
    generation: u32,
    key: Key256,
}

impl WrapKeys {
    /// The first wrap key of a storage.
    pub fn first() -> Self {
        Self(vec![WrapKey { generation: 1, key: random::key() }])
    }

    /// These keys and another one, the newest. `None` when there is none, or one before the newest.
    pub fn rotated(&self) -> Option<Self> {
        let [only] = self.0.as_slice() else { return None };
        let next = WrapKey { generation: only.generation.checked_add(1)?, key: random::key() };
        Some(Self(vec![only.clone(), next]))
    }

    /// The newest key alone.
    #[must_use]
    pub fn newest_only(&self) -> Self {
        Self(self.0.last().cloned().into_iter().collect())
    }

    /// The newest key.
    pub fn newest(&self) -> Option<&Key256> {
        self.0.last().map(|newest| &newest.key)
    }

    /// The generation of the newest key; 0 without keys.
    pub fn generation(&self) -> u32 {
        self.0.last().map_or(0, |newest| newest.generation)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one before the newest, under which values may be.
    pub fn has_former(&self) -> bool {
        self.0.len() > 1
    }

    /// The keys as bytes, to be encrypted.
    pub fn to_bytes(&self) -> SecretBytes {
        let mut out = Secret::new(Vec::with_capacity(1 + self.0.len() * ENTRY));
        let bytes = out.expose_mut();
        bytes.push(VERSION);
        for WrapKey { generation, key } in &self.0 {
            bytes.extend_from_slice(&generation.to_le_bytes());
            bytes.extend_from_slice(key.expose());
        }
        out
    }

    /// The keys from their bytes; `None` for another form.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, entries) = bytes.split_first()?;
        let count = entries.len() / ENTRY;
        if *version != VERSION || !entries.len().is_multiple_of(ENTRY) || !(1..=MAX_KEYS).contains(&count) {
            return None;
        }
        let mut keys = Vec::with_capacity(count);
        for entry in entries.chunks_exact(ENTRY) {
            let (generation, key) = entry.split_first_chunk::<4>()?;
            keys.push(WrapKey { generation: u32::from_le_bytes(*generation), key: Key256::from_slice(key)? });
        }
        let is_ordered = keys.is_sorted_by(|a, b| a.generation < b.generation);
        (is_ordered && keys.iter().all(|key| key.generation > 0)).then_some(Self(keys))
    }

    /// The plaintext of a wrapped value, whose term is decrypted; `None` when it does not authenticate, or these are not
    /// its keys.
    pub(super) fn open(&self, (term, generation): (u32, u32), path: &str, wrapped: &[u8]) -> Option<Vec<u8>> {
        let key = self.0.iter().find(|key| key.generation == generation)?;
        derive(&key.key, term).open(&context(path, generation), wrapped).ok()
    }
}

/// Supplies the wrap keys of a barrier.
#[async_trait]
pub trait WrapKeySource: Send + Sync {
    /// Creates the first wrap key, if it can be created now; values are not wrapped otherwise.
    async fn create(&self);

    /// Reads the wrap keys again: a value is under one that the barrier does not have.
    async fn refresh(&self);
}

/// The current wrap keys of a barrier.
#[derive(Default)]
pub(super) struct CurrentWrapKeys {
    current: ArcSwapOption<Current>,
    source: OnceLock<Weak<dyn WrapKeySource>>,
}

/// Wrap keys that can be used.
pub(super) struct Current {
    keys: WrapKeys,
    ciphers: Vec<Ciphers>,
    /// The digest of the seal record that has them. A value is wrapped only while it is the stored one: no value appears
    /// under a key after the record has lost it.
    pub(super) seal: Digest,
}

/// One wrap key, with the derived keys of the first terms that were used.
struct Ciphers {
    generation: u32,
    key: Key256,
    by_term: [OnceLock<(u32, AeadKey)>; READY_TERMS],
}

/// What a wrapped value is bound to.
fn context(path: &str, generation: u32) -> Vec<u8> {
    [path.as_bytes(), &generation.to_le_bytes()].concat()
}

fn derive(key: &Key256, term: u32) -> AeadKey {
    let mut derived = Key256::zeroed();
    hkdf_sha256(key.expose(), VALUES, &term.to_le_bytes(), derived.expose_mut());
    AeadKey::new(&derived)
}

impl Ciphers {
    fn with<R>(&self, term: u32, action: impl FnOnce(&AeadKey) -> R) -> R {
        for place in &self.by_term {
            let (known, cipher) = place.get_or_init(|| (term, derive(&self.key, term)));
            if *known == term {
                return action(cipher);
            }
        }
        action(&derive(&self.key, term))
    }
}

impl Current {
    /// Encrypts a value under the newest wrap key, then under the key of the term.
    pub(super) fn wrap(&self, term: &Term, path: &str, plaintext: &[u8]) -> Vec<u8> {
        let Some(newest) = self.ciphers.last() else {
            return record_format::seal(&term.key, term.number, path, plaintext);
        };
        let context = context(path, newest.generation);
        let wrapped = newest.with(term.number, |cipher| cipher.seal(&context, plaintext));
        record_format::seal_wrapped(&term.key, (term.number, newest.generation), path, &wrapped)
    }
}

impl CurrentWrapKeys {
    pub(super) fn load(&self) -> Option<Arc<Current>> {
        self.current.load_full()
    }

    /// Creates the first key, if there is none and it can be created.
    pub(super) async fn ensure(&self) {
        if self.current.load().is_none()
            && let Some(source) = self.source.get().and_then(Weak::upgrade)
        {
            source.create().await;
        }
    }

    pub(super) async fn refresh(&self) {
        if let Some(source) = self.source.get().and_then(Weak::upgrade) {
            source.refresh().await;
        }
    }

    /// The plaintext of a wrapped value whose term is decrypted. `None` for a generation without a key; an error when it
    /// does not authenticate.
    pub(super) fn open(
        &self,
        (term, generation): (u32, u32),
        path: &str,
        wrapped: &[u8],
    ) -> Result<Option<Bytes>, StorageError> {
        let current = self.current.load();
        let ciphers = current.as_ref().and_then(|current| current.ciphers.iter().find(|c| c.generation == generation));
        let Some(ciphers) = ciphers else { return Ok(None) };
        let context = context(path, generation);
        let opened = ciphers.with(term, |cipher| cipher.open(&context, wrapped));
        opened.map(|plain| Some(plain.into())).map_err(|_| super::damaged(path))
    }

    pub(super) fn drop_keys(&self) {
        self.current.store(None);
    }
}

impl Barrier {
    /// The current wrap keys.
    pub fn wrap_keys(&self) -> WrapKeys {
        self.wrap_keys.load().map(|current| current.keys.clone()).unwrap_or_default()
    }

    /// Uses these wrap keys from now on, those of this seal record. Does nothing after a close.
    pub fn set_wrap_keys(&self, keys: &WrapKeys, seal: &[u8]) {
        let cipher = |WrapKey { generation, key }: &WrapKey| Ciphers {
            generation: *generation,
            key: key.clone(),
            by_term: Default::default(),
        };
        let ciphers = keys.0.iter().map(cipher).collect();
        let current = Current { keys: keys.clone(), ciphers, seal: Digest::of_content(seal) };
        self.wrap_keys.current.store((!keys.is_empty()).then(|| Arc::new(current)));
        if self.is_closed() {
            self.wrap_keys.drop_keys();
        }
    }

    /// Lets `source` supply the wrap keys that this barrier lacks. Only the first source counts.
    pub fn follow_wrap_keys(&self, source: Weak<dyn WrapKeySource>) {
        let _ = self.wrap_keys.source.set(source);
    }
}

#[cfg(test)]
#[path = "wrap_keys_tests.rs"]
mod tests;
