//! The tests that every [`Log`] passes.

use super::{
    entry::{Entry, FOUNDING, HardState, Kind, LogId, RaftId, Vote},
    log::{AppendError, Keep, Log, ReadLog},
    segment::Frame,
};
use crate::StorageError;

/// A log on a medium with injectable faults.
pub(crate) trait LogKit: Sized {
    type Log: Log;
    /// Creates an empty medium.
    fn new(seed: u64) -> Self;
    /// Returns the medium, for a log.
    fn medium(&self) -> <Self::Log as Log>::Medium;
    /// Returns another medium with the same content.
    fn copy(&self) -> Self;
    /// Drops a random part of the data that was not synced, and ends faults.
    fn lose_power(&self);
    /// Ends faults and keeps the data that was not synced.
    fn end_process(&self);
    /// Makes the sync of the next append fail.
    fn fail_next_sync(&self);
    /// Makes an operation fail, after this many: and all later ones, or only this.
    fn fail_after(&self, operations: usize, crash: bool);
    /// Makes the next append fail for lack of space.
    fn fill_up(&self);
    /// Length in bytes of a log that was not purged.
    fn len(&self) -> usize;
    /// Length in bytes of any log.
    fn size(&self) -> usize;
    /// Truncates the log.
    fn truncate(&self, len: usize);
    /// Flips a bit of the byte at this offset.
    fn flip_bit(&self, at: usize);
}

/// Defines one test per case for a log: `log_suite!(name, TypeOfKit);`
macro_rules! log_suite {
    ($name:ident, $kit:ty) => {
        mod $name {
            use super::*;
            $crate::local::log_suite::log_suite!(@cases $kit;
                reads_what_was_appended_in_order, goes_on_behind_what_is_there, a_frame_that_starts_again_leaves_nothing,
                a_torn_tail_is_left_out, damage_before_the_tail_is_an_error, a_failed_sync_breaks_the_log,
                an_append_without_room_leaves_the_log_as_before, a_frame_without_room_is_appended_again,
                a_purge_keeps_the_ids_and_the_vote,
                a_purge_keeps_trailing_entries_within_bounds, a_frame_replaces_the_entries_from_its_first_on,
                a_torn_replacement_replaces_nothing, a_frame_without_entries_stores_the_vote,
                gaps_and_changes_of_what_is_committed_are_refused, a_restart_begins_after_its_base,
                a_log_behind_the_state_starts_again, missing_entries_are_an_error,
                what_an_opening_reads_outlives_a_power_loss);
            #[test]
            fn agrees_with_a_model_under_faults() {
                $crate::local::log_model::agrees_with_a_model_under_faults::<$kit>();
            }
        }
    };
    (@cases $kit:ty; $($case:ident),*) => {$(
        #[test]
        fn $case() {
            $crate::local::log_suite::$case::<$kit>();
        }
    )*};
}
pub(crate) use log_suite;

pub(super) const KEEP_ALL: Keep = Keep { trailing: u64::MAX, bytes: u64::MAX };

fn body(id: LogId) -> Vec<u8> {
    format!("{} {}", id.term, id.index).repeat(10).into_bytes()
}

fn entry(id: LogId) -> Entry {
    Entry::new(id, Kind::Batch, &body(id))
}

pub(super) fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

pub(super) fn hard(term: u64, candidate: u64, committed: u64) -> HardState {
    HardState { vote: Vote { term, candidate: RaftId(candidate) }, committed }
}

/// Appends entries of these terms as one frame, from `first` on.
pub(super) fn append_with<L: Log>(log: &mut L, first: u64, terms: &[u64], hard: HardState) -> Result<u64, AppendError> {
    let mut frame = Frame::new();
    frame.begin(first, hard);
    for (index, term) in (first..).zip(terms) {
        assert_eq!(frame.push(*term, &entry(id(*term, index)).payload), id(*term, index));
    }
    log.append(&mut frame)
}

fn append<L: Log>(log: &mut L, first: u64, terms: &[u64]) -> Result<u64, AppendError> {
    append_with(log, first, terms, HardState::default())
}

/// The terms of the entries of a log. Asserts that each entry has its own body and term.
pub(super) fn terms(log: &impl Log) -> Vec<u64> {
    let reader = log.reader();
    let range = reader.base().index + 1..reader.last().index + 1;
    let entries = if range.is_empty() { vec![] } else { reader.entries(range.clone(), usize::MAX).unwrap() };
    assert_eq!(entries.len() as u64, range.end - range.start);
    for (index, found) in range.zip(&entries) {
        assert_eq!((found.id.index, found), (index, &entry(found.id)));
        assert_eq!(reader.term(index), Some(found.id.term));
    }
    entries.iter().map(|entry| entry.id.term).collect()
}

