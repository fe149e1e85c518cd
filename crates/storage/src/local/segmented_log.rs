//! The log as append-only segments in a directory (see [`segment`](super::segment)).
//!
//! One frame is written and synced at a time. Older segments are deleted when no entry in them is needed.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{
    disk::{Disk, has_room},
    entry::{Entry, FOUNDING, HardState, LogId},
    log::{AppendError, Keep, Log, ReadLog},
    log_index::{FrameRef, LogIndex, Segment},
    scan::FrameForm,
    scanned::Scanned,
    segment::{FRAME, Frame, FrameHead, HEADER},
    segment_files::{DIRECTORY, begin, begin_again, list, name, path},
};
use crate::StorageError;

const REMOVE: &str = "remove an unused log segment";

/// The directory of the segments and their size.
pub(crate) struct Segments {
    /// The data directory.
    pub(crate) disk: Arc<dyn Disk>,
    /// A purge starts a new segment when the current one has this many bytes.
    pub(crate) bytes: u64,
    /// The zeros that are written behind a frame where the file ends. The next frames are written over them: a sync then
    /// changes no metadata of the file, and takes half the time.
    pub(crate) ahead: u64,
}

impl Segments {
    /// Those of a store that makes its tree durable after this many bytes of log.
    pub(crate) fn of(disk: &Arc<dyn Disk>, flush_bytes: u64) -> Self {
        Self { disk: disk.clone(), bytes: flush_bytes, ahead: flush_bytes / 64 }
    }
}

/// The current segment and the older ones.
pub(crate) struct SegmentedLog {
    segments: Segments,
    current: Arc<Segment>,
    /// Index of the first entry of the current segment.
    first: u64,
    /// Offset of the next frame.
    end: u64,
    /// Length of the current segment; zeros follow from `end` on.
    length: u64,
    /// Older segments, and their sizes in bytes.
    old: Vec<(u64, u64)>,
    index: Arc<RwLock<LogIndex>>,
}

/// Reads entries; see [`ReadLog`].
#[derive(Clone)]
pub(crate) struct LogReader(Arc<RwLock<LogIndex>>);

impl Log for SegmentedLog {
    type Medium = Segments;
    type Reader = LogReader;

    fn create(segments: Segments, base: LogId, hard: HardState) -> Result<Self, StorageError> {
        let old: Vec<_> = list(&*segments.disk)?.into_iter().map(|(number, _)| (number, 0)).collect();
        let number = old.last().map_or(1, |(number, _)| number + 1);
        let (current, end) = begin_again(&*segments.disk, number, base, hard)?;
        let index = Arc::new(RwLock::new(LogIndex::new(base, hard)));
        let mut log = Self { segments, current, first: base.index + 1, end, length: end, old, index };
        log.delete_before(number);
        Ok(log)
    }

    fn open(segments: Segments, applied: LogId) -> Result<Self, StorageError> {
        let Some(scanned) = Scanned::read(&*segments.disk)? else {
            if applied.index > FOUNDING.index {
                return Err(StorageError::corrupt("the log is missing"));
            }
            return Self::create(segments, applied, HardState::lone(applied));
        };
        let base = scanned.index.base().index;
        if base > applied.index {
            let missing = applied.index + 1;
            return Err(StorageError::corrupt(format!("the entries {missing} to {base} are missing in the log")));
        }
        scanned.settle(&*segments.disk)?;
        let Scanned { index, current, first, end, old, .. } = scanned;
        let is_other = index.term(applied.index) != Some(applied.term);
        if is_other && index.hard().committed >= applied.index {
            return Err(StorageError::corrupt(format!("log and state differ at entry {}", applied.index)));
        }
        let index = Arc::new(RwLock::new(index));
        let mut log = Self { segments, current, first, end, length: end, old, index };
        if is_other {
            log.restart(applied)?;
        }
        Ok(log)
    }

    fn reader(&self) -> LogReader {
        LogReader(self.index.clone())
    }

    fn append(&mut self, frame: &mut Frame) -> Result<u64, AppendError> {
        let (first, count) = (frame.first(), u64::from(frame.count()));
        if !self.index.read().admits(first, count) {
            let text = format!("a log entry must not get the index {first}");
            return Err(AppendError::Broken(StorageError::corrupt(text)));
        }
        if first < self.first {
            // The header of the current segment would not fit once the segments before it are deleted.
            return self.append_in_new_segment(frame);
        }
        let length = frame.finish(self.current.salt).len();
        if let Err(error) = self.write(frame, self.end + length as u64) {
            return Err(self.undo(error));
        }
        if !planted!(AckBeforeSync) {
            self.current.file.sync().map_err(|error| broken("sync the log", error))?;
        }
        self.note(frame, length);
        Ok(length as u64)
    }

