//! Restores through the log.

use bytes::{BufMut, Bytes};
use keepfast_crypto::hash::sha256;

use super::super::{
    apply::{Applier, Decision},
    entry::{Entry, Kind, LogId},
    sim_disk::SimDisk,
    state::State,
};
use crate::{Batch, Key, Page};

fn open(disk: &SimDisk) -> Applier {
    Applier::new(State::open(disk, 1 << 20, false).unwrap())
}

/// Applies an entry after the last one.
fn apply(applier: &Applier, kind: Kind, body: impl AsRef<[u8]>) -> Decision {
    let id = LogId { term: 1, index: applier.state().position().id.index + 1 };
    applier.apply(vec![Entry::new(id, kind, body.as_ref())]).unwrap()[0]
}

fn batch(applier: &Applier, path: &str) -> Decision {
    let mut body = Vec::new();
    Batch::put(Key::new(path).unwrap(), "batch").encode(&mut body);
    apply(applier, Kind::Batch, body)
}

fn put(applier: &Applier, path: &str) {
    assert_eq!(batch(applier, path), Decision::Passed);
}

fn part(number: u32, keys: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u32_le(number);
    for text in keys.iter().flat_map(|key| [*key, "restored"]) {
        body.put_u32_le(text.len() as u32);
        body.put_slice(text.as_bytes());
    }
    body
}

fn digest(parts: &[Vec<u8>]) -> Bytes {
    let digest = parts.iter().fold(sha256(b"head"), |digest, part| sha256(&[&digest[..], part].concat()));
    Bytes::copy_from_slice(&digest)
}

fn names(applier: &Applier) -> Vec<String> {
    applier.state().list("", &Page::all()).unwrap()
}

#[test]
fn the_staged_parts_replace_all_records_at_the_end() {
    let disk = SimDisk::new(1);
    let mut applier = open(&disk);
    put(&applier, "old");
    let parts = [part(1, &["a", "b"]), part(2, &[]), part(3, &["c"])];
    assert_eq!(apply(&applier, Kind::RestoreBegin, "head"), Decision::Passed);
    for part in &parts {
        assert_eq!(apply(&applier, Kind::RestorePart, part.clone()), Decision::Passed);
        // A node that restarts goes on.
        applier.state().flush().unwrap();
        drop(applier);
        applier = open(&disk);
    }
    assert_eq!(batch(&applier, "meanwhile"), Decision::Conflict, "the end would delete what was acknowledged");
    assert_eq!(names(&applier), ["old"]);
    assert_eq!(apply(&applier, Kind::RestoreEnd, digest(&parts)), Decision::Passed);
    assert_eq!(names(&applier), ["a", "b", "c"]);
    assert_eq!(applier.state().get("c").unwrap().unwrap(), "restored");
    assert_eq!(apply(&applier, Kind::RestoreEnd, digest(&parts)), Decision::Refused, "nothing is staged any more");
    put(&applier, "new");
    assert_eq!(names(&applier), ["a", "b", "c", "new"]);
}

#[test]
fn an_entry_that_does_not_fit_is_refused() {
    let applier = open(&SimDisk::new(1));
    put(&applier, "old");
    let (first, second) = (part(1, &["a"]), part(2, &["b"]));
    let whole = digest(&[first.clone(), second.clone()]);
    assert_eq!(apply(&applier, Kind::RestorePart, first.clone()), Decision::Refused, "before it was started");
    assert_eq!(apply(&applier, Kind::RestoreEnd, whole.clone()), Decision::Refused);
    apply(&applier, Kind::RestoreBegin, "head");
    for bad in [second.clone(), first[..first.len() - 1].to_vec(), vec![], vec![1]] {
        assert_eq!(apply(&applier, Kind::RestorePart, bad), Decision::Refused);
    }
    apply(&applier, Kind::RestorePart, first.clone());
    assert_eq!(apply(&applier, Kind::RestorePart, first.clone()), Decision::Refused, "a part once more");
    assert_eq!(apply(&applier, Kind::RestoreEnd, whole.clone()), Decision::Refused, "a part is missing");
    assert_eq!(apply(&applier, Kind::RestoreAbort, ""), Decision::Passed);
    assert_eq!(apply(&applier, Kind::RestorePart, second.clone()), Decision::Refused, "after it was dropped");
    // A later one is not mixed with what was staged before.
    apply(&applier, Kind::RestoreBegin, "head");
    apply(&applier, Kind::RestorePart, part(1, &["x"]));
    apply(&applier, Kind::RestoreBegin, "head");
    apply(&applier, Kind::RestorePart, first);
    apply(&applier, Kind::RestorePart, second);
    assert_eq!(names(&applier), ["old"]);
    assert_eq!(apply(&applier, Kind::RestoreEnd, whole), Decision::Passed);
    assert_eq!(names(&applier), ["a", "b"]);
}

#[test]
fn batches_pass_again_after_a_restore_was_dropped() {
    let applier = open(&SimDisk::new(1));
    apply(&applier, Kind::RestoreBegin, "head");
    // One group: the beginning counts at once.
    let index = applier.state().position().id.index;
    let mut body = Vec::new();
    Batch::put(Key::new("a").unwrap(), "batch").encode(&mut body);
    let entry = |at: u64, kind, body: &[u8]| Entry::new(LogId { term: 1, index: index + at }, kind, body);
    let group = vec![
        entry(1, Kind::Batch, &body),
        entry(2, Kind::RestoreAbort, b""),
        entry(3, Kind::Batch, &body),
        entry(4, Kind::RestoreBegin, b"head"),
        entry(5, Kind::Batch, &body),
    ];
    let decisions = applier.apply(group).unwrap();
    let (passed, conflict) = (Decision::Passed, Decision::Conflict);
    assert_eq!(decisions, [conflict, passed, passed, passed, conflict]);
}

/// No batch could pass, and nobody else ends it.
#[tokio::test]
async fn a_lone_node_drops_the_restore_of_an_earlier_process() {
    use crate::{Backend, LocalBackend, LocalOptions};
    let disk = SimDisk::new(1);
    drop(LocalBackend::open_on(std::sync::Arc::new(disk.clone()), LocalOptions::default(), None).unwrap());
    let applier = open(&disk);
    apply(&applier, Kind::RestoreBegin, "head");
    applier.state().flush().unwrap();
    drop(applier);
    // Its end needs no room.
    disk.set_free(1 << 20);
    let node = LocalBackend::open_on(std::sync::Arc::new(disk.clone()), LocalOptions::default(), None).unwrap();
    let delete = Batch { reads: vec![], writes: vec![crate::Write::Delete { key: Key::new("a").unwrap() }] };
    node.commit(delete).await.unwrap();
    disk.set_free(1 << 40);
    node.commit(Batch::put(Key::new("a").unwrap(), "v")).await.unwrap();
    assert!(!node.is_restoring());
}
