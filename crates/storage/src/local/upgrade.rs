//! Upgrades a data directory of format 1 in place, and downgrades that of a lone node.
//!
//! Up to the change of `meta.json`, which is last, each step leaves a directory of format 1 that programs of both
//! formats open: the log of format 2 has another suffix, and no entry is appended to it before.

use std::sync::Arc;

use keepfast_crypto::random;

use super::{
    LocalOptions,
    apply::{Applier, Upto},
    disk::Disk,
    entry::HardState,
    layout::Layout,
    log::Log,
    segment_files,
    segmented_log::{SegmentedLog, Segments},
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
    let segments = Segments::of(disk, options.flush_bytes);
    drop(SegmentedLog::create(segments, base, HardState::lone(base))?);
    layout.upgrade(&**disk)?;
    tracing::info!(last, "the data directory was upgraded to format 2, which earlier programs do not read");
    Ok(())
}

/// Replays the log, makes the state durable, begins a log of format 1 after it, and changes the format.
///
/// # Errors
/// [`StorageError::Layout`] when the directory is that of a member of a cluster, or has format 1.
pub(crate) fn revert(disk: &Arc<dyn Disk>) -> Result<(), StorageError> {
    let mut layout = Layout::open(&**disk, None)?;
    if layout.needs_upgrade() {
        return Err(StorageError::Layout("it has format 1 already".into()));
    }
    let options = LocalOptions::default();
    let state = State::open(&**disk, options.cache_bytes, options.verify)?;
    let log = SegmentedLog::open(Segments::of(disk, options.flush_bytes), state.position().id)?;
    let is_member = |state: &State| -> Result<(), StorageError> {
        match layout.joining || layout.removed || state.members()?.is_some() {
            true => Err(StorageError::Layout("it belongs to a member of a cluster".into())),
            false => Ok(()),
        }
    };
    // Before the replay: of a member, the end of the log may not be committed.
    is_member(&state)?;
    let applier = Applier::new(state);
    applier.replay(&log.reader(), Upto::Last)?;
    let state = applier.state();
    is_member(&state)?;
    let change = state.begin()?;
    let position = change.downgrade(state.position())?;
    state.commit(change, position)?;
    state.flush()?;
    let failed = |error| StorageError::io("create a log segment", error);
    v1::create(&**disk, u32::from_le_bytes(random::bytes()), position.id.index + 1).map_err(failed)?;
    layout.downgrade(&**disk)?;
    // Not read by a program of format 1, and replaced by another upgrade.
    let _ = segment_files::delete(&**disk);
    Ok(())
}
