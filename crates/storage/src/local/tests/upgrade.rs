//! The upgrade of a directory of format 1 and its reverse, interrupted at every operation.

use std::sync::Arc;

use super::super::{
    disk::Disk,
    layout::Layout,
    sim_disk::{Fault, SimDisk},
    state::State,
    upgrade, v1,
};
use crate::{Backend, Batch, Key, LocalBackend, LocalOptions, StorageError};

const SALT: u32 = 77;
const CACHE: usize = 1 << 20;

fn batch(number: u64) -> Batch {
    Batch::put(Key::new(format!("k/{number}")).unwrap(), number.to_string())
}

/// Writes a file durably, behind what it has.
fn append(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let file = disk.open(name, true).unwrap().unwrap();
    file.write_at(file.len().unwrap(), bytes).unwrap();
    file.sync().unwrap();
    disk.sync_directory("").unwrap();
}

/// A directory of format 1 with `batches`, the first `applied` of them in the state, the others in the second segment.
fn version_1(batches: u64, applied: u64) -> SimDisk {
    let disk = SimDisk::new(5);
    append(&disk, "meta.json", br#"{"format":1,"node_id":"n1","incarnation":"i"}"#);
    let (state, none) = State::open_v1(&disk, CACHE, false).unwrap();
    assert_eq!(none, 0);
    let change = state.begin().unwrap();
    for number in 1..=applied {
        change.records().unwrap().apply(&batch(number).writes).unwrap();
    }
    state.commit_v1(change, applied).unwrap();
    state.flush().unwrap();
    v1::create(&disk, SALT, 1).unwrap();
    let (mut first, name) = (1, segment(1));
    while first <= applied {
        append(&disk, &name, &v1::frame(SALT, first, &[batch(first)]));
        first += 1;
    }
    if applied > 0 {
        v1::create(&disk, SALT, applied + 1).unwrap();
    }
    append_v1(&disk, applied + 1, batches);
    disk
}

fn segment(first: u64) -> String {
    format!("log/{first:020}.seg")
}

/// Appends as a program of format 1 does: two batches in a frame.
fn append_v1(disk: &SimDisk, first: u64, last: u64) {
    let name = segment(first);
    let batches: Vec<_> = (first..=last).map(batch).collect();
    for (place, pair) in batches.chunks(2).enumerate() {
        append(disk, &name, &v1::frame(SALT, first + 2 * place as u64, pair));
    }
}

fn open(disk: &SimDisk) -> Result<LocalBackend, StorageError> {
    LocalBackend::open_on(Arc::new(disk.clone()), LocalOptions { cache_bytes: CACHE, ..LocalOptions::default() }, None)
}

async fn check(disk: &SimDisk, batches: u64, what: &str) {
    let mut index = 0;
    for round in 0..2 {
        let store = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((store.node_id().as_deref(), store.incarnation().as_str()), (Some("n1"), "i"));
        for number in 1..=batches + round {
            let value = store.get(&batch(number).writes[0].key().clone()).await.unwrap();
            assert_eq!(value.unwrap(), number.to_string(), "{what}");
        }
        let next = store.commit(batch(batches + round + 1)).await.unwrap().0;
        assert!(next > index.max(batches), "{what}: {next}");
        index = next;
    }
}

/// What a program of format 1 reads, which removes nothing.
fn read_v1(disk: &SimDisk) -> Result<u64, StorageError> {
    let (_, applied) = State::open_v1(disk, CACHE, false)?;
    v1::replay(disk, applied, |batch| Batch::decode(batch).map(drop))
}

fn is_format_1(disk: &SimDisk) -> bool {
    Layout::open(disk, None).unwrap().needs_upgrade()
}

#[tokio::test]
async fn rl03_an_upgrade_is_interrupted_at_every_operation() {
    let cases = [(0, 0), (3, 0), (7, 4), (4, 4)];
    let faults = [Fault::Crash, Fault::Error, Fault::Short, Fault::Full, Fault::FullOnce];
    for ((batches, applied), fault) in cases.into_iter().flat_map(|case| faults.map(|fault| (case, fault))) {
        let before = version_1(batches, applied);
        for step in 0.. {
            let what = format!("{batches} batches, {applied} applied, {fault:?} at {step}");
            let disk = before.copy();
            disk.fail_at(step, fault);
            let opened = open(&disk).map(drop);
            let is_reached = disk.operations() > step;
            disk.lose_power();
            if is_format_1(&disk) {
                assert!(opened.is_err(), "{what}");
                assert_eq!(read_v1(&disk.copy()).unwrap(), batches, "{what}");
                // A program of format 1 goes on; the next upgrade reads what it writes.
                let older = disk.copy();
                v1::create(&older, SALT, batches + 1).unwrap();
                append_v1(&older, batches + 1, batches + 3);
                check(&older, batches + 3, &format!("{what}, with later batches of format 1")).await;
            }
            check(&disk, batches, &what).await;
            if !is_reached {
                assert!(step > 10, "{what}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn an_upgrade_replays_a_torn_log_and_refuses_a_damaged_one() {
    let name = segment(5);
    let disk = version_1(9, 4);
    let log = disk.content(&name);
    for cut in [1, 30, 40] {
        let torn = disk.copy();
        torn.set_content(&name, log[..log.len() - cut].to_vec());
        // The last frame has one batch.
        check(&torn, 8, &format!("cut by {cut}")).await;
    }
    for at in (0..log.len() - 60).step_by(3) {
        let (damaged, mut bytes) = (disk.copy(), log.clone());
        bytes[at] ^= 1;
        damaged.set_content(&name, bytes);
        assert!(matches!(open(&damaged), Err(StorageError::Corrupt(_))), "changed at {at}");
        assert!(is_format_1(&damaged));
    }
}

#[tokio::test]
async fn segments_of_format_1_are_deleted_after_the_upgrade() {
    let disk = version_1(3, 0);
    drop(open(&disk).unwrap());
    let names = disk.names("log").unwrap();
    assert!(!names.is_empty() && names.iter().all(|name| name.ends_with(".log")), "{names:?}");
    assert!(!is_format_1(&disk));
    let meta = String::from_utf8(disk.content("meta.json")).unwrap();
    assert!(meta.starts_with(r#"{"format":2,"node_id":"n1","incarnation":"i","cluster_id":null"#), "{meta}");
}

/// Commits sealed values, whose encryptions are counted, and ends without a flush.
async fn written(batches: u64) -> SimDisk {
    let disk = SimDisk::new(6);
    append(&disk, "meta.json", br#"{"format":2,"node_id":"n1","incarnation":"i"}"#);
    let store = open(&disk).unwrap();
    for number in 1..=batches {
        store.commit(batch(number)).await.unwrap();
    }
    let sealed = [&[1], &7_u32.to_le_bytes()[..], &[0; 28]].concat();
    store.commit(Batch::put(Key::new("sealed").unwrap(), sealed)).await.unwrap();
    let killed = disk.copy();
    drop(store);
    killed
}

#[tokio::test]
async fn rl03_a_downgrade_is_interrupted_at_every_operation() {
    let before = written(5).await;
    for fault in [Fault::Crash, Fault::Error, Fault::Short, Fault::Full] {
        for step in 0.. {
            let what = format!("{fault:?} at {step}");
            let disk = before.copy();
            disk.fail_at(step, fault);
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let reverted = upgrade::revert(&shared);
            let is_reached = disk.operations() > step;
            disk.lose_power();
            assert!(is_format_1(&disk) || reverted.is_err(), "{what}");
            if is_format_1(&disk) {
                // Two more than the batches: the founding entry and the sealed value.
                assert_eq!(read_v1(&disk.copy()).unwrap(), 7, "{what}");
            }
            // Each format continues, and so does the count after another upgrade.
            check(&disk, 5, &what).await;
            assert_eq!(open(&disk).unwrap().encryptions(7).unwrap(), 1, "{what}");
            if !is_reached {
                assert!(step > 10 && reverted.is_ok(), "{what}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn only_a_lone_node_of_format_2_is_downgraded() {
    let shared = |disk: SimDisk| -> Arc<dyn Disk> { Arc::new(disk) };
    let member = written(1).await;
    let state = State::open(&member, CACHE, false).unwrap();
    let change = state.begin().unwrap();
    change.set_members(1, &super::apply::list()).unwrap();
    state.commit(change, state.position()).unwrap();
    state.flush().unwrap();
    drop(state);
    for disk in [member, version_1(2, 0)] {
        let before = disk.content("meta.json");
        assert!(matches!(upgrade::revert(&shared(disk.clone())), Err(StorageError::Layout(_))));
        assert_eq!(disk.content("meta.json"), before);
    }
}
