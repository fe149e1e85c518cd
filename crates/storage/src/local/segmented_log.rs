//! The log as append-only segments in a directory (see [`segment`](super::segment)).
//!
//! One frame is written and synced at a time. Older segments are deleted when the state has become durable.

use std::{io, sync::Arc};

use bytes::Bytes;
use keepfast_crypto::random;

use super::{
    disk::{Disk, DiskFile},
    log::{AppendError, Log},
    segment::{FRAME, FrameBuilder, FrameHead, HEADER, Head},
};
use crate::{Batch, StorageError};

const DIRECTORY: &str = "log";
const SUFFIX: &str = ".seg";

/// The directory of the segments and their size.
pub(crate) struct Segments {
    /// The data directory.
    pub(crate) disk: Arc<dyn Disk>,
    /// A compaction starts a new segment when the current one has this many bytes.
    pub(crate) bytes: u64,
}

/// The current segment and the older ones.
pub(crate) struct SegmentedLog {
    segments: Segments,
    file: Arc<dyn DiskFile>,
    head: Head,
    /// Offset of the next frame.
    end: u64,
    /// Index of the next batch.
    next: u64,
    /// Names of older segments.
    old: Vec<String>,
    /// The current group.
    frame: FrameBuilder,
}

impl Log for SegmentedLog {
    type Medium = Segments;

    fn replay(
        segments: &Segments,
        applied: u64,
        apply: impl FnMut(u64, Bytes) -> Result<(), StorageError>,
    ) -> Result<u64, StorageError> {
        replay(&*segments.disk, applied, apply)
    }

    /// Begins a segment. Older ones stay until the first compaction.
    fn open(segments: Segments, next: u64) -> Result<Self, StorageError> {
        let failed = |error| StorageError::io("create a log segment", error);
        let name = name(next);
        let old = list(&*segments.disk)?.into_iter().map(|(_, name)| name).filter(|old| *old != name).collect();
        let (file, head) = create(&*segments.disk, &name, next).map_err(failed)?;
        Ok(Self { segments, file, head, end: HEADER as u64, next, old, frame: FrameBuilder::default() })
    }

    fn next(&self) -> u64 {
        self.next
    }

    fn clear(&mut self) {
        self.frame.clear();
    }

    fn push(&mut self, batch: &Batch) {
        self.frame.push(batch);
    }

    fn append(&mut self) -> Result<u64, AppendError> {
        let count = self.frame.count();
        let bytes = self.frame.finish(self.head.salt, self.next);
        let length = bytes.len() as u64;
        if let Err(error) = self.file.write_at(self.end, bytes) {
            return Err(self.undo(error));
        }
        self.file.sync().map_err(|error| broken("sync the log", error))?;
        self.end += length;
        self.next += u64::from(count);
        Ok(length)
    }

    /// Requires more than `reserve` bytes, or more than a quarter of the file system where that is less.
    fn has_room(&self, reserve: u64, bytes: u64) -> bool {
        // When the free space is unknown, the write itself shows whether there is enough.
        let room = self.segments.disk.room();
        room.map_or(true, |room| room.free > reserve.min(room.total / 4).saturating_add(bytes.saturating_mul(4)))
    }

    fn compact(&mut self) -> Result<(), StorageError> {
        if self.end >= self.segments.bytes {
            self.roll()?;
        }
        self.delete_old();
        Ok(())
    }
}

impl SegmentedLog {
    /// Handles a failed write: removes the written bytes when the device is full.
    fn undo(&self, error: io::Error) -> AppendError {
        if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return broken("write the log", error);
        }
        match self.file.set_len(self.end).and_then(|()| self.file.sync()) {
            Ok(()) => AppendError::Full,
            Err(error) => broken("cut the log after a write without room", error),
        }
    }

    /// Starts a new segment; stays in the current one when the new one cannot be created.
    fn roll(&mut self) -> Result<(), StorageError> {
        let (disk, name) = (&*self.segments.disk, name(self.next));
        match create(disk, &name, self.next) {
            Ok((file, head)) => {
                self.old.push(self::name(self.head.first));
                (self.file, self.head, self.end) = (file, head, HEADER as u64);
                Ok(())
            }
            // A segment that begins inside the current one would be an error at the next start.
            Err(_) => match disk.remove(&path(&name)).and_then(|()| disk.sync_directory(DIRECTORY)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(StorageError::io_kept("remove an unused log segment", error))
                }
                _ => Ok(()),
            },
        }
    }

    /// Deletes older segments; retries those that cannot be deleted at the next call.
    fn delete_old(&mut self) {
        let disk = &self.segments.disk;
        self.old.retain(|name| match disk.remove(&path(name)) {
            Ok(()) => false,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        });
    }
}

