//! The state: a redb tree with all records and the position of the last applied entry, always changed together.
//!
//! Ordinary changes are not durable by themselves, because the log is; [`State::flush`] makes them durable from time to
//! time. Tables:
//!
//! | table | contents |
//! |---|---|
//! | `records` | path to value |
//! | `position` | `applied` to the term and the index of the last applied entry, the newest key term and its encryptions |
//! | `terms` | earlier key terms to their encryptions |
//! | `members` | index to the body of the last applied entry of that kind |
//! | `restore` | the staged parts of a restore, see `restore` |
//! | `meta` | format 1 only: `applied` to an index |

use std::{
    cell::Cell,
    io,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Buf, BufMut, Bytes};
use keepfast_consensus::{Member, Payload};
use parking_lot::Mutex;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    WriteTransaction,
};

use super::{
    disk::{Disk, DiskFile},
    entry::{FOUNDING, LogId},
    image::Image,
};
use crate::{
    Digest, Key, Page, Read, StorageError, Write,
    listing::{self, Cursor},
};

/// Name of the file in the data directory.
pub(crate) const FILE: &str = "state.redb";
pub(crate) const FILE_NEW: &str = "state.redb.new";

pub(super) const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const POSITION: TableDefinition<'_, &str, &[u8; ROW]> = TableDefinition::new("position");
pub(super) const TERMS: TableDefinition<'_, u32, u64> = TableDefinition::new("terms");
const MEMBERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("members");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const APPLIED: &str = "applied";
/// Length of a stored position.
const ROW: usize = 28;

/// The tree on disk.
pub(crate) struct State {
    database: Database,
    /// As in the table.
    position: Mutex<Position>,
    /// Whether parts of a restore are staged.
    is_restoring: AtomicBool,
}

/// What the state has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The last applied entry.
    pub(crate) id: LogId,
    /// The newest term of the barrier's keys under which a record was encrypted; 0 before the first.
    pub(crate) key_term: u32,
    /// Number of encryptions under it.
    pub(crate) encryptions: u64,
}

impl Position {
    /// The position of a new state.
    pub(crate) const NEW: Self = Self { id: FOUNDING, key_term: 0, encryptions: 0 };

    /// The stored form: little-endian, without an allocation, because each group writes it.
    fn as_row(self) -> [u8; ROW] {
        let mut row = [0; ROW];
        let mut rest = &mut row[..];
        rest.put_u64_le(self.id.term);
        rest.put_u64_le(self.id.index);
        rest.put_u32_le(self.key_term);
        rest.put_u64_le(self.encryptions);
        row
    }

    fn from_row(row: &[u8; ROW]) -> Self {
        let mut rest = &row[..];
        let id = LogId { term: rest.get_u64_le(), index: rest.get_u64_le() };
        Self { id, key_term: rest.get_u32_le(), encryptions: rest.get_u64_le() }
    }
}

/// The last applied list of members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppliedMembers {
    /// Its index.
    pub(crate) index: u64,
    pub(crate) list: Vec<Member>,
}

/// An uncommitted change; no effect until the commit.
pub(crate) struct Change {
    txn: WriteTransaction,
    is_restoring: Cell<bool>,
}

/// The records as the change sees them.
pub(crate) struct Records<'txn>(redb::Table<'txn, &'static str, &'static [u8]>);

impl State {
    /// Opens the tree of a directory of format 2, or creates an empty one.
    pub(crate) fn open(disk: &dyn Disk, cache_bytes: usize, verify: bool) -> Result<Self, StorageError> {
        let Some(mut state) = Self::open_file(disk, cache_bytes, verify)? else {
            return Self::create(disk, cache_bytes, |_| Ok(()));
        };
        let txn = state.database.begin_read().map_err(state_error)?;
        *state.position.lock() = position(&txn)?;
        state.is_restoring = has_staged(&txn)?.into();
        Ok(state)
    }

    /// Opens the tree of a directory of format 1, or creates an empty one. Also returns the index of the last applied
    /// batch. Its position follows from [`Change::commit_v1`].
    pub(crate) fn open_v1(disk: &dyn Disk, cache_bytes: usize, verify: bool) -> Result<(Self, u64), StorageError> {
        let state = match Self::open_file(disk, cache_bytes, verify)? {
            Some(state) => state,
            None => Self::create(disk, cache_bytes, |change| change.set_applied_v1(0))?,
        };
        let txn = state.database.begin_read().map_err(state_error)?;
        let applied = txn.open_table(META).map_err(state_error)?.get(APPLIED).map_err(state_error)?;
        let applied = applied.map_or(0, |applied| applied.value());
        Ok((state, applied))
    }

    fn open_file(disk: &dyn Disk, cache_bytes: usize, verify: bool) -> Result<Option<Self>, StorageError> {
        let file = disk.open(FILE, false).map_err(|error| StorageError::io("open the state", error))?;
        file.map(|file| Ok(Self::of(database(file, cache_bytes, verify)?))).transpose()
    }

