//! The barrier encrypts every record: plaintext above it, ciphertext below it.

mod check_record;
mod counters;
mod current_keyring;
mod derive;
mod keyring;
mod record_format;
mod restore_mark;
mod rewrap;
mod seal_record;
#[cfg(test)]
mod tests;
mod usage;
mod wrap_keys;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;

use self::counters::Counts;
pub use self::counters::OperationCounts;
use self::current_keyring::CurrentKeyring;
pub use self::derive::derive_key;
use self::keyring::{Keyring, Unusable};
pub use self::restore_mark::RestoreMark;
pub use self::rewrap::{Rewrap, Rewrapped, Wraps};
pub use self::seal_record::{SealChange, SealRecord};
use self::wrap_keys::CurrentWrapKeys;
pub use self::wrap_keys::{WrapKeySource, WrapKeys};
use crate::{
    Backend, Batch, Digest, Index, Key, MemoryBackend, OwnedReadTx, Page, Read, StorageError, Tries, Tx, View, Watch,
    Write, cache::Cache,
};

/// The key that encrypts the keyring. The seal protects it.
pub type RootKey = keepfast_crypto::locked::Key256;

/// The number of encryptions after which a term should be rotated: 90 % of 2^32, the bound of NIST SP 800-38D section
/// 8.3 for random nonces. Vault uses the same number.
pub const MAX_ENCRYPTIONS: u64 = 3_865_470_566;

/// Prefix of the records of the barrier itself; no view reaches it.
const BARRIER_PREFIX: &str = "barrier/";
const KEYRING: &str = "barrier/keyring";
const SEAL: &str = "barrier/seal";
const RESTORED: &str = "barrier/restored";

/// Encrypts records on their way to the backend. Its keys are wiped when it is dropped or closed.
pub struct Barrier {
    backend: Arc<dyn Backend>,
    keyring: Arc<CurrentKeyring>,
    wrap_keys: CurrentWrapKeys,
    cache: Arc<Cache>,
    counts: Counts,
    /// Held while the keyring changes.
    keyring_lock: tokio::sync::Mutex<()>,
}

/// Options of a barrier.
#[derive(Debug, Clone)]
pub struct BarrierOptions {
    /// Memory for cached ciphertext, in bytes. Default: 8 MiB; a record outside this cache is likely in the tree's own
    /// cache.
    pub cache_bytes: usize,
}

impl Default for BarrierOptions {
    fn default() -> Self {
        Self { cache_bytes: 8 << 20 }
    }
}

/// Why a barrier cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BarrierError {
    /// The storage has no keyring.
    #[error("the storage is not initialized")]
    NotInitialized,
    /// The keyring is not encrypted under this root key, or was modified without it.
    #[error("the root key does not open the keyring")]
    WrongRootKey,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Status of the active key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStatus {
    /// Its term, from 1.
    pub term: u32,
    /// When the key was installed, in Unix seconds.
    pub installed_unix: i64,
    /// Number of encryptions, to compare with [`MAX_ENCRYPTIONS`]. An upper bound, except that a restart forgets those of
    /// batches that failed.
    pub encryptions: u64,
}

impl Barrier {
    /// Initializes a storage: writes a new keyring under `root`, and `seal`, the [`SealRecord`], in one commit.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when the storage is already initialized.
    pub async fn create(
        backend: Arc<dyn Backend>,
        root: &RootKey,
        seal: Bytes,
        now_unix: i64,
    ) -> Result<(), StorageError> {
        let (_, record) = Keyring::first(root, KEYRING, now_unix);
        let (keyring, seal_key) = (Key::new(KEYRING)?, Key::new(SEAL)?);
        let absent = |key: &Key| Read::Value { key: key.clone(), seen: None };
        let batch = Batch {
            reads: vec![absent(&keyring), absent(&seal_key)],
            writes: vec![Write::Put { key: keyring, value: record.into() }, Write::Put { key: seal_key, value: seal }],
        };
        backend.commit(batch).await.map(drop)
    }