pub(super) fn open<K: LogKit>(kit: &K, applied: LogId) -> Result<K::Log, StorageError> {
    K::Log::open(kit.medium(), applied)
}

/// The terms of the entries of a copy of the log that is opened again.
fn reopened<K: LogKit>(kit: &K) -> Result<Vec<u64>, StorageError> {
    open(&kit.copy(), FOUNDING).map(|log| terms(&log))
}

/// A log with the entries 2 to 4 in two frames.
fn three<K: LogKit>() -> (K, K::Log) {
    let kit = K::new(3);
    let mut log = open(&kit, FOUNDING).unwrap();
    assert_eq!((log.reader().base(), log.reader().last()), (FOUNDING, FOUNDING));
    assert_eq!(log.reader().hard_state(), HardState::lone(FOUNDING));
    append(&mut log, 2, &[1, 1]).unwrap();
    append(&mut log, 4, &[1]).unwrap();
    (kit, log)
}

pub(crate) fn reads_what_was_appended_in_order<K: LogKit>() {
    let (kit, log) = three::<K>();
    assert_eq!(terms(&log), [1, 1, 1]);
    drop(log);
    kit.lose_power();
    let log = open(&kit, FOUNDING).unwrap();
    assert_eq!(terms(&log), [1, 1, 1]);
    let reader = log.reader();
    assert_eq!((reader.last(), reader.term(0), reader.term(5)), (id(1, 4), None, None));
    let indexes = |range, bytes| -> Vec<u64> {
        reader.entries(range, bytes).unwrap().iter().map(|entry| entry.id.index).collect()
    };
    assert_eq!(indexes(3..5, usize::MAX), [3, 4]);
    assert_eq!(indexes(3..4, usize::MAX), [3]);
    assert_eq!(indexes(2..5, 0), [2], "at least one");
    assert_eq!(indexes(2..5, 40), [2, 3]);
    for range in [1..3, 4..6] {
        assert!(matches!(reader.entries(range, 1), Err(StorageError::Corrupt(_))));
    }
}

pub(crate) fn goes_on_behind_what_is_there<K: LogKit>() {
    let (kit, log) = three::<K>();
    drop(log);
    for applied in [FOUNDING, id(1, 3), id(1, 4)] {
        let copy = kit.copy();
        let mut log = open(&copy, applied).unwrap();
        append(&mut log, 5, &[2]).unwrap();
        drop(log);
        copy.lose_power();
        assert_eq!(reopened(&copy).unwrap(), [1, 1, 1, 2]);
    }
}

pub(crate) fn a_frame_that_starts_again_leaves_nothing<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    let mut frame = Frame::new();
    frame.begin(5, HardState::default());
    frame.push(7, &entry(id(7, 5)).payload);
    frame.begin(5, HardState::default());
    frame.push(2, &entry(id(2, 5)).payload);
    log.append(&mut frame).unwrap();
    assert_eq!(terms(&log), [1, 1, 1, 2]);
    assert_eq!(reopened(&kit).unwrap(), [1, 1, 1, 2]);
}

pub(crate) fn a_torn_tail_is_left_out<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    let start = kit.len();
    append(&mut log, 5, &[1, 1]).unwrap();
    let end = kit.len();
    assert!(end > start + 80);
    let check = |torn: K, what: String| {
        let mut log = open(&torn, FOUNDING).unwrap();
        assert_eq!(terms(&log), [1, 1, 1], "{what}");
        append(&mut log, 5, &[2]).unwrap();
        drop(log);
        torn.lose_power();
        assert_eq!(reopened(&torn).unwrap(), [1, 1, 1, 2], "{what}");
    };
    for cut in start..end {
        let torn = kit.copy();
        torn.truncate(cut);
        check(torn, format!("cut at {cut}"));
    }
    for at in (start..end).step_by(3) {
        let torn = kit.copy();
        torn.flip_bit(at);
        check(torn, format!("changed at {at}"));
    }
    assert_eq!(reopened(&kit).unwrap(), [1, 1, 1, 1, 1]);
}

pub(crate) fn damage_before_the_tail_is_an_error<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    let end = kit.len();
    append(&mut log, 5, &[1]).unwrap();
    for at in 0..end {
        let damaged = kit.copy();
        damaged.flip_bit(at);
        assert!(matches!(reopened(&damaged), Err(StorageError::Corrupt(_))), "changed at {at}");
    }
}

pub(crate) fn a_failed_sync_breaks_the_log<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    kit.fail_next_sync();
    assert!(matches!(append(&mut log, 5, &[1, 1]), Err(AppendError::Broken(_))));
    assert_eq!(log.reader().last(), id(1, 4), "what is not durable is not read");
    drop(log);
    kit.lose_power();
    // The whole frame may be present.
    let found = reopened(&kit).unwrap();
    assert!(found == [1, 1, 1] || found == [1, 1, 1, 1, 1], "{found:?}");
}

