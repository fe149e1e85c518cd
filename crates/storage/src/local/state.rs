//! The state: a redb tree with all records and the index of the last applied batch, always changed together.
//!
//! Ordinary changes are not durable by themselves, because the log is; [`State::flush`] makes them durable from time to
//! time. Tables: `records` (path to value) and `meta` (`applied` to index, a u64).

use std::{io, ops::Bound, sync::Arc};

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};

use super::disk::{Disk, DiskFile};
use crate::{
    Digest, Page, Read, StorageError, Write,
    listing::{self, Cursor},
};

/// Name of the file in the data directory.
pub(crate) const FILE: &str = "state.redb";
const FILE_NEW: &str = "state.redb.new";

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const APPLIED: &str = "applied";

/// The tree on disk.
pub(crate) struct State {
    database: Database,
}

/// An uncommitted change; no effect until the commit.
pub(crate) struct Change(WriteTransaction);

/// The records as the change sees them.
pub(crate) struct Records<'txn>(redb::Table<'txn, &'static str, &'static [u8]>);

impl State {
    /// Opens the tree, or creates an empty one.
    pub(crate) fn open(disk: &dyn Disk, cache_bytes: usize, verify: bool) -> Result<Self, StorageError> {
        let failed = |error| StorageError::io("open the state", error);
        if let Some(file) = disk.open(FILE, false).map_err(failed)? {
            return Ok(Self { database: database(file, cache_bytes, verify)? });
        }
        // Created under another name until complete, so that a crash does not leave a partial tree.
        let file = disk.open(FILE_NEW, true).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        file.set_len(0).map_err(failed)?;
        let state = Self { database: database(file, cache_bytes, false)? };
        let change = state.begin()?;
        change.records()?;
        change.commit(0)?;
        state.flush()?;
        disk.rename(FILE_NEW, FILE).and_then(|()| disk.sync_directory("")).map_err(failed)?;
        Ok(state)
    }

    /// Index of the last applied batch.
    pub(crate) fn applied(&self) -> Result<u64, StorageError> {
        let txn = self.database.begin_read().map_err(state_error)?;
        let meta = txn.open_table(META).map_err(state_error)?;
        let applied = meta.get(APPLIED).map_err(state_error)?;
        Ok(applied.map_or(0, |applied| applied.value()))
    }

    /// Returns the value at a path.
    pub(crate) fn get(&self, path: &str) -> Result<Option<Bytes>, StorageError> {
        let txn = self.database.begin_read().map_err(state_error)?;
        let records = txn.open_table(RECORDS).map_err(state_error)?;
        let value = records.get(path).map_err(state_error)?;
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }

    /// Lists the names one level below a prefix.
    pub(crate) fn list(&self, prefix: &str, page: &Page) -> Result<Vec<String>, StorageError> {
        let txn = self.database.begin_read().map_err(state_error)?;
        let records = txn.open_table(RECORDS).map_err(state_error)?;
        names(&records, prefix, page)
    }

    /// Begins a change. At most one exists at a time.
    pub(crate) fn begin(&self) -> Result<Change, StorageError> {
        let mut txn = self.database.begin_write().map_err(state_error)?;
        txn.set_durability(Durability::None).map_err(state_error)?;
        Ok(Change(txn))
    }

    /// Makes all committed changes durable.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        let mut txn = self.database.begin_write().map_err(state_error)?;
        // With quick repair, opening after a crash takes milliseconds at any size.
        txn.set_quick_repair(true);
        txn.commit().map_err(state_error)
    }
}

impl Change {
    /// The records, for reads and writes.
    pub(crate) fn records(&self) -> Result<Records<'_>, StorageError> {
        self.0.open_table(RECORDS).map(Records).map_err(state_error)
    }

    /// Makes the change visible, together with the index of its last batch.
    pub(crate) fn commit(self, applied: u64) -> Result<(), StorageError> {
        {
            let mut meta = self.0.open_table(META).map_err(state_error)?;
            meta.insert(APPLIED, applied).map_err(state_error)?;
        }
        self.0.commit().map_err(state_error)
    }

    /// Drops the change.
    pub(crate) fn abort(self) -> Result<(), StorageError> {
        self.0.abort().map_err(state_error)
    }
}

impl Records<'_> {
    /// Whether all reads still hold.
    pub(crate) fn reads_hold(&self, reads: &[Read]) -> Result<bool, StorageError> {
        for read in reads {
            let holds = match read {
                Read::Value { key, seen } => {
                    let value = self.0.get(key.as_str()).map_err(state_error)?;
                    value.map(|value| Digest::of(value.value())) == *seen
                }
                Read::Listing { prefix, page, seen } => {
                    Digest::of_names(&names(&self.0, prefix.as_str(), page)?) == *seen
                }
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Applies writes in order.
    pub(crate) fn apply(&mut self, writes: &[Write]) -> Result<(), StorageError> {
        for write in writes {
            match write {
                Write::Put { key, value } => drop(self.0.insert(key.as_str(), &value[..]).map_err(state_error)?),
                Write::Delete { key } => drop(self.0.remove(key.as_str()).map_err(state_error)?),
            }
        }
        Ok(())
    }
}

fn database(file: Arc<dyn DiskFile>, cache_bytes: usize, verify: bool) -> Result<Database, StorageError> {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache_bytes).set_check_integrity_on_open(verify);
    // The documentation of redb states that it may panic on a file that was modified externally.
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.create_with_backend(RedbFile(file))));
    match opened {
        Ok(opened) => opened.map_err(state_error),
        Err(_) => Err(StorageError::corrupt("state: the tree cannot be read")),
    }
}

fn names(
    records: &impl ReadableTable<&'static str, &'static [u8]>,
    prefix: &str,
    page: &Page,
) -> Result<Vec<String>, StorageError> {
    listing::names(&mut TreeCursor { records, range: None }, prefix, page)
}

struct TreeCursor<'t, T> {
    records: &'t T,
    range: Option<redb::Range<'t, &'static str, &'static [u8]>>,
}

impl<T: ReadableTable<&'static str, &'static [u8]>> Cursor for TreeCursor<'_, T> {
    fn seek(&mut self, from: Bound<&str>) -> Result<(), StorageError> {
        self.range = Some(self.records.range::<&str>((from, Bound::Unbounded)).map_err(state_error)?);
        Ok(())
    }

    fn next(&mut self, path: &mut String) -> Result<bool, StorageError> {
        let Some(entry) = self.range.as_mut().and_then(Iterator::next) else {
            return Ok(false);
        };
        let (key, _) = entry.map_err(state_error)?;
        path.clear();
        path.push_str(key.value());
        Ok(true)
    }
}

/// The file of the tree, accessed through [`DiskFile`].
#[derive(Debug)]
struct RedbFile(Arc<dyn DiskFile>);

impl StorageBackend for RedbFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

fn state_error(error: impl Into<redb::Error>) -> StorageError {
    match error.into() {
        redb::Error::Io(error) => StorageError::io("use the state", error),
        redb::Error::PreviousIo => StorageError::Stopped("an operation on the state has failed".into()),
        other => StorageError::corrupt(format!("state: {other}")),
    }
}