    /// Initializes `target` with all records of `staged` in one commit, all or none.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when `target` is already initialized; those of the backend. After
    /// [`StorageError::Stopped`] or [`StorageError::Io`] the commit may be present on disk at the next start.
    pub async fn publish(staged: &MemoryBackend, target: &dyn Backend) -> Result<(), StorageError> {
        let absent = |key: &str| Ok::<_, StorageError>(Read::Value { key: Key::new(key)?, seen: None });
        let writes = staged.records().into_iter().map(|(key, value)| Write::Put { key, value });
        let batch = Batch { reads: vec![absent(KEYRING)?, absent(SEAL)?], writes: writes.collect() };
        target.commit(batch).await.map(drop)
    }

    /// Opens an initialized storage with default options.
    ///
    /// # Errors
    /// See [`BarrierError`].
    pub async fn open(backend: Arc<dyn Backend>, root: &RootKey) -> Result<Arc<Self>, BarrierError> {
        Self::open_with(backend, root, &BarrierOptions::default()).await
    }

    /// Opens an initialized storage.
    ///
    /// # Errors
    /// See [`BarrierError`].
    pub async fn open_with(
        backend: Arc<dyn Backend>,
        root: &RootKey,
        options: &BarrierOptions,
    ) -> Result<Arc<Self>, BarrierError> {
        let keyring = Arc::new(CurrentKeyring::new(load(&*backend, root).await?));
        let cache = Arc::new(Cache::new(options.cache_bytes));
        let watchers: [Arc<dyn Watch>; 2] = [cache.clone(), keyring.clone()];
        for watcher in &watchers {
            backend.watch(Arc::downgrade(watcher));
        }
        let (wrap_keys, counts, keyring_lock) = Default::default();
        let barrier = Self { backend, keyring, wrap_keys, cache, counts, keyring_lock };
        // Reads the keyring again: no watcher saw a change between the first read and the registration.
        barrier.refresh().await?;
        barrier.load_usage().await?;
        Ok(Arc::new(barrier))
    }

    /// Returns the view of the storage below `prefix`.
    pub fn view(self: &Arc<Self>, prefix: impl AsRef<str>) -> View {
        View::new(prefix.as_ref())
    }

    /// Begins a transaction.
    pub fn begin(self: &Arc<Self>) -> Tx {
        Tx::new(self.clone())
    }

    /// Begins a read-only transaction.
    pub fn begin_read(self: &Arc<Self>) -> OwnedReadTx {
        OwnedReadTx::new(self.clone(), false)
    }

    /// Returns the status of the active key.
    ///
    /// # Errors
    /// [`StorageError::Closed`].
    pub fn key_status(&self) -> Result<KeyStatus, StorageError> {
        let keyring = self.keyring.load();
        let term = keyring.active().ok_or(StorageError::Closed)?;
        Ok(KeyStatus { term: term.number, installed_unix: term.installed, encryptions: self.encryptions(term)? })
    }

    /// Derives a key from that of a term of the keyring. `purpose` names its use, so that no two uses share a key. Every
    /// node whose barrier is open derives the same key.
    ///
    /// # Errors
    /// [`StorageError::Closed`]; [`StorageError::Corrupt`] for a term that the keyring does not have.
    pub fn derive(&self, term: u32, purpose: &str) -> Result<RootKey, StorageError> {
        let keyring = self.keyring.load();
        keyring.active().ok_or(StorageError::Closed)?;
        let unknown = || StorageError::corrupt(format!("the keyring has no term {term}"));
        Ok(keyring.term(term).ok_or_else(unknown)?.derive(purpose))
    }

    /// Whether the barrier has closed without a call of [`close`](Self::close): another node has encrypted the keyring
    /// under a root key that this barrier does not have, or [`fail_closed`](Self::fail_closed) was called. It must be
    /// opened again with the current root key.
    pub fn has_failed_closed(&self) -> bool {
        self.keyring.has_failed_closed()
    }

    /// Whether it has failed closed because a snapshot has replaced all records. The root key may open the storage
    /// again, with the keyring of the snapshot.
    pub fn is_replaced(&self) -> bool {
        self.keyring.is_replaced()
    }

    /// Waits until [`has_failed_closed`](Self::has_failed_closed).
    pub async fn failed_closed(&self) {
        self.keyring.failed_closed().await;
    }

