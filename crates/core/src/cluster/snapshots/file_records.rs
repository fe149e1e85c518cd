//! The records of a verified snapshot file as a storage that is only read. It is for a few reads: each one reads the file,
//! except those of the records that every reader needs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom};
use std::ops::ControlFlow;
use std::sync::Weak;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_storage::{Backend, Batch, Index, Key, MemoryBackend, Page, SnapshotRecords, StorageError, Watch};
use parking_lot::Mutex;

use super::format::SnapshotFileError;
use super::read::FileParts;

/// The most bytes of records in memory.
const MAX_KEPT: usize = 64 << 20;

/// The records of a verified snapshot file.
pub(super) struct FileRecords {
    file: Mutex<File>,
    kept: MemoryBackend,
    /// The prefixes of the records in memory.
    prefixes: &'static [&'static str],
}

impl FileRecords {
    /// The records of this file, with those below `prefixes` in memory.
    pub(super) async fn new(file: File, prefixes: &'static [&'static str]) -> Result<Self, SnapshotFileError> {
        let records = FileRecords { file: Mutex::new(file), kept: MemoryBackend::new(), prefixes };
        let (mut kept, mut size) = (Vec::new(), 0);
        records.scan(|key, value| {
            if records.is_kept(key.as_str()) {
                size += key.as_str().len() + value.len();
                kept.push((key, value));
            }
            if size > MAX_KEPT { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if size > MAX_KEPT {
            return Err(SnapshotFileError::TooLarge(MAX_KEPT as u64));
        }
        for (key, value) in kept {
            records.kept.commit(Batch::put(key, value)).await?;
        }
        Ok(records)
    }

    fn is_kept(&self, path: &str) -> bool {
        self.prefixes.iter().any(|prefix| path.starts_with(prefix))
    }

    /// Passes each record to `visit`, in the order of their keys.
    fn scan(&self, mut visit: impl FnMut(Key, Bytes) -> ControlFlow<()>) -> Result<(), StorageError> {
        let file = self.file.lock();
        let mut input = &*file;
        input.seek(SeekFrom::Start(0)).map_err(|error| StorageError::io("read a snapshot", error))?;
        let unreadable = |error: SnapshotFileError| StorageError::corrupt(error.to_string());
        let mut parts = FileParts::new(BufReader::new(input)).map_err(unreadable)?;
        let mut records = SnapshotRecords::default();
        while let Some(part) = parts.next_part()? {
            for (key, value) in records.part(&part)? {
                if visit(key, value).is_break() {
                    return Ok(());
                }
            }
        }
        records.finish()
    }
}

#[async_trait]
impl Backend for FileRecords {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        if self.is_kept(key.as_str()) {
            return self.kept.get(key).await;
        }
        let mut found = None;
        self.scan(|at, value| {
            if at.as_str() < key.as_str() {
                return ControlFlow::Continue(());
            }
            found = (at == *key).then_some(value);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        if self.is_kept(prefix.as_str()) {
            return self.kept.list(prefix, page).await;
        }
        let mut below = BTreeSet::new();
        let is_one = page.limit == Some(1) && page.after.is_none();
        self.scan(|key, _| {
            if key.as_str().starts_with(prefix.as_str()) {
                below.insert(key);
                if is_one {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        let names = MemoryBackend::new();
        for key in below {
            names.commit(Batch::put(key, Bytes::new())).await?;
        }
        names.list(prefix, page).await
    }

    async fn commit(&self, _: Batch) -> Result<Index, StorageError> {
        Err(StorageError::NotLeader)
    }

    fn watch(&self, _: Weak<dyn Watch>) {}
}
