//! Transactions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::{Bound, Deref, DerefMut},
    sync::Arc,
};

use bytes::Bytes;

use crate::{Barrier, Digest, Index, Key, Page, Read, StorageError, View, barrier, listing};

/// Reads through views. [`Barrier::begin_read`] returns one that sees the newest committed state at each read and has
/// no read set. It has no write methods, so code that takes only this type cannot change the storage:
///
/// ```
/// # async fn example(barrier: std::sync::Arc<keepfast_storage::Barrier>) {
/// let value = barrier.begin_read().get(&barrier.view("a"), "key").await;
/// # }
/// ```
///
/// ```compile_fail,E0599
/// # async fn example(barrier: std::sync::Arc<keepfast_storage::Barrier>) {
/// barrier.begin_read().put(&barrier.view("a"), "key", "value".into());
/// # }
/// ```
///
/// ```compile_fail,E0599
/// # async fn example(barrier: std::sync::Arc<keepfast_storage::Barrier>) {
/// barrier.begin_read().commit().await;
/// # }
/// ```
///
/// The type is unsized, so code that borrows the reads of a [`Tx`] cannot move them out of it, or swap them with those of
/// another transaction:
///
/// ```compile_fail,E0277
/// fn example(one: &mut keepfast_storage::Tx, other: &mut keepfast_storage::Tx) {
///     std::mem::swap(&mut **one, &mut **other);
/// }
/// ```
///
/// ```compile_fail,E0277
/// fn example(tx: &mut keepfast_storage::Tx, own: &mut keepfast_storage::OwnedReadTx) {
///     std::mem::swap(&mut **tx, &mut **own);
/// }
/// ```
pub struct ReadTx<Unsized: ?Sized = [()]> {
    barrier: Arc<Barrier>,
    /// Whether the commit verifies that all reads are unchanged.
    verifies: bool,
    /// The records that were read, and their digests; `None` for a missing record.
    read_set: HashMap<Key, Option<Digest>>,
    listings: Vec<Read>,
    /// The writes of the [`Tx`] that contains this.
    writes: BTreeMap<Key, Option<Bytes>>,
    /// The path of the record that is being accessed; kept to avoid allocations.
    path: String,
    _unsized: Unsized,
}

/// A [`ReadTx`] by value.
pub type OwnedReadTx = ReadTx<[(); 0]>;

impl Deref for OwnedReadTx {
    type Target = ReadTx;

    fn deref(&self) -> &ReadTx {
        self
    }
}

impl DerefMut for OwnedReadTx {
    fn deref_mut(&mut self) -> &mut ReadTx {
        self
    }
}

/// Reads and writes through views, and commits once: all writes or none, provided that all reads are unchanged.
///
/// Reads see the transaction's own writes. Writes stay in memory until [`commit`](Self::commit); dropping the
/// transaction drops them. On [`StorageError::Conflict`] the request starts again with a new transaction.
pub struct Tx {
    reading: OwnedReadTx,
    accepts_writes: bool,
    /// The written values that are wrapped.
    wrapped: BTreeSet<Key>,
    /// Why the transaction can no longer be committed.
    refused: Option<StorageError>,
}

impl Deref for Tx {
    type Target = ReadTx;

    fn deref(&self) -> &ReadTx {
        &self.reading
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut ReadTx {
        &mut self.reading
    }
}

impl OwnedReadTx {
    pub(crate) fn new(barrier: Arc<Barrier>, verifies: bool) -> Self {
        Self {
            barrier,
            verifies,
            read_set: HashMap::new(),
            listings: Vec::new(),
            writes: BTreeMap::new(),
            path: String::new(),
            _unsized: [],
        }
    }

    /// A read-only [`Tx`] for code that takes a [`Tx`]: a commit with writes fails with [`StorageError::ReadOnly`].
    pub fn refusing_writes(self) -> Tx {
        Tx { reading: self, accepts_writes: false, wrapped: BTreeSet::new(), refused: None }
    }
}

impl ReadTx {
    /// Reads the record `key` of a view.
    ///
    /// # Errors
    /// [`StorageError::InvalidKey`]; [`StorageError::Corrupt`] when the record does not authenticate;
    /// [`StorageError::Conflict`] when it was changed since this transaction read it before; those of the backend.
    pub async fn get(&mut self, view: &View, key: &str) -> Result<Option<Bytes>, StorageError> {
        self.set_path(view, key)?;
        if let Some(own) = self.writes.get(self.path.as_str()) {
            return Ok(own.clone());
        }
        let record = self.barrier.fetch(&self.path).await?;
        if self.verifies {
            self.add_to_read_set(record.as_ref())?;
        }
        match record {
            Some(record) => self.barrier.open_record(&self.path, &record).await.map(Some),
            None => Ok(None),
        }
    }