    /// Closes the barrier and requests a seal of the node, because data in memory no longer matches the committed
    /// storage.
    pub fn fail_closed(&self) {
        self.keyring.fail_closed();
        self.wrap_keys.drop_keys();
        self.cache.clear();
    }

    /// Whether the barrier has no keys: [`close`](Self::close) was called, or it [has failed
    /// closed](Self::has_failed_closed).
    pub fn is_closed(&self) -> bool {
        self.keyring.load().active().is_none()
    }

    /// Adds a new key, which encrypts all later writes, and returns its term. Old records stay readable.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when the keyring was changed elsewhere; the call can be retried.
    pub async fn rotate(&self, now_unix: i64) -> Result<u32, StorageError> {
        let _changing = self.keyring_lock.lock().await;
        let known = self.keyring.load_full();
        let next = known.rotated(KEYRING, now_unix).ok_or(StorageError::Closed)?;
        self.replace(&known, next, None).await
    }

    /// Expects that another node encrypts the keyring under this root key: when its record is applied, the barrier
    /// switches to it. `name` identifies the root key for [`forget_root`](Self::forget_root). Returns false when the
    /// barrier is closed, or expects too many.
    pub fn expect_root(&self, name: [u8; 32], root: &RootKey) -> bool {
        self.keyring.expect(name, root)
    }

    /// Drops a root key that is expected under this name.
    pub fn forget_root(&self, name: &[u8; 32]) {
        self.keyring.forget(name);
    }

    /// Encrypts the keyring under another root key. `seal`, if present, replaces the [`SealRecord`] and writes the record
    /// that belongs to the change. It is one commit, so that at every moment exactly one of the two root keys decrypts
    /// the storage. When another node has changed the keyring in the meantime, the changed keyring is encrypted.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when the [`SealRecord`] has changed, [`StorageError::Closed`],
    /// [`StorageError::Contended`] and those of the backend.
    pub async fn rewrap_root(&self, new_root: &RootKey, seal: Option<SealChange>) -> Result<(), StorageError> {
        let _changing = self.keyring_lock.lock().await;
        let mut tries = Tries::default();
        loop {
            let known = self.keyring.load_full();
            known.active().ok_or(StorageError::Closed)?;
            // No later try can pass.
            if let Some(SealChange { from, .. }) = &seal
                && SealRecord::load(&*self.backend).await?.as_ref() != Some(from)
            {
                return Err(StorageError::Conflict);
            }
            let replaced = self.replace(&known, known.rewrapped(new_root, KEYRING), seal.clone()).await;
            if tries.settle(replaced)?.is_some() {
                return Ok(());
            }
        }
    }

    /// Drops the keys and the cache. Open transactions and views fail from then on.
    pub fn close(&self) {
        self.keyring.close();
        self.wrap_keys.drop_keys();
        self.cache.clear();
    }

    /// Counts of operations since the barrier was opened.
    pub fn operation_counts(&self) -> OperationCounts {
        self.counts.read()
    }

    /// Decrypts a record that a [`Watch`] received.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when it does not authenticate, [`StorageError::Closed`], [`StorageError::InvalidKey`]
    /// for a record of the barrier itself.
    pub fn open_applied(&self, key: &Key, value: &[u8]) -> Result<Bytes, StorageError> {
        let path = key.as_str();
        if is_reserved(path) {
            return Err(StorageError::InvalidKey("reserved for the barrier"));
        }
        let term = record_format::term(value).ok_or_else(|| damaged(path))?;
        self.decrypt(term, path, value)?.ok_or_else(|| unknown_key(path, value))
    }

    /// Registers a watcher of every batch that the backend applies (keys in plaintext, values encrypted). The barrier's
    /// own watcher runs before it.
    pub fn watch(&self, watcher: std::sync::Weak<dyn Watch>) {
        self.backend.watch(watcher);
    }

