//! Entries that are applied, by any replica.

use std::sync::Arc;

use bytes::Bytes;
use keepfast_consensus::{Member, Payload, RaftId};
use parking_lot::Mutex;

use super::super::{
    apply::{Applier, Decision, Upto},
    entry::{Entry, FOUNDING, HardState, Kind, LogId},
    layout::Layout,
    log::{Log, ReadLog},
    segment::Frame,
    segmented_log::{SegmentedLog, Segments},
    sim_disk::SimDisk,
    state::{AppliedMembers, State},
};
use crate::{Batch, Digest, Index, Key, LocalBackend, LocalOptions, Read, StorageError, Watch, Write};

fn applier(disk: &SimDisk) -> Arc<Applier> {
    Arc::new(Applier::new(State::open(disk, 1 << 20, false).unwrap()))
}

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

/// A batch that writes `value` when the record is `seen`.
fn swap(path: &str, seen: Option<&str>, value: &'static str) -> Batch {
    let seen = seen.map(|seen| Digest::of(seen.as_bytes()));
    let write = Write::Put { key: key(path), value: value.into() };
    Batch { reads: vec![Read::Value { key: key(path), seen }], writes: vec![write] }
}

fn entry(index: u64, kind: Kind, body: impl AsRef<[u8]>) -> Entry {
    Entry::new(LogId { term: 1, index }, kind, body.as_ref())
}

fn batch(index: u64, batch: &Batch) -> Entry {
    let mut body = Vec::new();
    batch.encode(&mut body);
    entry(index, Kind::Batch, body)
}

/// A list with one voter.
pub(super) fn list() -> Vec<Member> {
    let text = String::new;
    let (id, node, incarnation) = (RaftId(1), "n1".to_owned(), [1; 16]);
    let (cluster_addr, api_addr, version) = (text(), text(), text());
    let (voter, wants_vote, election_ms) = (true, true, 600);
    vec![Member { id, node, incarnation, cluster_addr, api_addr, voter, wants_vote, election_ms, version }]
}

fn entries() -> Vec<Entry> {
    vec![
        entry(2, Kind::Blank, ""),
        batch(3, &swap("a", None, "one")),
        batch(4, &swap("a", None, "lost")),
        batch(5, &swap("a", Some("one"), "two")),
        entry(6, Kind::Members, &Payload::Members(list()).encode()[1..]),
        batch(7, &swap("a", Some("two"), "three")),
    ]
}

/// The indexes and paths that a watcher received, with the applied index at that moment.
#[derive(Default)]
struct Notified(Mutex<Vec<(u64, String, u64)>>, Mutex<Option<Arc<Applier>>>);

impl Watch for Notified {
    fn applied(&self, index: Index, writes: &[Write]) {
        let applied = self.1.lock().as_ref().map_or(0, |applier| applier.applied.borrow().0);
        self.0.lock().extend(writes.iter().map(|write| (index.0, write.key().to_string(), applied)));
    }

    fn replaced(&self, index: Index) {
        let applied = self.1.lock().as_ref().map_or(0, |applier| applier.applied.borrow().0);
        self.0.lock().push((index.0, "everything".into(), applied));
    }
}

#[test]
fn every_replica_decides_alike_however_entries_are_grouped() {
    use Decision::{Conflict, Passed};
    for size in 1..=6 {
        let applier = applier(&SimDisk::new(1));
        let notified = Arc::new(Notified::default());
        *notified.1.lock() = Some(applier.clone());
        let watcher: Arc<dyn Watch> = notified.clone();
        applier.watchers.add(Arc::downgrade(&watcher));
        let mut decisions = Vec::new();
        for group in entries().chunks(size) {
            decisions.extend(applier.apply(group.to_vec()).unwrap());
        }
        assert_eq!(decisions, [Passed, Passed, Conflict, Passed, Passed, Passed]);
        assert_eq!(applier.state().get("a").unwrap().unwrap(), "three");
        assert_eq!(applier.state().position().id, LogId { term: 1, index: 7 });
        assert_eq!(*applier.applied.borrow(), Index(7));
        assert_eq!(applier.state().members().unwrap().unwrap(), AppliedMembers { index: 6, list: list() });
        let notices = notified.0.lock();
        assert_eq!(notices.iter().map(|notice| notice.0).collect::<Vec<_>>(), [3, 5, 7]);
        assert!(notices.iter().all(|(index, _, applied)| applied < index), "watchers come before the applied index");
    }
}

#[test]
fn watchers_learn_of_a_restore_before_its_index() {
    let applier = applier(&SimDisk::new(1));
    let notified = Arc::new(Notified::default());
    *notified.1.lock() = Some(applier.clone());
    let watcher: Arc<dyn Watch> = notified.clone();
    applier.watchers.add(Arc::downgrade(&watcher));
    let digest = keepfast_crypto::hash::sha256(b"head");
    let end = entry(4, Kind::RestoreEnd, digest);
    let started = vec![batch(2, &swap("a", None, "one")), entry(3, Kind::RestoreBegin, "head"), end];
    assert_eq!(applier.apply(started).unwrap(), [Decision::Passed; 3]);
    assert_eq!(*notified.0.lock(), [(2, "a".to_owned(), 1), (4, "everything".to_owned(), 1)]);
    assert_eq!((applier.state().get("a").unwrap(), *applier.applied.borrow()), (None, Index(4)));
}