pub(crate) fn an_append_without_room_leaves_the_log_as_before<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    kit.fill_up();
    assert!(matches!(append(&mut log, 5, &[9]), Err(AppendError::Full)));
    assert_eq!(terms(&log), [1, 1, 1]);
    assert_eq!(reopened(&kit).unwrap(), [1, 1, 1]);
    append(&mut log, 5, &[2]).unwrap();
    drop(log);
    kit.lose_power();
    assert_eq!(reopened(&kit).unwrap(), [1, 1, 1, 2]);
}

pub(crate) fn a_frame_without_room_is_appended_again<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    for index in 5..12 {
        let mut frame = Frame::new();
        frame.begin(index, HardState::default());
        frame.push(2, &entry(id(2, index)).payload);
        kit.fill_up();
        if matches!(log.append(&mut frame), Err(AppendError::Full)) {
            log.append(&mut frame).unwrap();
        }
    }
    drop(log);
    kit.lose_power();
    assert_eq!(reopened(&kit).unwrap(), [1, 1, 1, 2, 2, 2, 2, 2, 2, 2]);
}

pub(crate) fn a_purge_keeps_the_ids_and_the_vote<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    append_with(&mut log, 5, &[2], hard(3, 7, 4)).unwrap();
    log.purge(5, Keep::NOTHING).unwrap();
    log.purge(5, Keep::NOTHING).unwrap();
    assert_eq!((log.reader().base(), log.reader().last()), (id(2, 5), id(2, 5)));
    drop(log);
    kit.lose_power();
    let mut log = open(&kit, id(2, 5)).unwrap();
    assert_eq!((log.reader().last(), log.reader().hard_state()), (id(2, 5), hard(3, 7, 4)));
    append(&mut log, 6, &[3]).unwrap();
    drop(log);
    kit.lose_power();
    let log = open(&kit, id(2, 5)).unwrap();
    assert_eq!((log.reader().last(), log.reader().term(5)), (id(3, 6), Some(2)));
}

pub(crate) fn a_purge_keeps_trailing_entries_within_bounds<K: LogKit>() {
    for (keep, flushed, bounds) in [
        (Keep { trailing: 10, bytes: u64::MAX }, 101, 91..=91),
        (Keep { trailing: 10, bytes: u64::MAX }, 50, 50..=50),
        (Keep { trailing: 1_000, bytes: u64::MAX }, 101, 1..=1),
        (Keep { trailing: 1_000, bytes: 1_000 }, 101, 60..=100),
        (Keep { trailing: 1_000, bytes: 1_000 }, 20, 12..=20),
        (Keep::FOR_FOLLOWERS, 101, 1..=1),
        (Keep::NOTHING, 101, 101..=101),
    ] {
        let kit = K::new(3);
        let mut log = open(&kit, FOUNDING).unwrap();
        for first in 2..=101 {
            append(&mut log, first, &[1]).unwrap();
            log.purge(1, KEEP_ALL).unwrap();
        }
        let before = kit.size();
        log.purge(flushed, keep).unwrap();
        let base = log.reader().base().index;
        assert!(bounds.contains(&base), "{keep:?}, {flushed} flushed: {base}");
        assert_eq!(log.reader().last().index, 101);
        assert!(base == 1 || kit.size() < before, "{keep:?}, {flushed} flushed");
        drop(log);
        kit.lose_power();
        let log = open(&kit, id(1, flushed)).unwrap();
        assert!(log.reader().base().index <= base && log.reader().last().index == 101);
        assert_eq!(terms(&log).len() as u64, 101 - log.reader().base().index);
    }
}

pub(crate) fn a_frame_replaces_the_entries_from_its_first_on<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    append(&mut log, 5, &[1, 1]).unwrap();
    append(&mut log, 3, &[2]).unwrap();
    assert_eq!((terms(&log), log.reader().last()), (vec![1, 2], id(2, 3)));
    assert_eq!(reopened(&kit).unwrap(), [1, 2]);
    append(&mut log, 4, &[3, 3]).unwrap();
    append(&mut log, 2, &[4]).unwrap();
    append(&mut log, 3, &[4]).unwrap();
    assert_eq!(terms(&log), [4, 4]);
    drop(log);
    kit.lose_power();
    assert_eq!(reopened(&kit).unwrap(), [4, 4]);
}

pub(crate) fn a_torn_replacement_replaces_nothing<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    let start = kit.len();
    append_with(&mut log, 3, &[2], hard(2, 5, 2)).unwrap();
    for at in start..kit.len() {
        let torn = kit.copy();
        torn.flip_bit(at);
        let log = open(&torn, FOUNDING).unwrap();
        assert_eq!(terms(&log), [1, 1, 1], "changed at {at}");
        assert_eq!(log.reader().hard_state(), HardState::lone(FOUNDING));
    }
}