fn broken(action: &'static str, error: io::Error) -> AppendError {
    AppendError::Broken(StorageError::io_kept(action, error))
}

/// Reads the batches that come after `applied`; see [`Log::replay`].
fn replay(
    disk: &dyn Disk,
    applied: u64,
    mut apply: impl FnMut(u64, Bytes) -> Result<(), StorageError>,
) -> Result<u64, StorageError> {
    let segments = list(disk)?;
    if segments.is_empty() && applied > 0 {
        return Err(StorageError::corrupt("the log is missing"));
    }
    let mut last = applied;
    for (place, (first, name)) in segments.iter().enumerate() {
        let following = segments.get(place + 1).map(|(first, _)| *first);
        if following.is_some_and(|following| following <= last + 1) {
            continue;
        }
        if *first > last + 1 {
            return Err(StorageError::corrupt(format!("batches {} to {} are missing in the log", last + 1, first - 1)));
        }
        let mut reader = Reader { name, file: open(disk, name)?, is_last: following.is_none(), offset: 0 };
        let Some(head) = reader.head(*first)? else {
            continue;
        };
        let mut next = *first;
        while let Some(batches) = reader.frame(head.salt, next)? {
            for batch in batches {
                if next == last + 1 {
                    apply(next, batch)?;
                    last = next;
                }
                next += 1;
            }
        }
    }
    Ok(last)
}

/// Reads one segment.
struct Reader<'a> {
    name: &'a str,
    file: Arc<dyn DiskFile>,
    is_last: bool,
    offset: u64,
}

