//! Tests of the segmented log on a simulated disk.

use super::super::{
    entry::{Kind, RaftId, Vote},
    log_suite::{LogKit, log_suite},
    segment::Head,
    sim_disk::{Fault, SimDisk},
};
use super::*;

/// `AHEAD` zeros are written behind frames.
struct Kit<const AHEAD: u64>(SimDisk);

impl<const AHEAD: u64> Kit<AHEAD> {
    /// The only segment.
    fn segment(&self) -> String {
        let segments = list(&self.0).unwrap();
        assert_eq!(segments.len(), 1);
        path(&segments[0].1)
    }
}

impl<const AHEAD: u64> LogKit for Kit<AHEAD> {
    type Log = SegmentedLog;

    fn new(seed: u64) -> Self {
        Kit(SimDisk::new(seed))
    }

    fn medium(&self) -> Segments {
        Segments { disk: Arc::new(self.0.clone()), bytes: 400, ahead: AHEAD }
    }

    fn copy(&self) -> Self {
        Kit(self.0.copy())
    }

    fn lose_power(&self) {
        self.0.lose_power();
    }

    fn end_process(&self) {
        self.0.heal();
    }

    fn fail_next_sync(&self) {
        // The write comes first.
        self.0.fail_at(self.0.operations() + 1, Fault::Error);
    }

    fn fail_after(&self, operations: usize, crash: bool) {
        self.0.fail_at(self.0.operations() + operations, if crash { Fault::Crash } else { Fault::Error });
    }

    fn fill_up(&self) {
        self.0.fail_at(self.0.operations(), Fault::FullOnce);
    }

    fn len(&self) -> usize {
        end(&self.0.content(&self.segment()))
    }

    fn size(&self) -> usize {
        let segments = list(&self.0).unwrap();
        segments.iter().map(|(_, name)| end(&self.0.content(&path(name)))).sum()
    }

    fn truncate(&self, len: usize) {
        let segment = self.segment();
        let mut bytes = self.0.content(&segment);
        match AHEAD {
            0 => bytes.truncate(len),
            _ => bytes[len..].fill(0),
        }
        self.0.set_content(&segment, bytes);
    }

    fn flip_bit(&self, at: usize) {
        let segment = self.segment();
        let mut bytes = self.0.content(&segment);
        bytes[at] ^= 1;
        self.0.set_content(&segment, bytes);
    }
}

log_suite!(segmented, Kit<0>);
log_suite!(segmented_over_zeros, Kit<300>);

/// Where the frames of a segment end.
fn end(segment: &[u8]) -> usize {
    let Some(head) = segment.first_chunk().and_then(Head::decode) else { return segment.len() };
    let mut end = HEADER;
    let frame = |at: usize| segment.get(at..at + FRAME).and_then(|bytes| FrameHead::decode(head.salt, bytes));
    while let Some(frame) = frame(end) {
        end += FRAME + frame.payload();
    }
    end
}

fn log(disk: &SimDisk, bytes: u64) -> SegmentedLog {
    log_over_zeros(disk, bytes, 0)
}

fn log_over_zeros(disk: &SimDisk, bytes: u64, ahead: u64) -> SegmentedLog {
    SegmentedLog::open(Segments { disk: Arc::new(disk.clone()), bytes, ahead }, FOUNDING).unwrap()
}

fn append(log: &mut SegmentedLog, first: u64, term: u64) {
    let mut frame = Frame::new();
    frame.begin(first, HardState::default());
    frame.push(term, &[Kind::Batch as u8; 41]);
    log.append(&mut frame).unwrap();
}

fn terms(log: &SegmentedLog) -> Vec<u64> {
    let reader = log.reader();
    (FOUNDING.index + 1..=reader.last().index).map(|index| reader.term(index).unwrap()).collect()
}

const ALL: Keep = Keep { trailing: u64::MAX, bytes: u64::MAX };