pub(crate) fn a_frame_without_entries_stores_the_vote<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    append_with(&mut log, 5, &[], hard(2, 0, 3)).unwrap();
    append_with(&mut log, 5, &[], hard(2, 6, 3)).unwrap();
    let start = kit.len();
    append_with(&mut log, 5, &[], hard(9, 9, 4)).unwrap();
    assert_eq!((terms(&log), log.reader().hard_state()), (vec![1, 1, 1], hard(9, 9, 4)));
    let torn = kit.copy();
    torn.truncate(start + 9);
    assert_eq!(open(&torn, FOUNDING).unwrap().reader().hard_state(), hard(2, 6, 3));
    append(&mut log, 5, &[9]).unwrap();
    drop(log);
    kit.lose_power();
    let log = open(&kit, FOUNDING).unwrap();
    assert_eq!((terms(&log), log.reader().hard_state()), (vec![1, 1, 1, 9], hard(9, 9, 4)));
}

pub(crate) fn gaps_and_changes_of_what_is_committed_are_refused<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    append_with(&mut log, 5, &[], hard(1, 1, 3)).unwrap();
    let size = kit.size();
    for (first, terms) in [(6, &[1][..]), (3, &[2]), (1, &[2]), (6, &[]), (4, &[])] {
        assert!(matches!(append(&mut log, first, terms), Err(AppendError::Broken(_))), "{first}");
    }
    assert_eq!((terms(&log), kit.size()), (vec![1, 1, 1], size));
    append(&mut log, 4, &[2]).unwrap();
    assert_eq!(reopened(&kit).unwrap(), [1, 1, 2]);
}

pub(crate) fn a_restart_begins_after_its_base<K: LogKit>() {
    for base in [id(3, 3), id(3, 4), id(1, 4), id(5, 100)] {
        let (kit, mut log) = three::<K>();
        append_with(&mut log, 5, &[], hard(3, 2, 2)).unwrap();
        log.restart(base).unwrap();
        assert_eq!((log.reader().base(), log.reader().last()), (base, base));
        let copy = kit.copy();
        drop(log);
        kit.lose_power();
        for kit in [kit, copy] {
            let mut log = open(&kit, base).unwrap();
            assert_eq!((log.reader().last(), log.reader().hard_state()), (base, hard(3, 2, base.index)));
            append(&mut log, base.index + 1, &[6]).unwrap();
            let log = open(&kit, base).unwrap();
            assert_eq!((log.reader().last().term, log.reader().term(base.index)), (6, Some(base.term)));
        }
    }
}

pub(crate) fn a_log_behind_the_state_starts_again<K: LogKit>() {
    // The state was replaced by a snapshot, and the log was not yet started again: it ends before, or is another one.
    for applied in [id(2, 9), id(2, 3)] {
        let (kit, mut log) = three::<K>();
        append_with(&mut log, 5, &[], hard(2, 4, 2)).unwrap();
        drop(log);
        let log = open(&kit, applied).unwrap();
        assert_eq!((log.reader().base(), log.reader().last()), (applied, applied));
        assert_eq!(log.reader().hard_state().vote, hard(2, 4, 2).vote);
    }
    let (kit, mut log) = three::<K>();
    append_with(&mut log, 5, &[], hard(2, 4, 4)).unwrap();
    drop(log);
    assert!(matches!(open(&kit, id(2, 3)), Err(StorageError::Corrupt(_))), "a committed entry with another term");
}

pub(crate) fn missing_entries_are_an_error<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    append(&mut log, 5, &[1; 10]).unwrap();
    log.purge(14, Keep::NOTHING).unwrap();
    log.purge(14, Keep::NOTHING).unwrap();
    drop(log);
    assert!(matches!(open(&kit, id(1, 4)), Err(StorageError::Corrupt(_))));
    assert!(matches!(open(&K::new(1), id(1, 4)), Err(StorageError::Corrupt(_))));
}

pub(crate) fn what_an_opening_reads_outlives_a_power_loss<K: LogKit>() {
    for seed in 1..40 {
        let kit = K::new(seed);
        let mut log = open(&kit, FOUNDING).unwrap();
        append(&mut log, 2, &[1]).unwrap();
        kit.fail_next_sync();
        append_with(&mut log, 3, &[1, 1], hard(5, 5, 2)).unwrap_err();
        drop(log);
        // Only the process ends: the operating system still has the frame, and regards it as written.
        kit.end_process();
        let log = open(&kit, FOUNDING).unwrap();
        let before = (terms(&log), log.reader().hard_state());
        assert_eq!(before, (vec![1, 1, 1], hard(5, 5, 2)));
        drop(log);
        kit.lose_power();
        let log = open(&kit, FOUNDING).unwrap();
        assert_eq!((terms(&log), log.reader().hard_state()), before, "seed {seed}");
    }
}