    fn has_room(&self, reserve: u64, bytes: u64) -> bool {
        has_room(&*self.segments.disk, reserve, bytes)
    }

    fn purge(&mut self, flushed: u64, keep: Keep) -> Result<(), StorageError> {
        let last = self.index.read().last().index;
        // A log that cannot begin a segment stays in the current one.
        if self.end >= self.segments.bytes {
            self.roll()?;
        }
        let needed = {
            let mut index = self.index.write();
            index.purge(flushed.min(last.saturating_sub(keep.trailing)));
            self.shrink(&mut index, flushed, keep.bytes);
            index.first_segment().unwrap_or(self.current.number)
        };
        self.delete_before(needed);
        Ok(())
    }

    fn restart(&mut self, base: LogId) -> Result<(), StorageError> {
        self.trim().map_err(|error| StorageError::io("cut the log", error))?;
        let hard = self.index.read().hard().merged(HardState { committed: base.index, ..HardState::default() });
        let (current, end) = begin_again(&*self.segments.disk, self.current.number + 1, base, hard)?;
        self.enter(current, base.index + 1, end);
        *self.index.write() = LogIndex::new(base, hard);
        self.delete_before(self.current.number);
        Ok(())
    }
}

impl SegmentedLog {
    /// Writes a complete frame, which ends at `end`.
    fn write(&mut self, frame: &mut Frame, end: u64) -> io::Result<()> {
        let ahead = self.segments.ahead;
        // The last bytes of a device are for frames.
        let zeros = if end > self.length && has_room(&*self.segments.disk, 64 * ahead, ahead) { ahead } else { 0 };
        let (file, at) = (&self.current.file, self.end);
        match frame.followed_by(zeros, |bytes| file.write_at(at, bytes)) {
            // A quota is not in the free space of the device: the frame may have room without the zeros.
            Err(error) if zeros > 0 && is_full(&error) => {
                file.set_len(at)?;
                self.length = at;
                frame.followed_by(0, |bytes| file.write_at(at, bytes))?;
                self.length = end;
            }
            written => {
                written?;
                self.length = self.length.max(end + zeros);
            }
        }
        Ok(())
    }

    /// Removes the zeros behind the last frame, durably: only the last segment may have any.
    fn trim(&mut self) -> io::Result<()> {
        if self.length > self.end {
            self.current.file.set_len(self.end)?;
            self.current.file.sync()?;
            self.length = self.end;
        }
        Ok(())
    }

    /// Handles a failed write: removes the written bytes when the device is full.
    fn undo(&mut self, error: io::Error) -> AppendError {
        if !is_full(&error) {
            return broken("write the log", error);
        }
        self.length = self.end;
        match self.current.file.set_len(self.end).and_then(|()| self.current.file.sync()) {
            Ok(()) => AppendError::Full,
            Err(error) => broken("cut the log after a write without room", error),
        }
    }

    /// Adds a frame that has become durable at the end of the current segment.
    fn note(&mut self, frame: &Frame, length: usize) {
        let (first, count, segment) = (frame.first(), u64::from(frame.count()), self.current.clone());
        let written = FrameRef { first, count, segment, offset: self.end, length: length - FRAME };
        self.end += length as u64;
        self.index.write().append(written, frame.terms(), frame.hard);
    }

    /// The entry before `first`, and the hard state.
    fn before(&self, first: u64) -> (LogId, HardState) {
        let index = self.index.read();
        let term = index.term(first - 1).unwrap_or(index.base().term);
        (LogId { term, index: first - 1 }, index.hard())
    }

    /// Begins the next segment, which is empty.
    fn begin_next(&mut self, before: LogId, hard: HardState) -> io::Result<Arc<Segment>> {
        self.trim()?;
        begin(&*self.segments.disk, self.current.number + 1, before, hard)
    }

    /// Begins a segment; stays in the current one when that fails.
    fn roll(&mut self) -> Result<(), StorageError> {
        let first = self.index.read().last().index + 1;
        let (before, mut hard) = self.before(first);
        if planted!(VoteLostAtRoll) {
            hard = HardState::default();
        }
        match self.begin_next(before, hard) {
            Ok(segment) => self.enter(segment, first, HEADER as u64),
            Err(_) => self.remove_unentered().map_err(|error| StorageError::io_kept(REMOVE, error))?,
        }
        Ok(())
    }

