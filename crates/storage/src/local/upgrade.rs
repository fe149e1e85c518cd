//! Upgrades a data directory of format 1 in place.
//!
//! Up to the change of `meta.json`, which is last, each step leaves a directory of format 1 that programs of both
//! formats open: the log of format 2 has another suffix, and no entry is appended to it before.

use std::sync::Arc;

use super::{
    LocalOptions,
    disk::Disk,
    entry::HardState,
    layout::Layout,
    log::Log,
    segmented::{SegmentedLog, Segments},
    state::State,
    v1,
};
use crate::{Batch, StorageError};

/// Replays the log of format 1, makes the state durable, begins a log of format 2 after it, and changes the format.
pub(crate) fn run(disk: &Arc<dyn Disk>, layout: &mut Layout, options: &LocalOptions) -> Result<(), StorageError> {
    let (state, applied) = State::open_v1(&**disk, options.cache_bytes, options.verify)?;
    let change = state.begin()?;
    let last = {
        let mut records = change.records()?;
        v1::replay(&**disk, applied, |batch| records.apply(&Batch::decode(batch)?.writes))?
    };
    state.commit_v1(change, last)?;
    state.flush()?;
    let base = state.position().id;
    let segments = Segments { disk: disk.clone(), bytes: options.flush_bytes };
    drop(SegmentedLog::create(segments, base, HardState::lone(base))?);
    layout.upgrade(&**disk)?;
    tracing::info!(last, "the data directory was upgraded to format 2, which earlier programs do not read");
    Ok(())
}