    /// Lists the names one level below `prefix` of a view (empty for the view itself): those of the backend, combined
    /// with this transaction's own writes. The listing may change before the commit; see
    /// [`list_verified`](Self::list_verified).
    ///
    /// # Errors
    /// [`StorageError::InvalidKey`] and those of the backend.
    pub async fn list(&mut self, view: &View, prefix: &str, page: &Page) -> Result<Vec<String>, StorageError> {
        let prefix = folder_key(view, prefix)?;
        self.list_names(&prefix, page, None).await
    }

    /// Like [`list`](Self::list); the commit fails with [`StorageError::Conflict`] when the names have changed by then.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn list_verified(&mut self, view: &View, prefix: &str, page: &Page) -> Result<Vec<String>, StorageError> {
        let prefix = folder_key(view, prefix)?;
        let mut reads = Vec::new();
        let names = self.list_names(&prefix, page, Some(&mut reads)).await?;
        if self.verifies {
            self.listings.append(&mut reads);
        }
        Ok(names)
    }

    /// Sets `self.path` to the path of a record of the view.
    fn set_path(&mut self, view: &View, key: &str) -> Result<(), StorageError> {
        self.path.clear();
        self.path.reserve(view.prefix().len() + key.len());
        self.path.push_str(view.prefix());
        self.path.push_str(key);
        check_access(&self.path)
    }

    /// Adds the record at `self.path` to the read set.
    fn add_to_read_set(&mut self, record: Option<&Bytes>) -> Result<(), StorageError> {
        let digest = barrier::digest(record);
        match self.read_set.get(self.path.as_str()) {
            Some(before) if *before == digest => Ok(()),
            Some(_) => Err(StorageError::Conflict),
            None => {
                self.read_set.insert(Key::new(&self.path)?, digest);
                Ok(())
            }
        }
    }

    /// Lists the names below `prefix`, including own writes; adds the listings of the backend to `reads`.
    async fn list_names(
        &self,
        prefix: &Key,
        page: &Page,
        mut reads: Option<&mut Vec<Read>>,
    ) -> Result<Vec<String>, StorageError> {
        let own = OwnWrites::below(&self.writes, prefix, page);
        let limit = page.limit.unwrap_or(usize::MAX);
        let mut names = Vec::new();
        let mut next = page.clone();
        loop {
            let chunk = self.barrier.names(prefix, &next).await?;
            if let Some(reads) = &mut reads {
                let seen = Digest::of_names(&chunk);
                reads.push(Read::Listing { prefix: prefix.clone(), page: next.clone(), seen });
            }
            let is_last = chunk.len() < limit;
            next.after = chunk.last().cloned();
            for name in chunk {
                if !own.deleted.contains(&name) || self.has_remaining_records(prefix, &name).await? {
                    names.push(name);
                }
            }
            if is_last || names.len() >= limit || own.deleted.is_empty() {
                break;
            }
        }
        if !own.added.is_empty() {
            names.extend(own.added);
            names.sort_unstable();
            names.dedup();
        }
        names.truncate(limit);
        Ok(names)
    }

