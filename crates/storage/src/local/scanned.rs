//! What the segments of a log hold, read when the log is opened.

use std::sync::Arc;

use super::{
    disk::Disk,
    log_index::{FrameRef, LogIndex, Segment},
    scan::SegmentReader,
    segment::{FrameHead, HEADER, Head},
    segment_files::{self as files},
};
use crate::StorageError;

/// What the segments of a log hold.
pub(crate) struct Scanned {
    pub(crate) index: LogIndex,
    pub(crate) current: Arc<Segment>,
    /// Index of the first entry of the current segment.
    pub(crate) first: u64,
    /// Where the last frame, or else the header, begins and ends in the current segment.
    pub(crate) last_frame: u64,
    pub(crate) end: u64,
    /// Earlier segments, and their sizes in bytes.
    pub(crate) old: Vec<(u64, u64)>,
    /// A segment that was not started.
    unbegun: Option<String>,
}

impl Scanned {
    /// Reads all segments; `None` when there is none.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>, StorageError> {
        let segments = files::list(disk)?;
        let mut found: Option<Self> = None;
        for (place, (number, name)) in segments.iter().enumerate() {
            let file = files::open(disk, name)?;
            let is_last = place + 1 == segments.len();
            let mut reader = SegmentReader { name: name.clone(), file, is_last, offset: 0 };
            let Some(head) = reader.head(Head::decode)? else {
                if let Some(found) = &mut found {
                    found.unbegun = Some(name.clone());
                }
                break;
            };
            let segment = Arc::new(Segment { number: *number, salt: head.salt, file: reader.file.clone() });
            let mut frame = reader.frame(head.salt)?;
            if let Some(found) = &mut found
                && frame.is_none()
                && found.is_replaced_by(&head)
            {
                // Its first frame was not written.
                if !is_last {
                    return Err(reader.damaged(HEADER as u64));
                }
                found.unbegun = Some(name.clone());
                break;
            }
            let mut entered = Self::enter(found.take(), &head, segment, &reader)?;
            while let Some((frame_head, payload)) = frame {
                entered.frame(&head, &frame_head, &payload, &reader)?;
                frame = reader.frame(head.salt)?;
            }
            found = Some(entered);
        }
        Ok(found)
    }

    /// Whether the segment with this header replaces entries. One behind a gap does not: the state has what is missing,
    /// and its header may have the only copy of the vote.
    fn is_replaced_by(&self, head: &Head) -> bool {
        head.before() != self.index.last() && head.first <= self.index.last().index + 1
    }

    /// Enters a segment, behind what the segments before it hold.
    fn enter(
        before: Option<Self>,
        head: &Head,
        current: Arc<Segment>,
        reader: &SegmentReader,
    ) -> Result<Self, StorageError> {
        let (mut index, mut old) = (LogIndex::new(head.before(), head.hard), Vec::new());
        if let Some(before) = before {
            old = before.old;
            old.push((before.current.number, before.end));
            let follows = before.index.term(head.before().index) == Some(head.before_term);
            let hard = before.index.hard();
            if follows && hard.committed >= head.first {
                return Err(reader.damaged(0));
            }
            index.merge_hard(hard);
            if follows {
                index = before.index;
                index.truncate(head.first);
                index.merge_hard(head.hard);
            }
        }
        Ok(Self { index, current, first: head.first, last_frame: 0, end: HEADER as u64, old, unbegun: None })
    }

    /// Adds the next frame of the current segment.
    fn frame(
        &mut self,
        head: &Head,
        frame: &FrameHead,
        payload: &[u8],
        reader: &SegmentReader,
    ) -> Result<(), StorageError> {
        let (first, count) = (frame.first, u64::from(frame.count));
        let is_admitted = first >= head.first && self.index.admits(first, count);
        let terms = frame.terms(payload).filter(|_| is_admitted).ok_or_else(|| reader.damaged(self.end))?;
        let (segment, offset, length) = (self.current.clone(), self.end, payload.len());
        if planted!(TruncationLost) && count > 0 && first <= self.index.last().index {
            (self.last_frame, self.end) = (self.end, reader.offset);
            return Ok(());
        }
        self.index.append(FrameRef { first, count, segment, offset, length }, &terms, frame.hard);
        (self.last_frame, self.end) = (self.end, reader.offset);
        Ok(())
    }

    /// Makes durable what was read: the process that wrote the last frame may have ended before its sync, or after a
    /// failed one, which a second sync would not repeat. Removes what was left out.
    pub(crate) fn settle(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        let settle = || {
            let file = &self.current.file;
            if file.len()? > self.end {
                file.set_len(self.end)?;
            }
            let mut bytes = vec![0; (self.end - self.last_frame) as usize];
            file.read_at(self.last_frame, &mut bytes)?;
            file.write_at(self.last_frame, &bytes)?;
            file.sync()?;
            if let Some(name) = &self.unbegun {
                disk.remove(&files::path(name))?;
            }
            disk.sync_directory(files::DIRECTORY)
        };
        settle().map_err(|error| StorageError::io("settle the log", error))
    }
}