    /// Appends a frame that replaces entries of earlier segments.
    fn append_in_new_segment(&mut self, frame: &mut Frame) -> Result<u64, AppendError> {
        let first = frame.first();
        let (before, hard) = self.before(first);
        let started = self.begin_next(before, hard).and_then(|segment| {
            let bytes = frame.finish(segment.salt);
            segment.file.write_at(HEADER as u64, bytes)?;
            segment.file.sync()?;
            Ok((segment, bytes.len()))
        });
        match started {
            Ok((segment, length)) => {
                self.enter(segment, first, HEADER as u64);
                self.note(frame, length);
                Ok(length as u64)
            }
            Err(error) => match self.remove_unentered() {
                Ok(()) if is_full(&error) => Err(AppendError::Full),
                Ok(()) => Err(broken("begin a log segment", error)),
                Err(error) => Err(broken(REMOVE, error)),
            },
        }
    }

    /// Removes a segment that was started and not entered: the next opening would take the current one for complete.
    fn remove_unentered(&self) -> io::Result<()> {
        let (disk, name) = (&*self.segments.disk, name(self.current.number + 1));
        match disk.remove(&path(&name)).and_then(|()| disk.sync_directory(DIRECTORY)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a segment the current one.
    fn enter(&mut self, segment: Arc<Segment>, first: u64, end: u64) {
        self.old.push((self.current.number, self.end));
        (self.current, self.first, self.end, self.length) = (segment, first, end, end);
    }

    /// Drops the entries of the oldest segments while the log has more than `bytes`.
    fn shrink(&self, index: &mut LogIndex, flushed: u64, bytes: u64) {
        let mut total = self.end + self.old.iter().map(|(_, size)| size).sum::<u64>();
        for (number, size) in &self.old {
            let last = index.last_in(*number).unwrap_or(0);
            if total <= bytes || last > flushed {
                break;
            }
            index.purge(last);
            total -= size;
        }
    }

    /// Deletes older segments; retries those that cannot be deleted at the next call.
    fn delete_before(&mut self, number: u64) {
        let disk = &self.segments.disk;
        self.old.retain(|(old, _)| {
            *old >= number
                || disk.remove(&path(&name(*old))).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
    }
}

impl ReadLog for LogReader {
    fn base(&self) -> LogId {
        self.0.read().base()
    }

    fn last(&self) -> LogId {
        self.0.read().last()
    }

    fn hard_state(&self) -> HardState {
        self.0.read().hard()
    }

    fn term(&self, index: u64) -> Option<u64> {
        self.0.read().term(index)
    }

    fn terms(&self) -> (LogId, Vec<(u64, u64)>) {
        let index = self.0.read();
        (index.base(), index.terms())
    }

    fn first_of_last(&self, bytes: u64) -> u64 {
        self.0.read().first_of_last(bytes)
    }

    fn entries(&self, range: Range<u64>, bytes: usize) -> Result<Vec<Entry>, StorageError> {
        let frames = {
            let index = self.0.read();
            if range.start <= index.base().index || range.end > index.last().index + 1 {
                return Err(StorageError::corrupt(format!("the log has no entries {} to {}", range.start, range.end)));
            }
            index.frames(&range)
        };
        let (mut entries, mut size) = (Vec::new(), 0);
        for frame in frames {
            for entry in read(&frame)?.into_iter().take(frame.count as usize) {
                if !range.contains(&entry.id.index) {
                    continue;
                }
                if size > bytes {
                    return Ok(entries);
                }
                size += entry.payload.len();
                entries.push(entry);
            }
        }
        Ok(entries)
    }
}

/// Reads a frame again.
fn read(frame: &FrameRef) -> Result<Vec<Entry>, StorageError> {
    let mut bytes = vec![0; FRAME + frame.length];
    frame.segment.file.read_at(frame.offset, &mut bytes).map_err(|error| StorageError::io("read the log", error))?;
    let mut bytes = Bytes::from(bytes);
    let (salt, head) = (frame.segment.salt, bytes.split_to(FRAME));
    match FrameHead::decode(salt, &head).filter(|head| head.first == frame.first && head.fits(salt, &bytes)) {
        Some(head) => head.entries(bytes),
        None => Err(StorageError::corrupt(format!("the log is damaged at entry {}", frame.first))),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn broken(action: &'static str, error: io::Error) -> AppendError {
    AppendError::Broken(StorageError::io_kept(action, error))
}

#[cfg(test)]
mod tests;
