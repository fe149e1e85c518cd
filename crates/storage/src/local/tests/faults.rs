//! The store on a simulated disk with faults, torn writes and lost data. `n` batches run in sequence or concurrently;
//! each writes its number to two records, so that a partial batch is detected.

use std::sync::Arc;

use bytes::Bytes;

use super::super::sim_disk::{Fault, SimDisk};
use crate::{Backend, Batch, Key, LocalBackend, LocalOptions, StorageError, Write};

const BATCHES: usize = 12;

fn open(disk: &SimDisk) -> Result<LocalBackend, StorageError> {
    // Small values, so that flushes and new segments occur during the test.
    let options = LocalOptions { flush_bytes: 700, cache_bytes: 1 << 20, ..LocalOptions::default() };
    LocalBackend::open_on(Arc::new(disk.clone()), options, None)
}

fn batch(number: usize) -> Batch {
    let put = |side: &str| Write::Put {
        key: Key::new(format!("{side}/{number}")).unwrap(),
        value: number.to_string().repeat(40).into(),
    };
    Batch { reads: vec![], writes: vec![put("left"), put("right")] }
}

/// Commits the batches of a range and returns the acknowledged ones. Nothing may be acknowledged after `Stopped`.
async fn write(store: &LocalBackend, range: std::ops::Range<usize>) -> Vec<usize> {
    let mut acknowledged = Vec::new();
    let mut stopped = false;
    for number in range {
        match store.commit(batch(number)).await {
            Ok(_) => {
                assert!(!stopped, "acknowledged after it has stopped");
                acknowledged.push(number);
            }
            Err(StorageError::Stopped(reason)) => {
                assert!(!reason.is_empty());
                stopped = true;
            }
            Err(StorageError::Full) => {}
            Err(error) => panic!("{error}"),
        }
    }
    acknowledged
}

/// Checks that every acknowledged batch is present, and every other batch completely or not at all.
async fn check(disk: &SimDisk, acknowledged: &[usize], what: &str) {
    let store = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    for number in 0..2 * BATCHES {
        let left = side(&store, "left", number).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let right = side(&store, "right", number).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(left, right, "{what}: half of batch {number}");
        if let Some(value) = left {
            assert_eq!(value, number.to_string().repeat(40), "{what}");
        } else {
            assert!(!acknowledged.contains(&number), "{what}: batch {number} is lost");
        }
    }
    store.commit(batch(0)).await.unwrap_or_else(|error| panic!("{what}: {error}"));
}

async fn side(store: &LocalBackend, side: &str, number: usize) -> Result<Option<Bytes>, StorageError> {
    store.get(&Key::new(format!("{side}/{number}")).unwrap()).await
}

/// Number of operations without faults, from the empty disk to the closed store.
async fn operations() -> usize {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    assert_eq!(write(&store, 0..BATCHES).await.len(), BATCHES);
    drop(store);
    disk.operations()
}

/// Injects a fault at each operation in turn, followed by a power loss and a restart without faults.
async fn every_operation(fault: Fault, seeds: std::ops::Range<u64>) {
    let count = operations().await;
    assert!(count > 60, "{count}");
    for seed in seeds {
        for at in 0..count {
            let what = format!("{fault:?} at {at}, seed {seed}");
            let disk = SimDisk::new(seed * 1000 + at as u64);
            disk.fail_at(at, fault);
            let acknowledged = match open(&disk) {
                Ok(store) => write(&store, 0..BATCHES).await,
                Err(_) => Vec::new(),
            };
            disk.lose_power();
            check(&disk, &acknowledged, &what).await;
        }
    }
}

#[tokio::test]
async fn rl03_power_fails_at_every_operation() {
    every_operation(Fault::Crash, 1..4).await;
}

#[tokio::test]
async fn rl04_every_operation_fails_once() {
    every_operation(Fault::Error, 1..3).await;
}

#[tokio::test]
async fn rl04_every_write_is_cut_short() {
    every_operation(Fault::Short, 1..3).await;
}

#[tokio::test]
async fn rl04_the_disk_is_full_from_every_operation_on() {
    every_operation(Fault::Full, 1..2).await;
}