impl Reader<'_> {
    /// Reads the header; `None` when the segment was never begun.
    fn head(&mut self, first: u64) -> Result<Option<Head>, StorageError> {
        let mut bytes = [0; HEADER];
        let length = self.length()?;
        let head = if length < HEADER as u64 { None } else { Head::decode(&self.read(0, &mut bytes)?) };
        match head.filter(|head| head.first == first) {
            Some(head) => {
                self.offset = HEADER as u64;
                Ok(Some(head))
            }
            // The header is durable before the first frame is written.
            None if self.is_last && length <= HEADER as u64 => Ok(None),
            None => Err(self.damaged(0)),
        }
    }

    /// Reads the batches of the next frame; `None` at the end.
    fn frame(&mut self, salt: u32, next: u64) -> Result<Option<Vec<Bytes>>, StorageError> {
        let length = self.length()?;
        if self.offset == length {
            return Ok(None);
        }
        if let Some((head, payload)) = self.frame_at(salt, self.offset, length)?
            && head.first == next
            && let Some(batches) = head.batches(payload)
        {
            self.offset += (FRAME + head.length) as u64;
            return Ok(Some(batches));
        }
        if !self.is_last || self.is_readable_behind(salt, next, length)? {
            return Err(self.damaged(self.offset));
        }
        tracing::warn!(segment = self.name, offset = self.offset, "the log ends in a torn write, which is ignored");
        Ok(None)
    }

    /// Reads a whole frame at an offset.
    fn frame_at(&self, salt: u32, offset: u64, length: u64) -> Result<Option<(FrameHead, Bytes)>, StorageError> {
        let mut bytes = [0; FRAME];
        let Some(room) = (length - offset).checked_sub(FRAME as u64) else {
            return Ok(None);
        };
        let Some(head) = FrameHead::decode(salt, &self.read(offset, &mut bytes)?) else {
            return Ok(None);
        };
        if head.length as u64 > room {
            return Ok(None);
        }
        let mut payload = vec![0; head.length];
        let failed = |error| StorageError::io("read the log", error);
        self.file.read_at(offset + FRAME as u64, &mut payload).map_err(failed)?;
        Ok(head.fits(salt, &payload).then(|| (head, payload.into())))
    }

    /// Whether a whole frame follows after the current offset: the bytes here are then damaged and not a torn end.
    fn is_readable_behind(&self, salt: u32, next: u64, length: u64) -> Result<bool, StorageError> {
        let mut rest = vec![0; (length - self.offset) as usize];
        let failed = |error| StorageError::io("read the log", error);
        self.file.read_at(self.offset, &mut rest).map_err(failed)?;
        for place in 1..rest.len().saturating_sub(FRAME - 1) {
            let Some(bytes) = rest[place..].first_chunk::<FRAME>() else {
                break;
            };
            let is_head = FrameHead::decode(salt, bytes).is_some_and(|head| head.first > next);
            if is_head && self.frame_at(salt, self.offset + place as u64, length)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn length(&self) -> Result<u64, StorageError> {
        self.file.len().map_err(|error| StorageError::io("read the log", error))
    }

    fn read<const N: usize>(&self, offset: u64, out: &mut [u8; N]) -> Result<[u8; N], StorageError> {
        self.file.read_at(offset, out).map_err(|error| StorageError::io("read the log", error))?;
        Ok(*out)
    }

    fn damaged(&self, offset: u64) -> StorageError {
        StorageError::corrupt(format!("log segment {} is damaged at byte {offset}", self.name))
    }
}

fn name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

fn path(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

/// Lists the segments by the index of their first batch.
fn list(disk: &dyn Disk) -> Result<Vec<(u64, String)>, StorageError> {
    let names = disk.names(DIRECTORY).map_err(|error| StorageError::io("list the log", error))?;
    let first = |name: &str| name.strip_suffix(SUFFIX)?.parse().ok();
    let mut segments: Vec<_> = names.into_iter().filter_map(|name| Some((first(&name)?, name))).collect();
    segments.sort_unstable();
    Ok(segments)
}

fn open(disk: &dyn Disk, name: &str) -> Result<Arc<dyn DiskFile>, StorageError> {
    let failed = |error| StorageError::io("open a log segment", error);
    disk.open(&path(name), false).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

/// Creates an empty segment durably. A segment left by an earlier attempt has no frame and is overwritten.
fn create(disk: &dyn Disk, name: &str, first: u64) -> io::Result<(Arc<dyn DiskFile>, Head)> {
    let head = Head { salt: u32::from_le_bytes(random::bytes()), first };
    let file = disk.open(&path(name), true)?.ok_or(io::ErrorKind::NotFound)?;
    file.set_len(0)?;
    file.write_at(0, &head.encode())?;
    file.sync()?;
    disk.sync_directory(DIRECTORY)?;
    Ok((file, head))
}

#[cfg(test)]
mod tests {
    use super::super::log_suite::{LogKit, log_suite};
    use super::super::sim_disk::{Fault, SimDisk};
    use super::*;

    struct Kit(SimDisk);

    impl Kit {
        /// The only segment.
        fn segment(&self) -> String {
            let segments = list(&self.0).unwrap();
            assert_eq!(segments.len(), 1);
            path(&segments[0].1)
        }
    }

    impl LogKit for Kit {
        type Log = SegmentedLog;

        fn new() -> Self {
            Kit(SimDisk::new(3))
        }

        fn medium(&self) -> Segments {
            Segments { disk: Arc::new(self.0.clone()), bytes: 1 }
        }

        fn copy(&self) -> Self {
            Kit(self.0.copy())
        }

        fn lose_power(&self) {
            self.0.lose_power();
        }

        fn fail_next_sync(&self) {
            // The write comes first.
            self.0.fail_at(self.0.operations() + 1, Fault::Error);
        }

        fn fill_up(&self) {
            self.0.fail_at(self.0.operations(), Fault::FullOnce);
        }

        fn len(&self) -> usize {
            self.0.content(&self.segment()).len()
        }

        fn truncate(&self, len: usize) {
            let segment = self.segment();
            let mut bytes = self.0.content(&segment);
            bytes.truncate(len);
            self.0.set_content(&segment, bytes);
        }

        fn flip_bit(&self, at: usize) {
            let segment = self.segment();
            let mut bytes = self.0.content(&segment);
            bytes[at] ^= 1;
            self.0.set_content(&segment, bytes);
        }
    }

    log_suite!(segmented, Kit);

    #[test]
    fn a_segment_that_could_not_be_begun_hides_no_batch() {
        let batch = |key: &str| Batch::put(crate::Key::new(key).unwrap(), "v");
        for (fault, step) in [Fault::Error, Fault::FullOnce].into_iter().flat_map(|f| (0..6).map(move |s| (f, s))) {
            let disk = SimDisk::new(3);
            let segments = || Segments { disk: Arc::new(disk.clone()), bytes: 1 };
            let mut log = SegmentedLog::open(segments(), 1).unwrap();
            log.clear();
            log.push(&batch("a"));
            log.append().unwrap();
            disk.fail_at(disk.operations() + step, fault);
            if log.compact().is_err() {
                continue;
            }
            disk.heal();
            log.clear();
            log.push(&batch("b"));
            log.append().unwrap();
            drop(log);
            disk.lose_power();
            let mut found = Vec::new();
            let last = SegmentedLog::replay(&segments(), 1, |index, _| {
                found.push(index);
                Ok(())
            });
            assert_eq!((last.unwrap(), found), (2, vec![2]), "{fault:?} at {step}");
        }
    }
}
