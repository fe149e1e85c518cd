//! What goes through a barrier, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// What went through a barrier since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Records that were asked for.
    pub gets: u64,
    /// Those of them that the cache had.
    pub hits: u64,
    /// Listings.
    pub lists: u64,
    /// Records that were to be written.
    pub puts: u64,
    /// Records that were to be deleted.
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
    /// So many more.
    pub(super) fn add(count: &AtomicU64, more: usize) {
        count.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Traffic {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Traffic {
            gets: read(&self.gets),
            hits: read(&self.hits),
            lists: read(&self.lists),
            puts: read(&self.puts),
            deletes: read(&self.deletes),
        }
    }
}
