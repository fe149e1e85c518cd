//! Counters of barrier operations.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of operations since the barrier was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Record reads.
    pub gets: u64,
    /// Record reads that the cache served.
    pub hits: u64,
    /// Listings.
    pub lists: u64,
    /// Records in commits that create or replace them.
    pub puts: u64,
    /// Records in commits that delete them.
    pub deletes: u64,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) gets: AtomicU64,
    pub(super) hits: AtomicU64,
    pub(super) lists: AtomicU64,
    pub(super) puts: AtomicU64,
    pub(super) deletes: AtomicU64,
}

impl Counts {
    /// Adds `more` to a counter.
    pub(super) fn add(count: &AtomicU64, more: usize) {
        count.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> OperationCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        OperationCounts {
            gets: read(&self.gets),
            hits: read(&self.hits),
            lists: read(&self.lists),
            puts: read(&self.puts),
            deletes: read(&self.deletes),
        }
    }
}