    /// Replaces the stored keyring `known` with a keyring derived from it, and switches to the new one.
    async fn replace(
        &self,
        known: &Keyring,
        (next, record): (Keyring, Vec<u8>),
        seal: Option<SealChange>,
    ) -> Result<u32, StorageError> {
        let key = Key::new(KEYRING)?;
        let mut writes = vec![Write::Put { key: key.clone(), value: record.into() }];
        let mut reads = vec![Read::Value { key, seen: Some(known.stored()) }];
        if let Some(SealChange { from, to: value, with }) = seal {
            let key = Key::new(SEAL)?;
            reads.push(Read::Content { key: key.clone(), seen: Digest::of_content(&from) });
            writes.push(Write::Put { key, value });
            writes.extend(with.map(|(key, plain)| self.encrypted(known, key, &plain)).transpose()?);
        }
        let batch = Batch { reads, writes };
        let term = next.active().map_or(0, |term| term.number);
        // The watcher of the keyring switches to the announced one when the backend applies its record.
        if !self.keyring.announce(next) {
            return Err(StorageError::Closed);
        }
        let error = match self.backend.commit(batch).await {
            // The watcher of the keyring has already switched to it.
            Ok(_) => return Ok(term),
            Err(error) => error,
        };
        // After these errors the record may still be applied.
        if !matches!(error, StorageError::Stopped(_) | StorageError::Io { .. } | StorageError::Unknown) {
            self.keyring.withdraw();
        }
        if matches!(error, StorageError::Conflict) {
            self.refresh().await?;
        }
        Err(error)
    }

    /// A write of a record, encrypted under the active term. The encryption counts whether or not it is committed.
    fn encrypted(&self, keyring: &Keyring, key: Key, plain: &[u8]) -> Result<Write, StorageError> {
        let path = key.as_str();
        if is_reserved(path) {
            return Err(StorageError::InvalidKey("reserved for the barrier"));
        }
        let term = keyring.active().ok_or(StorageError::Closed)?;
        let value = record_format::seal(&term.key, term.number, path, plain).into();
        term.uncounted.fetch_add(1, Ordering::Relaxed);
        Counts::add(&self.counts.puts, 1);
        Ok(Write::Put { key, value })
    }

    /// Reads the keyring again, because another node may have changed it.
    async fn refresh(&self) -> Result<(), StorageError> {
        let before = self.keyring.load().stored();
        let record = self.backend.get(&Key::new(KEYRING)?).await?.ok_or_else(|| damaged(KEYRING))?;
        self.keyring.switch_to_read(before, &record);
        if self.is_closed() { Err(StorageError::Closed) } else { Ok(()) }
    }

    /// Returns the ciphertext at `path`.
    pub(crate) async fn fetch(&self, path: &str) -> Result<Option<Bytes>, StorageError> {
        Counts::add(&self.counts.gets, 1);
        if let Some(record) = self.cache.get(path) {
            Counts::add(&self.counts.hits, 1);
            return Ok(Some(record));
        }
        Box::pin(self.fetch_stored(path)).await
    }

    async fn fetch_stored(&self, path: &str) -> Result<Option<Bytes>, StorageError> {
        let ticket = self.cache.ticket(path);
        let key = Key::new(path)?;
        let record = self.backend.get(&key).await?;
        if let Some(record) = &record {
            self.cache.fill(&ticket, key, record.clone());
        }
        Ok(record)
    }

    /// Decrypts the record at `path`.
    pub(crate) async fn open_record(&self, path: &str, record: &[u8]) -> Result<Bytes, StorageError> {
        let term = record_format::term(record).ok_or_else(|| damaged(path))?;
        if let Some(plain) = self.decrypt(term, path, record)? {
            return Ok(plain);
        }
        // Another node has just rotated the key.
        Box::pin(self.refresh()).await?;
        if record_format::wrap_generation(record).is_some() {
            self.wrap_keys.refresh().await;
        }
        self.decrypt(term, path, record)?.ok_or_else(|| unknown_key(path, record))
    }

