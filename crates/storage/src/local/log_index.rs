//! Where the entries of a log are: in memory, shared by the thread that appends and those that read.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use super::{
    disk::DiskFile,
    entry::{HardState, LogId},
};

/// A segment that frames refer to. A reader keeps its file open after it was deleted.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Its place in the order of the segments.
    pub(crate) number: u64,
    pub(crate) salt: u32,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// The place of a frame, and those of its entries that no later frame has replaced.
#[derive(Debug, Clone)]
pub(crate) struct FrameRef {
    /// Index of the first entry.
    pub(crate) first: u64,
    /// Number of entries that are current.
    pub(crate) count: u64,
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    /// Length of the payload.
    pub(crate) length: usize,
}

/// The entries of a log.
#[derive(Debug)]
pub(crate) struct LogIndex {
    base: LogId,
    last: u64,
    frames: VecDeque<FrameRef>,
    /// The index from which on entries have a term, after the base.
    terms: VecDeque<(u64, u64)>,
    hard: HardState,
}

impl LogIndex {
    /// A log without entries after `base`.
    pub(crate) fn new(base: LogId, hard: HardState) -> Self {
        Self { base, last: base.index, frames: VecDeque::new(), terms: VecDeque::new(), hard }
    }

    pub(crate) fn base(&self) -> LogId {
        self.base
    }

    pub(crate) fn last(&self) -> LogId {
        let term = self.terms.back().map_or(self.base.term, |(_, term)| *term);
        LogId { term, index: self.last }
    }

    pub(crate) fn hard(&self) -> HardState {
        HardState { committed: self.hard.committed.min(self.last), ..self.hard }
    }

    /// Adds what a header or a frame says about the hard state.
    pub(crate) fn merge_hard(&mut self, hard: HardState) {
        self.hard = self.hard.merged(hard);
    }

