//! Restores a snapshot through the log: its parts are staged, and replace all records at one entry.
//!
//! ```text
//! RestoreBegin  bytes                        any description of the snapshot; drops what is staged
//! RestorePart   number:u32  (text text)*     from 1 on: keys and values, as in a batch
//! RestoreEnd    digest:32                    of all before
//! digest        = SHA-256(bytes)  after RestoreBegin,  SHA-256(digest before, part)  after each part
//! ```
//!
//! An entry that does not fit to those before it is refused, on every replica alike, and changes nothing. A batch between
//! the beginning and the end conflicts: the end would delete what it has written.

use bytes::{Buf, Bytes};
use keepfast_crypto::hash::sha256;
use redb::{ReadableTable, TableDefinition};

use super::{
    apply::Decision,
    state::{Change, Records, state_error},
};
use crate::batch::{take_key, take_text};
use crate::{Key, StorageError};

/// Part numbers to bodies; 0 to the digest of all before.
pub(super) const RESTORE: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("restore");
const DIGEST: u32 = 0;

/// The staged parts of a restore.
struct Staged<'c>(redb::Table<'c, u32, &'static [u8]>);

/// Begins a restore; drops an earlier one.
pub(super) fn begin(change: &Change, description: &[u8]) -> Result<Decision, StorageError> {
    let mut staged = Staged::open(change)?;
    staged.clear()?;
    staged.put(DIGEST, &sha256(description))?;
    change.set_restoring(true);
    Ok(Decision::Passed)
}

/// Stages a part.
pub(super) fn part(change: &Change, body: &Bytes) -> Result<Decision, StorageError> {
    let mut staged = Staged::open(change)?;
    let number = body.clone().try_get_u32_le().ok();
    match (staged.last()?, staged.digest()?) {
        (Some(last), Some(digest)) if number == last.checked_add(1) && records(body).is_some() => {
            staged.put(last + 1, body)?;
            staged.put(DIGEST, &sha256(&[&digest[..], body].concat()))?;
            Ok(Decision::Passed)
        }
        _ => Ok(Decision::Refused),
    }
}

/// Replaces all records by the staged ones.
pub(super) fn end(change: &Change, digest: &[u8], records_now: &mut Records<'_>) -> Result<Decision, StorageError> {
    let mut staged = Staged::open(change)?;
    let (Some(last), Some(expected)) = (staged.last()?, staged.digest()?) else { return Ok(Decision::Refused) };
    if expected != digest {
        return Ok(Decision::Refused);
    }
    records_now.clear()?;
    for number in 1..=last {
        let body = staged.get(number)?.ok_or_else(|| StorageError::corrupt("a staged part is missing"))?;
        for (key, value) in records(&body).ok_or_else(|| StorageError::corrupt("a staged part is damaged"))? {
            records_now.put(&key, &value)?;
        }
    }
    staged.clear()?;
    change.set_restoring(false);
    Ok(Decision::Passed)
}

/// Drops the staged parts.
pub(super) fn abort(change: &Change) -> Result<Decision, StorageError> {
    Staged::open(change)?.clear()?;
    change.set_restoring(false);
    Ok(Decision::Passed)
}

impl<'c> Staged<'c> {
    fn open(change: &'c Change) -> Result<Self, StorageError> {
        change.table(RESTORE).map(Self)
    }

    fn clear(&mut self) -> Result<(), StorageError> {
        self.0.retain(|_, _| false).map_err(state_error)
    }

    fn put(&mut self, number: u32, body: &[u8]) -> Result<(), StorageError> {
        self.0.insert(number, body).map_err(state_error).map(drop)
    }

    fn get(&self, number: u32) -> Result<Option<Bytes>, StorageError> {
        let body = self.0.get(number).map_err(state_error)?;
        Ok(body.map(|body| Bytes::copy_from_slice(body.value())))
    }

    fn digest(&self) -> Result<Option<Bytes>, StorageError> {
        self.get(DIGEST)
    }

    /// The number of the last part, 0 without one; `None` when no restore was started.
    fn last(&self) -> Result<Option<u32>, StorageError> {
        Ok(self.0.last().map_err(state_error)?.map(|(number, _)| number.value()))
    }
}

/// The records of a part; `None` when it has another form.
fn records(body: &Bytes) -> Option<Vec<(Key, Bytes)>> {
    let (mut rest, mut found) = (body.clone(), Vec::new());
    rest.try_get_u32_le().ok()?;
    while rest.has_remaining() {
        found.push((take_key(&mut rest)?, take_text(&mut rest)?));
    }
    Some(found)
}