#[test]
fn a_segment_that_could_not_be_begun_hides_no_entry() {
    for (fault, step) in [Fault::Error, Fault::FullOnce].into_iter().flat_map(|f| (0..6).map(move |s| (f, s))) {
        let disk = SimDisk::new(3);
        let mut started = log(&disk, 1);
        append(&mut started, 2, 1);
        disk.fail_at(disk.operations() + step, fault);
        if started.purge(2, ALL).is_err() {
            continue;
        }
        disk.heal();
        append(&mut started, 3, 1);
        drop(started);
        disk.lose_power();
        assert_eq!(terms(&log(&disk, 1)), [1, 1], "{fault:?} at {step}");
    }
}

#[test]
fn a_deleted_segment_that_reappears_hides_no_vote() {
    let disk = SimDisk::new(3);
    let mut started = log(&disk, 1);
    append(&mut started, 2, 1);
    started.purge(2, ALL).unwrap();
    let mut frame = Frame::new();
    let vote = Vote { term: 5, candidate: RaftId(6) };
    frame.begin(3, HardState { vote, committed: 3 });
    frame.push(1, &[Kind::Batch as u8; 41]);
    started.append(&mut frame).unwrap();
    started.purge(2, ALL).unwrap();
    drop(started);
    // Of the deletions of the first two segments, only the later one has become durable.
    disk.remove(&path(&list(&disk).unwrap()[1].1)).unwrap();
    let last = LogId { term: 1, index: 3 };
    let kept = SegmentedLog::open(Segments { disk: Arc::new(disk.clone()), bytes: 1, ahead: 0 }, last).unwrap();
    assert_eq!((kept.reader().last(), kept.reader().hard_state().vote), (last, vote));
}

#[test]
fn a_replacement_of_earlier_segments_outlives_them() {
    let disk = SimDisk::new(3);
    let mut started = log(&disk, 1);
    for first in 2..6 {
        append(&mut started, first, 1);
        started.purge(2, ALL).unwrap();
    }
    append(&mut started, 3, 2);
    assert_eq!(terms(&started), [1, 2]);
    assert_eq!(terms(&log(&disk, 1)), [1, 2]);
    // The first segment has only the entry 2.
    started.purge(2, Keep::NOTHING).unwrap();
    drop(started);
    let kept =
        SegmentedLog::open(Segments { disk: Arc::new(disk.clone()), bytes: 1, ahead: 0 }, LogId { term: 1, index: 2 })
            .unwrap();
    assert_eq!(
        (kept.reader().base(), kept.reader().last()),
        (LogId { term: 1, index: 2 }, LogId { term: 2, index: 3 })
    );
}

#[test]
fn frames_are_written_over_zeros() {
    let disk = SimDisk::new(3);
    let mut started = log_over_zeros(&disk, 1 << 20, 1000);
    let content = || disk.content(&path(&list(&disk).unwrap()[0].1));
    let lengths: Vec<usize> = (2..30)
        .map(|first| {
            append(&mut started, first, 1);
            let content = content();
            assert!(content[end(&content)..].iter().all(|byte| *byte == 0));
            content.len()
        })
        .collect();
    let extended = lengths.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!((1..6).contains(&extended), "{lengths:?}");
    drop(started);
    disk.lose_power();
    assert_eq!(terms(&log(&disk, 1 << 20)), [1; 28]);
    assert_eq!(content().len(), end(&content()), "an opening removes them");
}

#[test]
fn only_the_last_segment_ends_in_zeros() {
    for (fault, step) in [Fault::Error, Fault::FullOnce].into_iter().flat_map(|f| (0..8).map(move |s| (f, s))) {
        let disk = SimDisk::new(3);
        let mut started = log_over_zeros(&disk, 1, 300);
        append(&mut started, 2, 1);
        disk.fail_at(disk.operations() + step, fault);
        if started.purge(2, ALL).is_err() {
            continue;
        }
        disk.heal();
        append(&mut started, 3, 1);
        // A replacement of an earlier segment begins one as well.
        append(&mut started, 2, 2);
        append(&mut started, 3, 2);
        drop(started);
        let segments = list(&disk).unwrap();
        for (_, name) in &segments[..segments.len() - 1] {
            let content = disk.content(&path(name));
            assert_eq!(content.len(), end(&content), "{fault:?} at {step}: {name}");
        }
        disk.lose_power();
        assert_eq!(terms(&log_over_zeros(&disk, 1, 300)), [2, 2], "{fault:?} at {step}");
    }
}
