//! Nodes with a certificate of the cluster that no list of this node has.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keepfast_core::cluster::port::ClusterPort as _;
use keepfast_framework::clock::TestClock;
use keepfast_storage::{Member, StorageError};
use tokio::io::AsyncReadExt;

use super::{TestNode, member, origin, soon};
use crate::cluster::dial::dial;
use crate::cluster::frames::Kind;

/// As the storage names a node that no list has.
fn without_address(name: &str) -> Member {
    member(name, String::new())
}

#[tokio::test]
async fn a_node_that_no_list_has_exchanges_messages_of_raft() {
    let (a, d) = (TestNode::start("a").await, TestNode::start("dddd").await);
    a.service.unlisted.lock().push(origin("dddd"));
    d.announce_address().await;
    d.transport.send(&a.member, Bytes::from_static(b"vote"));
    assert_eq!(a.service.message().await, (origin("dddd"), Bytes::from_static(b"vote")));
    // The answer goes to the address that it has sent.
    a.transport.send(&without_address("dddd"), Bytes::from_static(b"granted"));
    assert_eq!(d.service.message().await, (origin("a"), Bytes::from_static(b"granted")));
    // The list has it now, and later lacks it.
    a.service.unlisted.lock().clear();
    a.port.members_changed();
    assert!(soon(d.transport.read_index(&a.member)).await.is_ok());
    a.service.strangers.lock().push(origin("dddd"));
    a.port.members_changed();
    assert!(dial(&d.open_port(), &origin("a"), &a.member.cluster_addr, Kind::Messages).await.is_err());
}

#[tokio::test]
async fn sec_a_node_that_no_list_has_commits_nothing_and_sends_no_request() {
    let (a, d) = (TestNode::start("a").await, TestNode::start("dddd").await);
    a.service.unlisted.lock().push(origin("dddd"));
    for (kind, is_open) in
        [(Kind::Messages, true), (Kind::Snapshot, true), (Kind::Calls, false), (Kind::Requests, false)]
    {
        let dialled = dial(&d.open_port(), &origin("a"), &a.member.cluster_addr, kind).await;
        assert_eq!(dialled.is_ok(), is_open, "{kind:?}");
    }
    assert!(matches!(d.transport.propose(&a.member, Bytes::new()).await, Err(StorageError::NoLeader)));
    assert!(a.service.storage.committed.lock().is_empty());
}

#[tokio::test]
async fn sec_a_silent_node_that_no_list_has_loses_its_place() {
    let clock = TestClock::default();
    let with = async |name: &str| TestNode::with(name, &[1], Arc::new(clock.clone())).await;
    let (a, d) = (with("a").await, with("dddd").await);
    a.service.unlisted.lock().push(origin("dddd"));
    let dialled = dial(&d.open_port(), &origin("a"), &a.member.cluster_addr, Kind::Messages).await.unwrap();
    let mut halves = dialled.halves;
    // It shows all the time that it is alive.
    let alive = crate::cluster::frames::Outgoing::empty(crate::cluster::frames::tag::ALIVE);
    let mut seconds = 0;
    let mut rest = [0; 64];
    loop {
        clock.advance(Duration::from_secs(1));
        seconds += 1;
        let _ = alive.write(&mut halves.writer).await;
        let _ = tokio::io::AsyncWriteExt::flush(&mut halves.writer).await;
        let read = tokio::time::timeout(Duration::from_millis(2), halves.reader.read(&mut rest)).await;
        if matches!(read, Ok(Ok(0) | Err(_))) {
            break;
        }
        assert!(seconds < 10_000, "it keeps its place");
    }
    assert!(seconds >= 60, "{seconds}");
}