#[tokio::test]
async fn rl04_the_disk_is_full_for_a_moment() {
    every_operation(Fault::FullOnce, 1..2).await;
}

#[tokio::test]
async fn rl03_power_fails_again_while_recovering() {
    let disk = SimDisk::new(7);
    let store = open(&disk).unwrap();
    let first = disk.operations();
    let acknowledged = write(&store, 0..BATCHES).await;
    disk.fail_at(0, Fault::Crash);
    drop(store);
    disk.lose_power();
    for step in 0..40 {
        disk.fail_at(disk.operations() + step, Fault::Crash);
        drop(open(&disk));
        disk.lose_power();
    }
    assert!(disk.operations() > first);
    check(&disk, &acknowledged, "power fails again").await;
}

#[tokio::test]
async fn rl04_a_write_without_room_is_refused_and_the_store_goes_on() {
    let disk = SimDisk::new(3);
    let store = open(&disk).unwrap();
    let mut acknowledged = write(&store, 0..3).await;
    disk.fail_at(disk.operations(), Fault::Full);
    assert!(matches!(store.commit(batch(3)).await, Err(StorageError::Full)));
    disk.heal();
    assert!(store.get(&Key::new("left/3").unwrap()).await.unwrap().is_none());
    acknowledged.extend(write(&store, 4..6).await);
    assert_eq!(acknowledged, [0, 1, 2, 4, 5]);
    drop(store);
    check(&disk, &acknowledged, "after a moment without room").await;
    let store = open(&disk).unwrap();
    assert!(store.get(&Key::new("left/3").unwrap()).await.unwrap().is_none());
}

#[tokio::test]
async fn rl04_the_last_room_is_kept_for_deleting() {
    let disk = SimDisk::new(4);
    let store = open(&disk).unwrap();
    write(&store, 0..2).await;
    disk.set_free(1 << 20);
    assert!(matches!(store.commit(batch(2)).await, Err(StorageError::Full)));
    let delete = Write::Delete { key: Key::new("left/0").unwrap() };
    store.commit(Batch { reads: vec![], writes: vec![delete] }).await.unwrap();
    assert!(side(&store, "left", 0).await.unwrap().is_none());
    assert!(side(&store, "left", 2).await.unwrap().is_none());
    disk.set_free(1 << 30);
    store.commit(batch(2)).await.unwrap();
    assert!(side(&store, "left", 2).await.unwrap().is_some());
}

#[tokio::test]
async fn rl04_a_failed_sync_stops_the_store_for_good() {
    let disk = SimDisk::new(5);
    let store = open(&disk).unwrap();
    let acknowledged = write(&store, 0..2).await;
    // The write of the frame succeeds, its sync fails.
    disk.fail_at(disk.operations() + 1, Fault::Error);
    for number in 2..6 {
        let error = store.commit(batch(number)).await.unwrap_err();
        assert!(matches!(error, StorageError::Stopped(_)));
        assert!(error.to_string().contains("sync the log"), "{error}");
    }
    assert!(store.get(&Key::new("left/2").unwrap()).await.unwrap().is_none());
    assert!(store.get(&Key::new("left/1").unwrap()).await.unwrap().is_some());
    drop(store);
    disk.lose_power();
    check(&disk, &acknowledged, "after a failed sync").await;
}

/// A disk after a kill: all batches are in the first log segment, the tree is as at the start.
async fn killed(batches: usize) -> (SimDisk, String) {
    let disk = SimDisk::new(9);
    let options = LocalOptions { cache_bytes: 1 << 20, ..LocalOptions::default() };
    let store = LocalBackend::open_on(Arc::new(disk.clone()), options, None).unwrap();
    for number in 0..batches {
        store.commit(batch(number)).await.unwrap();
    }
    let copy = disk.copy();
    drop(store);
    (copy, "log/00000000000000000001.log".into())
}