    /// Decrypts a record; `None` when the term or the generation of its wrap key is unknown.
    fn decrypt(&self, term: u32, path: &str, record: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let keyring = self.keyring.load();
        keyring.active().ok_or(StorageError::Closed)?;
        let Some(term) = keyring.term(term) else {
            return Ok(None);
        };
        let plain = record_format::open(&term.key, path, record).map_err(|_| damaged(path))?;
        match record_format::wrap_generation(record) {
            None => Ok(Some(plain.into())),
            Some(generation) => self.wrap_keys.open((term.number, generation), path, &plain),
        }
    }

    /// Lists the names below a prefix.
    pub(crate) async fn names(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        Counts::add(&self.counts.lists, 1);
        self.backend.list(prefix, page).await
    }

    /// Encrypts all writes under one term and commits them, those of `wrapped` under a wrap key as well. In a cluster they
    /// conflict with a change of the keyring, and wrapped ones with a change of the seal record.
    pub(crate) async fn commit(
        &self,
        reads: Vec<Read>,
        writes: impl ExactSizeIterator<Item = (Key, Option<Bytes>)>,
        wrapped: &BTreeSet<Key>,
    ) -> Result<Index, StorageError> {
        if !wrapped.is_empty() {
            Box::pin(self.wrap_keys.ensure()).await;
        }
        let wrap = if wrapped.is_empty() { None } else { self.wrap_keys.load() };
        let keyring = self.keyring.load_full();
        let term = keyring.active().ok_or(StorageError::Closed)?.clone();
        let seal = |(key, plain): (Key, Option<Bytes>)| match plain {
            Some(plain) => {
                let value = match &wrap {
                    Some(wrap) if wrapped.contains(&key) => wrap.wrap(&term, key.as_str(), &plain),
                    _ => record_format::seal(&term.key, term.number, key.as_str(), &plain),
                };
                Write::Put { key, value: value.into() }
            }
            None => Write::Delete { key },
        };
        let mut batch = Batch { reads, writes: writes.map(seal).collect() };
        let puts = batch.writes.iter().filter(|w| matches!(w, Write::Put { .. })).count();
        // On its way to the leader a batch can cross a restore, after which no keyring may have its key.
        if puts > 0 && self.backend.consensus().is_some_and(|node| !node.is_alone()) {
            batch.reads.push(Read::Value { key: Key::new(KEYRING)?, seen: Some(keyring.stored()) });
        }
        if let Some(wrap) = &wrap {
            batch.reads.push(Read::Content { key: Key::new(SEAL)?, seen: wrap.seal });
        }
        Counts::add(&self.counts.puts, puts);
        Counts::add(&self.counts.deletes, batch.writes.len() - puts);
        let committed = self.backend.commit(batch).await;
        if committed.is_err() {
            term.uncounted.fetch_add(puts as u64, Ordering::Relaxed);
        }
        committed
    }
}

/// Whether `path` belongs to the barrier itself.
pub(crate) fn is_reserved(path: &str) -> bool {
    path.starts_with(BARRIER_PREFIX)
}

async fn load(backend: &dyn Backend, root: &RootKey) -> Result<Keyring, BarrierError> {
    let record = backend.get(&Key::new(KEYRING)?).await?.ok_or(BarrierError::NotInitialized)?;
    Keyring::load(root, KEYRING, &record, &Keyring::empty()).map_err(|unusable| match unusable {
        Unusable::WrongKey => BarrierError::WrongRootKey,
        Unusable::Damaged => damaged(KEYRING).into(),
    })
}

fn damaged(path: &str) -> StorageError {
    StorageError::corrupt(format!("the record at '{path}' does not authenticate"))
}

/// The error for a record whose key is unknown.
fn unknown_key(path: &str, record: &[u8]) -> StorageError {
    match record_format::wrap_generation(record) {
        None => damaged(path),
        Some(generation) => StorageError::corrupt(format!(
            "the record at '{path}' is under the wrap key of generation {generation}, which this node does not have"
        )),
    }
}

/// The term of the key that encrypted a stored value; `None` for the keyring and for plaintext.
pub(crate) fn key_term(value: &[u8]) -> Option<u32> {
    record_format::term(value).filter(|term| *term != 0)
}

/// The digest that a transaction stores in its read set.
pub(crate) fn digest(record: Option<&Bytes>) -> Option<Digest> {
    record.map(|record| Digest::of(record))
}