    /// Creates the tree under another name until it is complete, so that a crash does not leave a partial tree.
    fn create(
        disk: &dyn Disk,
        cache_bytes: usize,
        fill: impl FnOnce(&Change) -> Result<(), StorageError>,
    ) -> Result<Self, StorageError> {
        let state = Self::begin_new(disk, cache_bytes)?;
        let change = state.begin()?;
        change.records()?;
        fill(&change)?;
        state.commit(change, Position::NEW)?;
        state.flush()?;
        Self::enter(disk)?;
        Ok(state)
    }

    /// An empty tree in the file for a new one.
    pub(super) fn begin_new(disk: &dyn Disk, cache_bytes: usize) -> Result<Self, StorageError> {
        let failed = |error| StorageError::io("create the state", error);
        let file = disk.open(FILE_NEW, true).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        file.set_len(0).map_err(failed)?;
        Ok(Self::of(database(file, cache_bytes, false)?))
    }

    fn of(database: Database) -> Self {
        Self { database, position: Position::NEW.into(), is_restoring: false.into() }
    }

    /// Puts the new tree, which is complete and durable, in the place of the current one.
    pub(crate) fn enter(disk: &dyn Disk) -> Result<(), StorageError> {
        let renamed = disk.rename(FILE_NEW, FILE).and_then(|()| disk.sync_directory(""));
        renamed.map_err(|error| StorageError::io_kept("replace the state", error))
    }

    /// What is applied.
    pub(crate) fn position(&self) -> Position {
        *self.position.lock()
    }

    /// Number of encryptions under a key term of the barrier.
    pub(crate) fn encryptions(&self, key_term: u32) -> Result<u64, StorageError> {
        // One transaction: a change that begins a key term moves the count from the position to the table.
        let txn = self.database.begin_read().map_err(state_error)?;
        let position = position(&txn)?;
        let earlier = match existing(&txn, TERMS)? {
            Some(terms) => terms.get(key_term).map_err(state_error)?.map_or(0, |count| count.value()),
            None => 0,
        };
        Ok(earlier + if position.key_term == key_term { position.encryptions } else { 0 })
    }

    /// The last applied list of members; `None` for a node that never was in a cluster.
    pub(crate) fn members(&self) -> Result<Option<AppliedMembers>, StorageError> {
        let txn = self.database.begin_read().map_err(state_error)?;
        members(&txn)
    }

    /// A consistent view of everything that a snapshot contains.
    pub(crate) fn image(&self) -> Result<Image, StorageError> {
        Image::new(self.database.begin_read().map_err(state_error)?)
    }

    /// Whether all reads hold, and the position at which this was evaluated.
    pub(crate) fn reads_hold(&self, reads: &[Read]) -> Result<(bool, LogId), StorageError> {
        let txn = self.database.begin_read().map_err(state_error)?;
        let records = txn.open_table(RECORDS).map_err(state_error)?;
        Ok((reads_hold(&records, reads)?, position(&txn)?.id))
    }

    /// Whether parts of a restore are staged.
    pub(crate) fn is_restoring(&self) -> bool {
        self.is_restoring.load(Ordering::Acquire)
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
        Ok(Change { txn, is_restoring: self.is_restoring().into() })
    }

    /// Makes a change visible, with its position.
    pub(crate) fn commit(&self, change: Change, position: Position) -> Result<(), StorageError> {
        {
            let mut table = change.txn.open_table(POSITION).map_err(state_error)?;
            table.insert(APPLIED, &position.as_row()).map_err(state_error)?;
        }
        let is_restoring = change.is_restoring();
        change.txn.commit().map_err(state_error)?;
        *self.position.lock() = position;
        self.is_restoring.store(is_restoring, Ordering::Release);
        Ok(())
    }

    /// Makes a change visible that has applied the batches up to `applied` of a log of format 1: for a program that
    /// reads format 1, and for the log that continues in format 2.
    pub(crate) fn commit_v1(&self, change: Change, applied: u64) -> Result<(), StorageError> {
        change.set_applied_v1(applied)?;
        let index = applied.max(FOUNDING.index);
        self.commit(change, Position { id: LogId { index, ..FOUNDING }, ..Position::NEW })
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
    /// Whether parts of a restore are staged after this change.
    pub(crate) fn is_restoring(&self) -> bool {
        self.is_restoring.get()
    }

    pub(super) fn set_restoring(&self, is_restoring: bool) {
        self.is_restoring.set(is_restoring);
    }

    /// The records, for reads and writes.
    pub(crate) fn records(&self) -> Result<Records<'_>, StorageError> {
        self.txn.open_table(RECORDS).map(Records).map_err(state_error)
    }

    /// Adds encryptions under a key term that is not that of the position.
    pub(crate) fn add_encryptions(&self, key_term: u32, more: u64) -> Result<(), StorageError> {
        let mut terms = self.txn.open_table(TERMS).map_err(state_error)?;
        let count = terms.get(key_term).map_err(state_error)?.map_or(0, |count| count.value());
        terms.insert(key_term, count + more).map_err(state_error)?;
        Ok(())
    }

