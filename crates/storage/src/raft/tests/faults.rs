//! Disks that fail under members.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_consensus::{Body, LogId, Message};

use super::{
    cluster::{Cluster, options, put},
    key,
};
use crate::{
    Addresses, Backend, Index, Joined, LocalBackend, Member, Origin, RaftId, SnapshotParts, StorageError, Transport,
    local::{
        disk::Disk,
        sim_disk::{Fault, SimDisk},
        state::FILE_NEW,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_fails_stops_and_the_others_go_on() {
    for is_leader in [true, false] {
        let mut cluster = Cluster::simulated(3).await;
        let leader = cluster.leader().await;
        cluster.nodes[leader].commit_until(put("before", "v")).await;
        let victim = if is_leader { leader } else { (leader + 1) % 3 };
        let disk = cluster.nodes[victim].disk.clone().unwrap();
        disk.fail_at(disk.operations(), Fault::Crash);
        let others: Vec<usize> = (0..3).filter(|number| *number != victim).collect();
        if is_leader {
            let failed = cluster.nodes[victim].backend().commit(put("lost", "v")).await;
            assert!(failed.is_err());
        }
        let second = cluster.leader_among(&others).await;
        let index = cluster.nodes[second].commit_until(put("after", "v")).await;
        cluster.nodes[victim].waits(|role| !role.is_leading()).await;
        cluster.nodes[others[0]].applies(index.0).await;
        cluster.nodes[others[1]].applies(index.0).await;
        if is_leader {
            let stopped = cluster.nodes[victim].backend().commit(put("k", "v")).await;
            assert!(matches!(stopped, Err(StorageError::Stopped(_))), "{stopped:?}");
            assert!(!cluster.nodes[victim].status().is_running);
        }
        // After the power came back it has what it had acknowledged, and gets the rest.
        cluster.nodes[victim].end();
        disk.lose_power();
        cluster.start(victim).await;
        cluster.nodes[victim].applies(index.0).await;
        for path in ["before", "after"] {
            assert_eq!(cluster.nodes[victim].get(path).await.as_deref(), Some("v"));
        }
    }
}

/// A thread that panics would leave a leader that applies nothing.
#[tokio::test(flavor = "multi_thread")]
async fn another_node_leads_when_a_thread_of_the_leader_panics() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    cluster.nodes[leader].plant_panic();
    let lost = cluster.nodes[leader].backend().commit(put("lost", "v")).await;
    assert!(lost.is_err(), "{lost:?}");
    cluster.nodes[leader].waits(|role| !role.is_leading()).await;
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    let second = cluster.leader_among(&others).await;
    cluster.nodes[second].commit_until(put("after", "v")).await;
    let stopped = cluster.nodes[leader].backend().commit(put("k", "v")).await;
    assert!(matches!(stopped, Err(StorageError::Stopped(_))), "{stopped:?}");
    cluster.nodes[leader].until(|status| !status.is_running && status.leader.is_none()).await;
}

#[tokio::test]
async fn a_lone_node_whose_thread_panics_commits_no_more_and_serves_reads() {
    let cluster = Cluster::lone();
    let node = &cluster.nodes[0];
    node.commit_until(put("before", "v")).await;
    node.plant_panic();
    assert!(node.backend().commit(put("lost", "v")).await.is_err());
    let stopped = node.backend().commit(put("k", "v")).await;
    assert!(matches!(stopped, Err(StorageError::Stopped(_))), "{stopped:?}");
    assert_eq!(node.get("before").await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_lose_power_and_keep_what_was_acknowledged() {
    let mut cluster = Cluster::simulated(3).await;
    for number in 0..30 {
        let node = &cluster.nodes[number % 3];
        node.commit_until(put(&format!("k{number}"), "v")).await;
    }
    for node in &cluster.nodes {
        let disk = node.disk.clone().unwrap();
        disk.fail_at(disk.operations(), Fault::Crash);
    }
    for number in 0..3 {
        cluster.nodes[number].end();
        cluster.nodes[number].disk.clone().unwrap().lose_power();
    }
    for number in 0..3 {
        cluster.start(number).await;
    }
    for node in &cluster.nodes {
        node.consensus().settled(super::PATIENCE).await.unwrap();
        for number in 0..30 {
            assert_eq!(node.get(&format!("k{number}")).await.as_deref(), Some("v"), "{number}");
        }
    }
}

/// Reaches nobody.
struct Nowhere;

#[async_trait]
impl Transport for Nowhere {
    fn send(&self, _: &Member, _: Bytes) {}

    async fn send_snapshot(&self, _: &Member, _: Bytes, _: Box<dyn SnapshotParts>) -> Result<(), StorageError> {
        Err(StorageError::NoLeader)
    }

    async fn propose(&self, _: &Member, _: Bytes) -> Result<Index, StorageError> {
        Err(StorageError::NoLeader)
    }

    async fn read_index(&self, _: &Member) -> Result<Index, StorageError> {
        Err(StorageError::NoLeader)
    }
}

fn member(id: u64, node: &LocalBackend) -> Member {
    let Origin { node, incarnation } = node.consensus().unwrap().identity();
    let (cluster_addr, api_addr, version) = (String::new(), String::new(), String::new());
    let (id, voter, wants_vote, election_ms) = (RaftId(id), id == 1, true, 300);
    Member { id, node, incarnation, cluster_addr, api_addr, voter, wants_vote, election_ms, version }
}

async fn start(node: &LocalBackend) -> Result<(), StorageError> {
    let addresses = Addresses { api_addr: String::new(), cluster_addr: String::new(), version: String::new() };
    node.consensus().unwrap().start(Arc::new(Nowhere), addresses).await
}

fn open(disk: &SimDisk, name: &str) -> LocalBackend {
    LocalBackend::open_on(Arc::new(disk.clone()), options(name), None).unwrap()
}

/// Passes a snapshot of `leader` to `node`.
async fn install(leader: &LocalBackend, node: &LocalBackend) -> Result<(), StorageError> {
    let consensus = leader.consensus().unwrap();
    let (head, mut parts) = consensus.snapshot().unwrap();
    let last = LogId { term: head.term, index: head.index.0 };
    let body = Body::Snapshot { last, members: vec![member(1, leader), member(2, node)] };
    let message = Message { from: RaftId(1), to: RaftId(2), term: 3, body };
    let node = node.consensus().unwrap();
    node.receive_snapshot(consensus.identity(), message.encode(), &mut *parts).await
}

/// A node that joins on this disk.
async fn joiner(leader: &LocalBackend, disk: &SimDisk) -> LocalBackend {
    let node = open(disk, "n2");
    let members = vec![member(1, leader), member(2, &node)];
    node.consensus().unwrap().join(Joined { cluster_id: "c".into(), members }).await.unwrap();
    start(&node).await.unwrap();
    node
}

async fn value(node: &LocalBackend, path: &str) -> Option<Bytes> {
    node.get(&key(path)).await.unwrap()
}

/// Lets the power fail at each operation of an install. `is_second`: over the state of an earlier one.
async fn power_fails_at_every_operation(is_second: bool) {
    let leader = open(&SimDisk::new(1), "n1");
    let (mut at, mut is_complete) = (0, false);
    while !is_complete {
        leader.commit(put("old", "v")).await.unwrap();
        let disk = SimDisk::new(at as u64 + 2);
        let node = joiner(&leader, &disk).await;
        if is_second {
            install(&leader, &node).await.unwrap();
        }
        let new = format!("new{at}");
        let index = leader.commit(put(&new, "v")).await.unwrap();
        disk.fail_at(disk.operations() + at, Fault::Crash);
        is_complete = install(&leader, &node).await.is_ok();
        drop(node);
        disk.lose_power();
        let node = open(&disk, "n2");
        let status = node.consensus().unwrap().status();
        assert_eq!(value(&node, &new).await.is_some(), status.applied == index.0, "{at}");
        assert!(!is_complete || status.applied == index.0, "{at}: an install that was reported is lost");
        assert_eq!(value(&node, "old").await.is_some(), is_second || status.applied == index.0, "{at}");
        assert_eq!(status.is_joining, !is_second && status.applied != index.0, "{at}");
        // It goes on.
        start(&node).await.unwrap();
        install(&leader, &node).await.unwrap();
        assert!(value(&node, &new).await.is_some() && !node.consensus().unwrap().status().is_joining, "{at}");
        at += 1;
    }
    assert!(at > 10, "{at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn power_fails_at_every_operation_of_a_first_snapshot() {
    power_fails_at_every_operation(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_fails_at_every_operation_of_a_later_snapshot() {
    power_fails_at_every_operation(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_cut_leaves_the_state_and_no_file() {
    let (leader, disk) = (open(&SimDisk::new(1), "n1"), SimDisk::new(2));
    leader.commit(put("old", "v")).await.unwrap();
    let node = joiner(&leader, &disk).await;
    install(&leader, &node).await.unwrap();
    let consensus = node.consensus().unwrap();
    let body =
        Body::Snapshot { last: LogId { term: 3, index: 90 }, members: vec![member(1, &leader), member(2, &node)] };
    let head = Message { from: RaftId(1), to: RaftId(2), term: 3, body }.encode();
    let origin = leader.consensus().unwrap().identity();
    let is_left = || disk.names("").unwrap().iter().any(|name| name == FILE_NEW);
    let mut cut = super::transport::Cut(vec![Bytes::from_static(&[1, 1, 0, 0, 0])]);
    assert!(consensus.receive_snapshot(origin.clone(), head.clone(), &mut cut).await.is_err());
    assert!(value(&node, "old").await.is_some() && !is_left());
    // Its sender goes away in the middle.
    let mut never = super::restore::Never;
    let received = consensus.receive_snapshot(origin, head, &mut never);
    let began = async {
        while !is_left() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        received = received => panic!("{received:?}"),
        () = began => {}
    }
    while is_left() {
        tokio::task::yield_now().await;
    }
    // The file is deleted before the next snapshot may begin.
    let installed = loop {
        match install(&leader, &node).await {
            Err(StorageError::InProgress) => tokio::task::yield_now().await,
            other => break other,
        }
    };
    installed.unwrap();
}