#[test]
fn entries_out_of_order_and_unreadable_ones_change_nothing() {
    let applier = applier(&SimDisk::new(1));
    let passing = || batch(2, &swap("a", None, "one"));
    for bad in [entry(4, Kind::Blank, ""), entry(2, Kind::Blank, ""), entry(3, Kind::Batch, "unreadable")] {
        assert!(matches!(applier.apply(vec![passing(), bad]), Err(StorageError::Corrupt(_))));
        assert_eq!((applier.state().position().id, applier.state().get("a").unwrap()), (FOUNDING, None));
        assert_eq!(*applier.applied.borrow(), Index(1));
    }
    applier.apply(vec![passing()]).unwrap();
}

#[test]
fn the_encryptions_of_every_entry_are_counted_by_key_term() {
    let disk = SimDisk::new(1);
    let sealed = |term: u32| Bytes::from([&[1], &term.to_le_bytes()[..], &[0; 28]].concat());
    let put = |path: &str, term| Write::Put { key: key(path), value: sealed(term) };
    let terms = [vec![1, 1], vec![3], vec![1, 3, 4], vec![2]];
    let state = applier(&disk);
    for (index, terms) in (2..).zip(&terms) {
        let reads = vec![Read::Value { key: key("never"), seen: (index == 4).then_some(Digest([0; 16])) }];
        let writes = terms.iter().map(|term| put("k", *term)).collect();
        state.apply(vec![batch(index, &Batch { reads, writes })]).unwrap();
    }
    let counts = |applier: &Applier| [1, 2, 3, 4, 5].map(|term| applier.state().encryptions(term).unwrap());
    // With those of the entry 4, a conflict: each replica counts it.
    assert_eq!(counts(&state), [3, 1, 2, 1, 0]);
    state.state().flush().unwrap();
    drop(state);
    assert_eq!(counts(&applier(&disk)), [3, 1, 2, 1, 0]);
}

/// A disk with a log of [`entries`] that no state has applied, with the entries up to `committed` committed.
fn logged(committed: u64) -> (SimDisk, SegmentedLog) {
    log_of(entries(), committed)
}

fn log_of(entries: Vec<Entry>, committed: u64) -> (SimDisk, SegmentedLog) {
    let disk = SimDisk::new(1);
    let segments = Segments { disk: Arc::new(disk.clone()), bytes: 1 << 20, ahead: 0 };
    let mut log = SegmentedLog::open(segments, FOUNDING).unwrap();
    let mut frame = Frame::new();
    frame.begin(2, HardState { committed, ..HardState::default() });
    for entry in entries {
        frame.push(entry.id.term, &entry.payload);
    }
    log.append(&mut frame).unwrap();
    (disk, log)
}

#[test]
fn a_replay_applies_what_is_committed_or_all_of_a_lone_voter() {
    for (committed, upto, applied, value) in
        [(3, Upto::Committed, 3, "one"), (4, Upto::Committed, 4, "one"), (3, Upto::Last, 7, "three")]
    {
        let (disk, log) = logged(committed);
        let applier = applier(&disk);
        applier.replay(&log.reader(), upto).unwrap();
        assert_eq!(applier.state().position().id.index, applied);
        assert_eq!(applier.state().get("a").unwrap().unwrap(), value);
        // Nothing is left to apply.
        applier.replay(&log.reader(), upto).unwrap();
        assert_eq!(log.reader().last().index, 7);
    }
}

/// Others may have led since the list, and may have written other entries.
#[test]
fn a_replay_of_a_lone_voter_ends_with_a_list_of_more() {
    let more =
        vec![list().remove(0), Member { id: RaftId(2), node: "n2".into(), incarnation: [2; 16], ..list().remove(0) }];
    let log = |list: Vec<Member>| {
        let members = Payload::Members(list).encode();
        log_of(vec![entry(2, Kind::Members, &members[1..]), batch(3, &swap("a", None, "one"))], 0)
    };
    for (list, applied) in [(more, 2), (list(), 3)] {
        let (disk, log) = log(list);
        let applier = applier(&disk);
        applier.replay(&log.reader(), Upto::Last).unwrap();
        assert_eq!(applier.state().position().id.index, applied);
    }
}

#[test]
fn a_conflict_in_the_log_of_a_node_without_a_cluster_is_an_error() {
    let (disk, log) = log_of(entries().into_iter().take(3).collect(), 4);
    let failed = applier(&disk).replay(&log.reader(), Upto::Last).unwrap_err();
    assert!(failed.to_string().contains("after entry 1"), "{failed}");
    drop(log);
    assert!(LocalBackend::open_on(Arc::new(disk), LocalOptions::default(), None).is_err());
}

#[tokio::test]
async fn a_store_evaluates_the_batches_of_its_log_again() {
    use crate::Backend;
    let (disk, mut log) = logged(3);
    // The list has only this node.
    let origin = Layout::open(&disk, None).unwrap().origin();
    let own = Member { node: origin.node, incarnation: origin.incarnation, ..list().remove(0) };
    let mut frame = Frame::new();
    frame.begin(6, HardState::default());
    frame.push(1, &Payload::Members(vec![own]).encode());
    frame.push(1, &batch(7, &swap("a", Some("two"), "three")).payload);
    log.append(&mut frame).unwrap();
    drop(log);
    let store = LocalBackend::open_on(Arc::new(disk), LocalOptions::default(), None).unwrap();
    assert_eq!(store.get(&key("a")).await.unwrap().unwrap(), "three");
    assert!(matches!(store.commit(swap("a", Some("two"), "four")).await, Err(StorageError::Conflict)));
    assert_eq!(store.commit(swap("a", Some("three"), "four")).await.unwrap(), Index(8));
}