    /// Whether records remain below a name under which this transaction has deleted one. Folders are on a list and not
    /// on the stack, because the depth of a path has no limit of its own.
    async fn has_remaining_records(&self, prefix: &Key, name: &str) -> Result<bool, StorageError> {
        const PAGE: usize = 64;
        let mut folders: Vec<Key> = Vec::new();
        if name.ends_with('/') {
            folders.push(Key::prefix(format!("{prefix}{name}"))?);
        }
        while let Some(folder) = folders.pop() {
            let own = OwnWrites::below(&self.writes, &folder, &Page::all());
            let mut page = Page::first(PAGE);
            loop {
                let names = self.barrier.names(&folder, &page).await?;
                if names.iter().any(|name| !own.deleted.contains(name)) {
                    return Ok(true);
                }
                let is_last = names.len() < PAGE;
                page.after = names.last().cloned();
                for name in names.iter().filter(|name| name.ends_with('/')) {
                    folders.push(Key::prefix(format!("{folder}{name}"))?);
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(false)
    }
}

impl Tx {
    pub(crate) fn new(barrier: Arc<Barrier>) -> Self {
        let reading = OwnedReadTx::new(barrier, true);
        Self { reading, accepts_writes: true, wrapped: BTreeSet::new(), refused: None }
    }

    /// Creates or replaces a record at commit. An invalid path makes the commit fail.
    pub fn put(&mut self, view: &View, key: &str, value: Bytes) {
        self.write(view, key, Some(value));
    }

    /// Deletes a record at commit, if it exists. An invalid path makes the commit fail.
    pub fn delete(&mut self, view: &View, key: &str) {
        self.write(view, key, None);
    }

    /// Whether the transaction has writes.
    pub fn is_dirty(&self) -> bool {
        !self.reading.writes.is_empty()
    }

    /// Whether the transaction writes a record that it has read as absent.
    pub fn creates(&self) -> bool {
        let OwnedReadTx { writes, read_set, .. } = &self.reading;
        writes.iter().any(|(key, value)| value.is_some() && read_set.get(key) == Some(&None))
    }

    /// Makes the writes durable and visible. `None` when there are no writes; the reads are then not checked.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when a record or listing that was read has changed; [`StorageError::ReadOnly`] and
    /// [`StorageError::InvalidKey`] for writes that are not allowed; those of the backend.
    pub async fn commit(self) -> Result<Option<Index>, StorageError> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let OwnedReadTx { barrier, read_set, listings, writes, .. } = self.reading;
        if writes.is_empty() {
            return Ok(None);
        }
        let mut reads = listings;
        reads.extend(read_set.into_iter().map(|(key, seen)| Read::Value { key, seen }));
        Box::pin(barrier.commit(reads, writes.into_iter(), &self.wrapped)).await.map(Some)
    }

    fn write(&mut self, view: &View, key: &str, value: Option<Bytes>) {
        let reading = &mut self.reading;
        let key = reading.set_path(view, key).and_then(|()| Key::new(&reading.path));
        match key {
            _ if !self.accepts_writes => self.refused = Some(StorageError::ReadOnly),
            Ok(key) => {
                if value.is_some() && view.wraps(key.as_str()) {
                    self.wrapped.insert(key.clone());
                } else if !self.wrapped.is_empty() {
                    self.wrapped.remove(&key);
                }
                reading.writes.insert(key, value);
            }
            Err(error) => self.refused = Some(error),
        }
    }
}

/// Names below a prefix that the transaction itself has written.
struct OwnWrites {
    added: BTreeSet<String>,
    /// Names below which a record was deleted and none added.
    deleted: BTreeSet<String>,
}

impl OwnWrites {
    fn below(writes: &BTreeMap<Key, Option<Bytes>>, prefix: &Key, page: &Page) -> Self {
        let (mut added, mut deleted) = (BTreeSet::new(), BTreeSet::new());
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        for (key, value) in writes.range::<str, _>(from) {
            let Some(rest) = key.as_str().strip_prefix(prefix.as_str()) else {
                break;
            };
            let name = listing::cut(rest);
            if page.after.as_deref().is_some_and(|after| name <= listing::cut(after)) {
                continue;
            }
            let names = if value.is_some() { &mut added } else { &mut deleted };
            names.insert(name.to_owned());
        }
        deleted.retain(|name| !added.contains(name));
        Self { added, deleted }
    }
}

fn folder_key(view: &View, prefix: &str) -> Result<Key, StorageError> {
    let path = format!("{}{prefix}", view.prefix());
    let key = Key::prefix(path)?;
    if barrier::is_reserved(key.as_str()) {
        return Err(StorageError::InvalidKey("reserved for the barrier"));
    }
    Ok(key)
}

/// Checks that a transaction may access a path.
fn check_access(path: &str) -> Result<(), StorageError> {
    Key::check(path)?;
    if barrier::is_reserved(path) {
        return Err(StorageError::InvalidKey("reserved for the barrier"));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
