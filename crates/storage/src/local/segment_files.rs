//! The files of the segments: `log/<number>.log`.

use std::{io, sync::Arc};

use keepfast_crypto::random;

use super::{
    disk::{Disk, DiskFile},
    entry::{HardState, LogId},
    log_index::Segment,
    segment::{Frame, HEADER, Head},
};
use crate::StorageError;

pub(crate) const DIRECTORY: &str = "log";
const SUFFIX: &str = ".log";

pub(crate) fn name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

pub(crate) fn path(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

/// Lists the segments by their number.
pub(crate) fn list(disk: &dyn Disk) -> Result<Vec<(u64, String)>, StorageError> {
    numbered(disk, SUFFIX)
}

/// Lists the files that have a number and this suffix as their name, by number.
pub(crate) fn numbered(disk: &dyn Disk, suffix: &str) -> Result<Vec<(u64, String)>, StorageError> {
    let names = disk.names(DIRECTORY).map_err(|error| StorageError::io("list the log", error))?;
    let number = |name: &str| name.strip_suffix(suffix)?.parse().ok();
    let mut segments: Vec<_> = names.into_iter().filter_map(|name| Some((number(&name)?, name))).collect();
    segments.sort_unstable();
    Ok(segments)
}

/// Deletes all segments.
pub(crate) fn delete(disk: &dyn Disk) -> Result<(), StorageError> {
    let removed = |(_, name): (_, String)| disk.remove(&path(&name));
    list(disk)?.into_iter().try_for_each(removed).map_err(|error| StorageError::io("delete the log", error))
}

pub(crate) fn open(disk: &dyn Disk, name: &str) -> Result<Arc<dyn DiskFile>, StorageError> {
    let failed = |error| StorageError::io("open a log segment", error);
    disk.open(&path(name), false).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

/// Begins a log again after `base`, durably. Returns its only segment and the end of that.
///
/// A segment that does not follow the last entry is valid from its first frame on.
pub(crate) fn begin_again(
    disk: &dyn Disk,
    number: u64,
    base: LogId,
    hard: HardState,
) -> Result<(Arc<Segment>, u64), StorageError> {
    let mut frame = Frame::new();
    frame.begin(base.index + 1, hard);
    let started = begin(disk, number, base, hard).and_then(|segment| {
        let bytes = frame.finish(segment.salt);
        segment.file.write_at(HEADER as u64, bytes)?;
        segment.file.sync()?;
        Ok((segment, (HEADER + bytes.len()) as u64))
    });
    started.map_err(|error| StorageError::io("begin the log again", error))
}

/// Creates an empty segment durably. One left by an earlier attempt has no frame and is overwritten.
pub(crate) fn begin(disk: &dyn Disk, number: u64, base: LogId, hard: HardState) -> io::Result<Arc<Segment>> {
    let salt = u32::from_le_bytes(random::bytes());
    let head = Head { salt, first: base.index + 1, before_term: base.term, hard };
    let file = disk.open(&path(&name(number)), true)?.ok_or(io::ErrorKind::NotFound)?;
    file.set_len(0)?;
    file.write_at(0, &head.encode())?;
    file.sync()?;
    disk.sync_directory(DIRECTORY)?;
    Ok(Arc::new(Segment { number, salt, file }))
}