/// The frames of a log segment, without the zeros behind them. Batches do not end in zeros.
fn frames(disk: &SimDisk, segment: &str) -> Vec<u8> {
    let mut content = disk.content(segment);
    content.truncate(content.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    content
}

#[tokio::test]
async fn a_log_cut_at_every_byte_of_the_last_batch_keeps_the_others() {
    let (shorter, segment) = killed(3).await;
    let start = frames(&shorter, &segment).len();
    let (disk, _) = killed(4).await;
    let log = frames(&disk, &segment);
    assert!(log.len() > start + 100);
    for (cut, zeros) in (start..=log.len()).flat_map(|cut| [(cut, 0), (cut, 1000)]) {
        let copy = disk.copy();
        copy.set_content(&segment, [&log[..cut], &vec![0; zeros]].concat());
        let acknowledged = if cut == log.len() { 0..4 } else { 0..3 };
        check(&copy, &acknowledged.collect::<Vec<_>>(), &format!("cut at {cut}, {zeros} zeros")).await;
    }
    // The rest of a torn frame may also be old bytes of the disk.
    for byte in (start..log.len()).step_by(7) {
        let (copy, mut torn) = (disk.copy(), log.clone());
        torn[byte] ^= 0x55;
        copy.set_content(&segment, torn);
        check(&copy, &[0, 1, 2], &format!("torn at {byte}")).await;
    }
}

#[tokio::test]
async fn rl05_a_flipped_bit_before_the_end_is_an_error() {
    let (shorter, segment) = killed(3).await;
    let end = frames(&shorter, &segment).len();
    let (disk, _) = killed(4).await;
    let log = frames(&disk, &segment);
    for bit in (0..end * 8).step_by(5) {
        let (copy, mut bad) = (disk.copy(), log.clone());
        bad[bit / 8] ^= 1 << (bit % 8);
        copy.set_content(&segment, bad);
        let error = open(&copy).err().unwrap_or_else(|| panic!("bit {bit} is not noticed"));
        assert!(matches!(error, StorageError::Corrupt(_)), "bit {bit}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fault_under_concurrent_commits_loses_nothing_that_was_acknowledged() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let store = Arc::new(open(&disk).unwrap());
        disk.fail_at(disk.operations() + seed as usize % 23, if seed % 2 == 0 { Fault::Error } else { Fault::Crash });
        let tasks: Vec<_> = (0..2 * BATCHES)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move { store.commit(batch(number)).await.is_ok().then_some(number) })
            })
            .collect();
        let mut acknowledged = Vec::new();
        for task in tasks {
            acknowledged.extend(task.await.unwrap());
        }
        drop(store);
        disk.lose_power();
        check(&disk, &acknowledged, &format!("seed {seed}")).await;
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    let disk = SimDisk::new(11);
    let store = open(&disk).unwrap();
    let mut acknowledged = Vec::new();
    for number in 0..BATCHES {
        acknowledged.extend(write(&store, number..number + 1).await);
        // Data that the operating system holds survives a kill.
        let killed = disk.copy();
        killed.heal();
        check(&killed, &acknowledged, &format!("killed after {number}")).await;
    }
}

#[tokio::test]
async fn sec_kf40_init_at_every_fault_leaves_all_records_or_none() {
    let root = keepfast_crypto::random::key();
    for fault in [Fault::Error, Fault::Crash, Fault::Full, Fault::FullOnce, Fault::Short] {
        for step in 0.. {
            let disk = SimDisk::new(11);
            let store = Arc::new(open(&disk).unwrap());
            let staged = Arc::new(crate::MemoryBackend::new());
            crate::Barrier::create(staged.clone(), &root, "seal".into(), 0).await.unwrap();
            staged.commit(batch(1)).await.unwrap();
            let first = disk.operations();
            disk.fail_at(first + step, fault);
            let published = crate::Barrier::publish(&staged, &*store).await;
            let reached = disk.operations() > first + step;
            disk.fail_at(0, Fault::Crash);
            drop(store);
            disk.lose_power();
            let store = open(&disk).unwrap();
            let mut found = 0;
            let records = staged.records();
            for (key, value) in &records {
                found += usize::from(store.get(key).await.unwrap().as_ref() == Some(value));
            }
            assert!(found == 0 || found == records.len(), "{fault:?} at {step}: {found} of {}", records.len());
            assert!(found > 0 || published.is_err(), "{fault:?} at {step}: acknowledged and lost");
            if !reached {
                break;
            }
        }
    }
}
