//! The number of encryptions per key.
//!
//! The backend counts them by the term in each stored value, in every batch of its log, so that a node that takes over
//! continues the count. Earlier versions counted in each process and stored about every 1,000th count in an encrypted
//! record at `barrier/usage/<term>`, a little-endian u64: the backend counts from there.

use std::sync::atomic::Ordering;

use super::{Barrier, damaged, keyring::Term};
use crate::StorageError;

/// Encryptions between two counts that earlier versions stored.
const STEP: u64 = 1_000;

impl Barrier {
    /// Loads the count that an earlier version has stored, and adds an upper bound for what it did not store.
    pub(super) async fn load_usage(&self) -> Result<(), StorageError> {
        let term = self.keyring.load().active().ok_or(StorageError::Closed)?.clone();
        let path = format!("{}usage/{}", super::BARRIER_PREFIX, term.number);
        let Some(record) = self.fetch(&path).await? else {
            return Ok(());
        };
        let plain = self.open_record(&path, &record).await?;
        let count = u64::from_le_bytes(plain[..].try_into().map_err(|_| damaged(&path))?);
        // Two steps, because the batch that carried the last count may have failed.
        term.uncounted.store(count + 2 * STEP, Ordering::Relaxed);
        Ok(())
    }

    /// Upper bound on the number of encryptions under a key.
    pub(super) fn encryptions(&self, term: &Term) -> Result<u64, StorageError> {
        Ok(self.backend.encryptions(term.number)? + term.uncounted.load(Ordering::Relaxed))
    }
}
