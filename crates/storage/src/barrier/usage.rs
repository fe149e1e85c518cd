//! How often a key has encrypted, counted across restarts.
//!
//! The count is stored with the first and then about every 1,000th encryption, in the batch that causes it, so it
//! costs no commit of its own: a record as any other at `barrier/usage/<term>`, a u64 in little-endian.

use std::sync::atomic::Ordering;

use super::{Barrier, damaged, keyring::Term, value};
use crate::{Key, StorageError, Write};

/// Encryptions between two stored counts.
const STEP: u64 = 1_000;

impl Barrier {
    /// Continues to count where the store ended; assumes the worst about what was not stored.
    pub(super) async fn load_usage(&self) -> Result<(), StorageError> {
        let term = self.keyring.load().active().ok_or(StorageError::Closed)?.clone();
        let path = path(&term);
        let Some(record) = self.fetch(&path).await? else {
            return Ok(());
        };
        let plain = self.open_record(&path, &record).await?;
        let count = u64::from_le_bytes(plain[..].try_into().map_err(|_| damaged(&path))?);
        // Two steps: the batch that carried the last count may have failed.
        term.encryptions.store(count + 2 * STEP, Ordering::Relaxed);
        term.recorded.store(count, Ordering::Relaxed);
        Ok(())
    }
}

/// The write that stores the count, when it is time.
pub(super) fn due(term: &Term, count: u64) -> Result<Option<Write>, StorageError> {
    let recorded = term.recorded.load(Ordering::Relaxed);
    if recorded != 0 && count < recorded + STEP {
        return Ok(None);
    }
    if term.recorded.compare_exchange(recorded, count.max(1), Ordering::Relaxed, Ordering::Relaxed).is_err() {
        // Another transaction stores it.
        return Ok(None);
    }
    let (path, count) = (path(term), term.count(1));
    let value = value::seal(&term.key, term.number, &path, &count.to_le_bytes()).into();
    Ok(Some(Write::Put { key: Key::new(path)?, value }))
}

fn path(term: &Term) -> String {
    format!("{}usage/{}", super::OWN, term.number)
}
