//! Wraps, unwraps and rewraps stored values, so that each is as its prefix demands and under the newest wrap key. It reads
//! the records in the order of their paths, and can be resumed after any of them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{Barrier, is_reserved, record_format};
use crate::{Digest, Key, Page, Read, StorageError, Tries};

/// Names per listing.
const LISTED: usize = 100;
/// The most records that a page reads.
const MAX_READ: usize = 1_000;
/// The most bytes of values that a page writes, if it writes more than one.
const MAX_BYTES: usize = 1 << 20;

/// A pass over all records.
pub struct Rewrap {
    barrier: Arc<Barrier>,
    /// The folders that are being listed, the deepest last.
    folders: Vec<Folder>,
    cursor: String,
}

struct Folder {
    path: String,
    /// The last name that was listed.
    after: Option<String>,
    /// The names that were listed and not visited.
    names: VecDeque<String>,
    is_complete: bool,
}

impl Folder {
    fn new(path: String, after: Option<String>) -> Self {
        Folder { path, after, names: VecDeque::new(), is_complete: false }
    }
}

/// Counts of wrapped values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Values that are wrapped, or were.
    pub processed: u64,
    /// Those that are as they must be now.
    pub succeeded: u64,
    /// Those that cannot be decrypted, or not be written.
    pub failed: u64,
    /// Those of the failed ones that can be decrypted: the key that encrypts them is still needed.
    pub kept: u64,
}

impl Rewrapped {
    fn add(&mut self, more: Rewrapped) {
        self.processed += more.processed;
        self.succeeded += more.succeeded;
        self.failed += more.failed;
        self.kept += more.kept;
    }
}

/// Whether the value at a path must be wrapped; `None` for one that stays as it is.
pub type Wraps<'a> = dyn Fn(&str) -> Option<bool> + Send + Sync + 'a;

impl Rewrap {
    /// A pass that begins after the record at `cursor`, or at the first one if it is empty.
    pub fn after(barrier: Arc<Barrier>, cursor: &str) -> Self {
        let mut folders = Vec::new();
        let mut start = 0;
        for (slash, _) in cursor.match_indices('/') {
            folders.push(Folder::new(cursor[..start].to_owned(), Some(cursor[start..=slash].to_owned())));
            start = slash + 1;
        }
        let last = &cursor[start..];
        folders.push(Folder::new(cursor[..start].to_owned(), (!last.is_empty()).then(|| last.to_owned())));
        Rewrap { barrier, folders, cursor: cursor.to_owned() }
    }

    /// The path of the last record that was visited.
    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// Processes up to `most` values, in one commit if no other commit interferes. `None` at the end.
    ///
    /// # Errors
    /// [`StorageError::Closed`], [`StorageError::Contended`] and those of the backend. What was done stays.
    pub async fn page(&mut self, most: usize, wraps: &Wraps<'_>) -> Result<Option<Rewrapped>, StorageError> {
        let (mut keys, mut bytes, mut visited) = (Vec::new(), 0, 0);
        while keys.len() < most && bytes < MAX_BYTES && visited < MAX_READ {
            let Some(path) = self.next_path().await? else { break };
            let key = Key::new(&path)?;
            if let Some(record) = self.barrier.backend.get(&key).await?
                && self.barrier.is_subject(&path, &record, wraps).is_some()
            {
                keys.push(key);
                bytes += record.len();
            }
            visited += 1;
            self.cursor = path;
        }
        if visited == 0 {
            return Ok(None);
        }
        self.barrier.rewrap(&keys, wraps).await.map(Some)
    }

    /// The path of the next record.
    async fn next_path(&mut self) -> Result<Option<String>, StorageError> {
        loop {
            let Some(folder) = self.folders.last_mut() else { return Ok(None) };
            match folder.names.pop_front() {
                Some(name) => {
                    let path = format!("{}{name}", folder.path);
                    match (name.ends_with('/'), is_reserved(&path)) {
                        (_, true) => {}
                        (true, false) => self.folders.push(Folder::new(path, None)),
                        (false, false) => return Ok(Some(path)),
                    }
                }
                None if folder.is_complete => drop(self.folders.pop()),
                None => {
                    let page = Page { after: folder.after.clone(), limit: Some(LISTED) };
                    let names = self.barrier.backend.list(&Key::prefix(&folder.path)?, &page).await?;
                    folder.is_complete = names.len() < LISTED;
                    folder.after = names.last().cloned().or(folder.after.take());
                    folder.names = names.into();
                }
            }
        }
    }
}

impl Barrier {
    /// Whether a value that is wrapped, or must be, is to be wrapped; `None` for any other value.
    fn is_subject(&self, path: &str, record: &[u8], wraps: &Wraps<'_>) -> Option<bool> {
        let is_wrapped = record_format::wrap_generation(record).is_some();
        let must_be = match wraps(path) {
            Some(must_be) => must_be && self.wrap_keys.load().is_some(),
            None => is_wrapped,
        };
        (is_wrapped || must_be).then_some(must_be)
    }

    /// Brings these values into the form that they must have. After a conflict each is written on its own.
    // recursion: bounded by one level, as a single key is not divided
    async fn rewrap(&self, keys: &[Key], wraps: &Wraps<'_>) -> Result<Rewrapped, StorageError> {
        let mut tries = Tries::default();
        loop {
            let outcome = self.try_rewrap(keys, wraps).await;
            let is_divisible = keys.len() > 1;
            match outcome {
                Err(StorageError::Conflict | StorageError::TooLarge { .. }) if is_divisible => {
                    let mut done = Rewrapped::default();
                    for key in keys {
                        done.add(Box::pin(self.rewrap(std::slice::from_ref(key), wraps)).await?);
                    }
                    return Ok(done);
                }
                Err(error @ StorageError::TooLarge { .. }) => {
                    tracing::error!(path = ?keys, %error, "a value cannot be rewrapped");
                    return Ok(Rewrapped { processed: 1, succeeded: 0, failed: 1, kept: 1 });
                }
                outcome => {
                    if let Some(done) = tries.settle(outcome)? {
                        return Ok(done);
                    }
                }
            }
        }
    }

    async fn try_rewrap(&self, keys: &[Key], wraps: &Wraps<'_>) -> Result<Rewrapped, StorageError> {
        let newest = self.wrap_keys().generation();
        let (mut reads, mut writes, mut wrapped) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        let mut done = Rewrapped::default();
        for key in keys {
            let path = key.as_str();
            let Some(record) = self.backend.get(key).await? else { continue };
            let Some(must_be) = self.is_subject(path, &record, wraps) else { continue };
            done.processed += 1;
            if must_be && record_format::wrap_generation(&record) == Some(newest) {
                done.succeeded += 1;
                continue;
            }
            match self.open_record(path, &record).await {
                Ok(plain) => {
                    reads.push(Read::Value { key: key.clone(), seen: Some(Digest::of(&record)) });
                    writes.insert(key.clone(), Some(plain));
                    if must_be {
                        wrapped.insert(key.clone());
                    }
                    done.succeeded += 1;
                }
                Err(error @ StorageError::Corrupt(_)) => {
                    tracing::error!(%error, "a value cannot be rewrapped");
                    done.failed += 1;
                }
                Err(error) => return Err(error),
            }
        }
        if !writes.is_empty() {
            Box::pin(self.commit(reads, writes.into_iter(), &wrapped)).await?;
        }
        Ok(done)
    }
}
