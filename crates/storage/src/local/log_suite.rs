//! The tests that every [`Log`] passes.

use bytes::Bytes;

use super::log::{AppendError, Log};
use crate::{Batch, Key, StorageError};

/// A log on a medium with injectable faults.
pub(crate) trait LogKit: Sized {
    type Log: Log;
    /// Creates an empty medium.
    fn new() -> Self;
    /// Returns the medium, for a log.
    fn medium(&self) -> <Self::Log as Log>::Medium;
    /// Returns another medium with the same content.
    fn copy(&self) -> Self;
    /// Drops a random part of the data that was not synced.
    fn lose_power(&self);
    /// Makes the sync of the next append fail.
    fn fail_next_sync(&self);
    /// Makes the next append fail for lack of space.
    fn fill_up(&self);
    /// Length of the log in bytes.
    fn len(&self) -> usize;
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
                replays_what_was_appended_in_order, goes_on_behind_what_is_there, a_group_that_is_not_appended_leaves_nothing,
                a_torn_tail_is_left_out, damage_before_the_tail_is_an_error, a_failed_sync_breaks_the_log,
                an_append_without_room_leaves_the_log_as_before, compaction_keeps_the_indexes);
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

/// The batch with this number.
fn batch(number: u64) -> Batch {
    Batch::put(Key::new(format!("k/{number}")).unwrap(), Bytes::from(vec![number as u8; 40]))
}

fn encoded(number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    batch(number).encode(&mut bytes);
    bytes
}

/// Appends the batches with these numbers as one group.
fn append<L: Log>(log: &mut L, numbers: impl IntoIterator<Item = u64>) -> Result<u64, AppendError> {
    log.clear();
    numbers.into_iter().for_each(|number| log.push(&batch(number)));
    log.append()
}

/// The numbers of the batches after `applied`. Asserts that each batch has its own index.
fn replay<K: LogKit>(kit: &K, applied: u64) -> Result<Vec<u64>, StorageError> {
    let mut found = Vec::new();
    let last = K::Log::replay(&kit.medium(), applied, |index, bytes| {
        assert_eq!(bytes, encoded(index), "the batch at {index}");
        found.push(index);
        Ok(())
    })?;
    assert_eq!(last, found.last().copied().unwrap_or(applied));
    Ok(found)
}

/// A log with the batches 1 to 3 in two groups.
fn three<K: LogKit>() -> (K, K::Log) {
    let kit = K::new();
    assert!(replay(&kit, 0).unwrap().is_empty());
    let mut log = K::Log::open(kit.medium(), 1).unwrap();
    append(&mut log, [1, 2]).unwrap();
    append(&mut log, [3]).unwrap();
    (kit, log)
}

pub(crate) fn replays_what_was_appended_in_order<K: LogKit>() {
    let (kit, log) = three::<K>();
    assert_eq!(log.next(), 4);
    drop(log);
    kit.lose_power();
    assert_eq!(replay(&kit, 0).unwrap(), [1, 2, 3]);
    assert_eq!(replay(&kit, 1).unwrap(), [2, 3]);
    assert!(replay(&kit, 3).unwrap().is_empty());
    let failed = K::Log::replay(&kit.medium(), 0, |index, _| match index {
        2 => Err(StorageError::Closed),
        _ => Ok(()),
    });
    assert!(matches!(failed, Err(StorageError::Closed)));
}

pub(crate) fn goes_on_behind_what_is_there<K: LogKit>() {
    let (kit, log) = three::<K>();
    drop(log);
    let mut log = K::Log::open(kit.medium(), 4).unwrap();
    append(&mut log, [4]).unwrap();
    drop(log);
    assert_eq!(replay(&kit, 0).unwrap(), [1, 2, 3, 4]);
    assert_eq!(replay(&kit, 2).unwrap(), [3, 4]);
}

pub(crate) fn a_group_that_is_not_appended_leaves_nothing<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    log.clear();
    log.push(&batch(99));
    append(&mut log, [4]).unwrap();
    assert_eq!(log.next(), 5);
    assert_eq!(replay(&kit, 0).unwrap(), [1, 2, 3, 4]);
}

pub(crate) fn a_torn_tail_is_left_out<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    let start = kit.len();
    append(&mut log, [4, 5]).unwrap();
    let end = kit.len();
    assert!(end > start + 80);
    for cut in start..end {
        let torn = kit.copy();
        torn.truncate(cut);
        assert_eq!(replay(&torn, 0).unwrap(), [1, 2, 3], "cut at {cut}");
    }
    for at in (start..end).step_by(3) {
        let torn = kit.copy();
        torn.flip_bit(at);
        assert_eq!(replay(&torn, 0).unwrap(), [1, 2, 3], "changed at {at}");
    }
    assert_eq!(replay(&kit, 0).unwrap(), [1, 2, 3, 4, 5]);
}

pub(crate) fn damage_before_the_tail_is_an_error<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    let end = kit.len();
    append(&mut log, [4]).unwrap();
    for at in 0..end {
        let damaged = kit.copy();
        damaged.flip_bit(at);
        assert!(matches!(replay(&damaged, 0), Err(StorageError::Corrupt(_))), "changed at {at}");
    }
}

pub(crate) fn a_failed_sync_breaks_the_log<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    kit.fail_next_sync();
    assert!(matches!(append(&mut log, [4, 5]), Err(AppendError::Broken(_))));
    assert_eq!(log.next(), 4, "what is not durable has no index");
    drop(log);
    kit.lose_power();
    // The whole group may be present.
    let found = replay(&kit, 0).unwrap();
    assert!(found == [1, 2, 3] || found == [1, 2, 3, 4, 5], "{found:?}");
}

pub(crate) fn an_append_without_room_leaves_the_log_as_before<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    kit.fill_up();
    assert!(matches!(append(&mut log, [99]), Err(AppendError::Full)));
    assert_eq!(log.next(), 4);
    assert_eq!(replay(&kit, 0).unwrap(), [1, 2, 3]);
    append(&mut log, [4]).unwrap();
    drop(log);
    kit.lose_power();
    assert_eq!(replay(&kit, 0).unwrap(), [1, 2, 3, 4]);
}

pub(crate) fn compaction_keeps_the_indexes<K: LogKit>() {
    let (kit, mut log) = three::<K>();
    log.compact().unwrap();
    assert_eq!((log.next(), replay(&kit, 3).unwrap()), (4, vec![]));
    append(&mut log, [4]).unwrap();
    drop(log);
    kit.lose_power();
    assert_eq!(replay(&kit, 3).unwrap(), [4]);
}