    /// Stores the position for a program that reads format 1. Returns the position for this format, which continues the
    /// count of encryptions after another upgrade.
    pub(crate) fn downgrade(&self, position: Position) -> Result<Position, StorageError> {
        self.set_applied_v1(position.id.index)?;
        self.add_encryptions(position.key_term, position.encryptions)?;
        Ok(Position { key_term: 0, encryptions: 0, ..position })
    }

    /// Replaces the members.
    pub(crate) fn set_members(&self, index: u64, list: &[Member]) -> Result<(), StorageError> {
        let payload = Payload::Members(list.to_vec()).encode();
        let body = payload.get(1..).unwrap_or_default();
        let mut members = self.txn.open_table(MEMBERS).map_err(state_error)?;
        members.retain(|_, _| false).map_err(state_error)?;
        members.insert(index, body).map_err(state_error)?;
        Ok(())
    }

    /// Opens a table for changes.
    pub(super) fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        table: TableDefinition<'_, K, V>,
    ) -> Result<redb::Table<'_, K, V>, StorageError> {
        self.txn.open_table(table).map_err(state_error)
    }

    fn set_applied_v1(&self, applied: u64) -> Result<(), StorageError> {
        let mut meta = self.txn.open_table(META).map_err(state_error)?;
        meta.insert(APPLIED, applied).map_err(state_error)?;
        Ok(())
    }

    /// Drops the change.
    pub(crate) fn abort(self) -> Result<(), StorageError> {
        self.txn.abort().map_err(state_error)
    }
}

impl Records<'_> {
    /// Whether all reads still hold.
    pub(crate) fn reads_hold(&self, reads: &[Read]) -> Result<bool, StorageError> {
        reads_hold(&self.0, reads)
    }

    /// Deletes all records.
    pub(crate) fn clear(&mut self) -> Result<(), StorageError> {
        self.0.retain(|_, _| false).map_err(state_error)
    }

    /// Creates or replaces a record.
    pub(crate) fn put(&mut self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        self.0.insert(key.as_str(), value).map_err(state_error).map(drop)
    }

    /// Applies writes in order.
    pub(crate) fn apply(&mut self, writes: &[Write]) -> Result<(), StorageError> {
        for write in writes {
            match write {
                Write::Put { key, value } => self.put(key, value)?,
                Write::Delete { key } => drop(self.0.remove(key.as_str()).map_err(state_error)?),
            }
        }
        Ok(())
    }
}

fn reads_hold(records: &impl ReadableTable<&'static str, &'static [u8]>, reads: &[Read]) -> Result<bool, StorageError> {
    for read in reads {
        let holds = match read {
            Read::Value { key, seen } => {
                let value = records.get(key.as_str()).map_err(state_error)?;
                value.map(|value| Digest::of(value.value())) == *seen
            }
            Read::Content { key, seen } => {
                let value = records.get(key.as_str()).map_err(state_error)?;
                value.is_some_and(|value| Digest::of_content(value.value()) == *seen)
            }
            Read::Listing { prefix, page, seen } => Digest::of_names(&names(records, prefix.as_str(), page)?) == *seen,
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The stored position.
pub(super) fn position(txn: &ReadTransaction) -> Result<Position, StorageError> {
    let table = txn.open_table(POSITION).map_err(state_error)?;
    let position = table.get(APPLIED).map_err(state_error)?.map(|row| Position::from_row(row.value()));
    position.ok_or_else(|| StorageError::corrupt("state: it has no position"))
}

fn has_staged(txn: &ReadTransaction) -> Result<bool, StorageError> {
    let Some(staged) = existing(txn, super::restore::RESTORE)? else { return Ok(false) };
    Ok(staged.first().map_err(state_error)?.is_some())
}

pub(super) fn members(txn: &ReadTransaction) -> Result<Option<AppliedMembers>, StorageError> {
    let Some(members) = existing(txn, MEMBERS)? else { return Ok(None) };
    let last = members.last().map_err(state_error)?;
    let decoded = |body: &[u8]| {
        let list = Payload::decode_list(&Bytes::copy_from_slice(body));
        list.map_err(|error| StorageError::corrupt(format!("state: members: {error}")))
    };
    last.map(|(index, body)| Ok(AppliedMembers { index: index.value(), list: decoded(body.value())? })).transpose()
}

/// Opens a table for reads; `None` before its first change.
pub(super) fn existing<K: redb::Key + 'static, V: redb::Value + 'static>(
    txn: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<Option<redb::ReadOnlyTable<K, V>>, StorageError> {
    match txn.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(state_error(error)),
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

pub(super) fn state_error(error: impl Into<redb::Error>) -> StorageError {
    match error.into() {
        redb::Error::Io(error) => StorageError::io("use the state", error),
        redb::Error::PreviousIo => StorageError::Stopped("an operation on the state has failed".into()),
        other => StorageError::corrupt(format!("state: {other}")),
    }
}
