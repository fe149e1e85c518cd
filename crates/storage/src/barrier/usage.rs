//! The number of encryptions per key, counted across restarts.
//!
//! The count is stored with the first and then about every 1,000th encryption, in the batch that causes it, so it needs
//! no commit of its own. It is an ordinary record at `barrier/usage/<term>`: a little-endian u64.

use std::sync::atomic::Ordering;

use super::{Barrier, damaged, keyring::Term, record_format};
use crate::{Key, StorageError, Write};

/// Encryptions between two stored counts.
const STEP: u64 = 1_000;

impl Barrier {
    /// Continues from the stored count and adds an upper bound for the encryptions that were not stored.
    pub(super) async fn load_usage(&self) -> Result<(), StorageError> {
        let term = self.keyring.load().active().ok_or(StorageError::Closed)?.clone();
        let path = path(&term);
        let Some(record) = self.fetch(&path).await? else {
            return Ok(());
        };
        let plain = self.open_record(&path, &record).await?;
        let count = u64::from_le_bytes(plain[..].try_into().map_err(|_| damaged(&path))?);
        // Two steps, because the batch that carried the last count may have failed.
        term.encryptions.store(count + 2 * STEP, Ordering::Relaxed);
        term.recorded.store(count, Ordering::Relaxed);
        Ok(())
    }
}

/// Returns the write that stores the count, when it is due.
pub(super) fn write_if_due(term: &Term, count: u64) -> Result<Option<Write>, StorageError> {
    let recorded = term.recorded.load(Ordering::Relaxed);
    if recorded != 0 && count < recorded + STEP {
        return Ok(None);
    }
    if term.recorded.compare_exchange(recorded, count.max(1), Ordering::Relaxed, Ordering::Relaxed).is_err() {
        // Another transaction stores the count.
        return Ok(None);
    }
    let (path, count) = (path(term), term.count(1));
    let value = record_format::seal(&term.key, term.number, &path, &count.to_le_bytes()).into();
    Ok(Some(Write::Put { key: Key::new(path)?, value }))
}

fn path(term: &Term) -> String {
    format!("{}usage/{}", super::BARRIER_PREFIX, term.number)
}
