//! All that a snapshot of the state contains, as rows: read from one version of the tree, or written to a new tree beside
//! the current one.

use bytes::Bytes;
use redb::{Range, ReadTransaction};

use super::{
    disk::Disk,
    restore::RESTORE,
    state::{self, AppliedMembers, Position, RECORDS, State, TERMS, existing, state_error},
};
use crate::{Member, StorageError};

/// The state at one position.
pub(crate) struct Image {
    txn: ReadTransaction,
    pub(crate) position: Position,
    pub(crate) members: Option<AppliedMembers>,
}

/// A row of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Row {
    /// A record: its path and its value.
    Record(String, Bytes),
    /// An earlier key term and its encryptions.
    Term(u32, u64),
    /// A staged part of a restore, which must end alike on each node.
    Staged(u32, Bytes),
}

/// The rows of an image, in order.
pub(crate) struct Rows {
    records: Range<'static, &'static str, &'static [u8]>,
    terms: Option<Range<'static, u32, u64>>,
    staged: Option<Range<'static, u32, &'static [u8]>>,
}

impl Image {
    pub(super) fn new(txn: ReadTransaction) -> Result<Self, StorageError> {
        Ok(Self { position: state::position(&txn)?, members: state::members(&txn)?, txn })
    }

    /// All rows.
    pub(crate) fn rows(&self) -> Result<Rows, StorageError> {
        let records = self.txn.open_table(RECORDS).map_err(state_error)?;
        let terms = existing(&self.txn, TERMS)?.map(|terms| terms.range::<u32>(..));
        let staged = existing(&self.txn, RESTORE)?.map(|staged| staged.range::<u32>(..));
        Ok(Rows {
            records: records.range::<&str>(..).map_err(state_error)?,
            terms: terms.transpose().map_err(state_error)?,
            staged: staged.transpose().map_err(state_error)?,
        })
    }
}

impl Rows {
    /// The next row; `None` after the last one.
    pub(crate) fn next(&mut self) -> Result<Option<Row>, StorageError> {
        if let Some(record) = self.records.next() {
            let (path, value) = record.map_err(state_error)?;
            return Ok(Some(Row::Record(path.value().to_owned(), Bytes::copy_from_slice(value.value()))));
        }
        if let Some(term) = self.terms.as_mut().and_then(Iterator::next) {
            let (term, count) = term.map_err(state_error)?;
            return Ok(Some(Row::Term(term.value(), count.value())));
        }
        if let Some(staged) = self.staged.as_mut().and_then(Iterator::next) {
            let (number, part) = staged.map_err(state_error)?;
            return Ok(Some(Row::Staged(number.value(), Bytes::copy_from_slice(part.value()))));
        }
        Ok(None)
    }
}

/// A new state that is being received. It is beside the current one until [`State::enter`].
pub(crate) struct NewState(State);

impl NewState {
    /// An empty state; replaces one that was not completed.
    pub(crate) fn begin(disk: &dyn Disk, cache_bytes: usize) -> Result<Self, StorageError> {
        let state = State::begin_new(disk, cache_bytes)?;
        let change = state.begin()?;
        change.records()?;
        state.commit(change, Position::NEW)?;
        Ok(Self(state))
    }

    /// Adds rows.
    pub(crate) fn add(&self, rows: &[Row]) -> Result<(), StorageError> {
        let change = self.0.begin()?;
        {
            let mut records = change.table(RECORDS)?;
            for row in rows {
                match row {
                    Row::Record(path, value) => {
                        records.insert(path.as_str(), &value[..]).map_err(state_error)?;
                    }
                    Row::Term(term, count) => change.add_encryptions(*term, *count)?,
                    Row::Staged(number, part) => {
                        change.set_restoring(true);
                        change.table(RESTORE)?.insert(*number, &part[..]).map_err(state_error)?;
                    }
                }
            }
        }
        self.0.commit(change, Position::NEW)
    }

    /// Sets the position and the members there, and makes the state durable.
    pub(crate) fn finish(self, position: Position, members: &[Member]) -> Result<State, StorageError> {
        let change = self.0.begin()?;
        change.set_members(position.id.index, members)?;
        self.0.commit(change, position)?;
        self.0.flush()?;
        Ok(self.0)
    }
}