    /// The term of an entry or of the base.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last {
            return None;
        }
        let after = self.terms.partition_point(|(from, _)| *from <= index);
        Some(after.checked_sub(1).map_or(self.base.term, |run| self.terms[run].1))
    }

    /// From which index on entries have which term, after the base.
    pub(crate) fn terms(&self) -> Vec<(u64, u64)> {
        self.terms.iter().copied().collect()
    }

    /// The first entry of the last frames that have this number of bytes, or of all.
    pub(crate) fn first_of_last(&self, bytes: u64) -> u64 {
        let mut sum = 0;
        let reaches = |frame: &&FrameRef| {
            sum += frame.length as u64;
            sum >= bytes
        };
        // A purge may have left the end of a frame.
        self.frames.iter().rev().find(reaches).map_or(0, |frame| frame.first).max(self.base.index + 1)
    }

    /// Whether a frame with `count` entries from `first` on can follow: without a gap, and without a change of what is
    /// committed. A frame without entries has the next index.
    pub(crate) fn admits(&self, first: u64, count: u64) -> bool {
        match count {
            0 => first == self.last + 1,
            _ => first <= self.last + 1 && first > self.base.index && first > self.hard().committed,
        }
    }

    /// Adds a frame that [`admits`](Self::admits) has admitted. `terms` are those of its entries.
    pub(crate) fn append(&mut self, frame: FrameRef, terms: &[(u64, u64)], hard: HardState) {
        self.merge_hard(hard);
        if frame.count == 0 {
            return;
        }
        self.truncate(frame.first);
        for (index, term) in terms {
            if self.last().term != *term {
                self.terms.push_back((*index, *term));
            }
        }
        self.last = frame.first + frame.count - 1;
        self.frames.push_back(frame);
    }

    /// Drops the entries from `first` on.
    pub(crate) fn truncate(&mut self, first: u64) {
        if first > self.last {
            return;
        }
        while let Some(frame) = self.frames.back_mut() {
            if frame.first < first {
                frame.count = frame.count.min(first - frame.first);
                break;
            }
            self.frames.pop_back();
        }
        while self.terms.pop_back_if(|(from, _)| *from >= first).is_some() {}
        self.last = first - 1;
    }

    /// Drops the entries up to `index`, which becomes the base.
    pub(crate) fn purge(&mut self, index: u64) {
        let Some(term) = self.term(index) else { return };
        while self.frames.pop_front_if(|frame| frame.first + frame.count <= index + 1).is_some() {}
        while self.terms.pop_front_if(|(from, _)| *from <= index).is_some() {}
        self.base = LogId { term, index };
    }

    /// The frames with entries in a range.
    pub(crate) fn frames(&self, range: &Range<u64>) -> Vec<FrameRef> {
        let from = self.frames.partition_point(|frame| frame.first + frame.count <= range.start);
        self.frames.range(from..).take_while(|frame| frame.first < range.end).cloned().collect()
    }

    /// The first segment that has current entries.
    pub(crate) fn first_segment(&self) -> Option<u64> {
        // A later frame can be in an earlier segment only if it is not current.
        self.frames.front().map(|frame| frame.segment.number)
    }

    /// The last current entry of a segment.
    pub(crate) fn last_in(&self, segment: u64) -> Option<u64> {
        let frame = self.frames.iter().take_while(|frame| frame.segment.number <= segment).last()?;
        Some(frame.first + frame.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::{disk::Disk, sim_disk::SimDisk};

    fn frame(first: u64, count: u64, segment: u64) -> FrameRef {
        let file = SimDisk::new(1).open("f", true).unwrap().unwrap();
        let segment = Arc::new(Segment { number: segment, salt: 0, file });
        FrameRef { first, count, segment, offset: 0, length: 0 }
    }

    fn terms(index: &LogIndex, range: Range<u64>) -> Vec<Option<u64>> {
        range.map(|at| index.term(at)).collect()
    }

    #[test]
    fn terms_follow_appends_truncations_and_purges() {
        let mut index = LogIndex::new(LogId { term: 1, index: 10 }, HardState::default());
        index.append(frame(11, 3, 1), &[(11, 1), (12, 2)], HardState::default());
        index.append(frame(14, 2, 1), &[(14, 2)], HardState::default());
        let known = [None, Some(1), Some(1), Some(2), Some(2), Some(2), Some(2), None];
        assert_eq!(terms(&index, 9..17), known);
        // Replaces 13 to 15, of two frames.
        index.append(frame(13, 1, 2), &[(13, 4)], HardState::default());
        assert_eq!(terms(&index, 9..17), [None, Some(1), Some(1), Some(2), Some(4), None, None, None]);
        let spans: Vec<_> = index.frames(&(0..99)).iter().map(|frame| (frame.first, frame.count)).collect();
        assert_eq!(spans, [(11, 2), (13, 1)]);
        assert_eq!((index.last_in(1), index.first_segment()), (Some(12), Some(1)));
        index.purge(12);
        assert_eq!((index.base(), index.first_segment()), (LogId { term: 2, index: 12 }, Some(2)));
        assert_eq!(terms(&index, 11..15), [None, Some(2), Some(4), None]);
        index.purge(13);
        assert_eq!(
            (index.base(), index.last(), index.first_segment()),
            (index.last(), LogId { term: 4, index: 13 }, None)
        );
        index.append(frame(14, 1, 2), &[(14, 4)], HardState::default());
        assert_eq!(terms(&index, 12..16), [None, Some(4), Some(4), None]);
    }

    #[test]
    fn the_last_entries_are_those_of_whole_frames() {
        let mut index = LogIndex::new(LogId { term: 1, index: 10 }, HardState::default());
        for first in [11, 13, 15] {
            index.append(FrameRef { length: 100, ..frame(first, 2, 1) }, &[(first, 1)], HardState::default());
        }
        assert_eq!(
            [1, 100, 101, 200, 201, 300, 301].map(|bytes| index.first_of_last(bytes)),
            [15, 15, 13, 13, 11, 11, 11]
        );
        index.purge(11);
        assert_eq!(index.first_of_last(300), 12);
    }

    #[test]
    fn what_is_committed_is_never_replaced() {
        let mut index = LogIndex::new(LogId { term: 1, index: 10 }, HardState::default());
        let hard = HardState { committed: 12, ..HardState::default() };
        index.append(frame(11, 3, 1), &[(11, 1)], hard);
        for (first, count, admitted) in
            [(15, 1, false), (14, 1, true), (13, 1, true), (12, 1, false), (14, 0, true), (13, 0, false)]
        {
            assert_eq!(index.admits(first, count), admitted, "{first} {count}");
        }
    }
}
