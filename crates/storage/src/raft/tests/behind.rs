//! Members that are behind what the leader has in memory.

use super::{PATIENCE, cluster::Cluster, cluster::put};
use crate::{Backend as _, raft::boot::WINDOW};

/// Writes while one member is down: more than the leader has in memory.
async fn write_without(cluster: &mut Cluster, writes: u64) -> (usize, usize) {
    let leader = cluster.leader().await;
    let behind = (leader + 1) % 3;
    cluster.nodes[behind].end();
    let value = "v".repeat((2 * WINDOW / writes) as usize);
    let backend = cluster.nodes[leader].backend();
    for group in (0..writes).collect::<Vec<_>>().chunks(100) {
        let commits = group.iter().map(|number| {
            let (backend, batch) = (backend.clone(), put(&format!("k{number}"), &value));
            tokio::spawn(async move { backend.commit(batch).await })
        });
        for commit in commits.collect::<Vec<_>>() {
            commit.await.unwrap().unwrap();
        }
    }
    (leader, behind)
}

async fn catches_up(cluster: &mut Cluster, leader: usize, behind: usize, writes: u64) {
    // It has joined by snapshots.
    let snapshots = cluster.nodes[behind].replaced();
    cluster.start(behind).await;
    let node = &cluster.nodes[behind];
    node.applies(cluster.nodes[leader].applied()).await;
    for number in [0, writes / 2, writes - 1] {
        assert!(node.get(&format!("k{number}")).await.is_some(), "{number}");
    }
    assert_eq!(node.replaced(), snapshots, "a snapshot was sent");
    let index = cluster.nodes[leader].commit_until(put("after", "v")).await;
    cluster.nodes[behind].consensus().applied(index, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_missed_thousands_of_writes_gets_entries() {
    let mut cluster = Cluster::of(3).await;
    let (leader, behind) = write_without(&mut cluster, 4000).await;
    catches_up(&mut cluster, leader, behind, 4000).await;
}

/// What a start leaves on the disk is read, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_has_restarted_sends_entries_of_its_log() {
    let mut cluster = Cluster::of(3).await;
    let (leader, behind) = write_without(&mut cluster, 500).await;
    let third = 3 - leader - behind;
    cluster.nodes[third].applies(cluster.nodes[leader].applied()).await;
    for node in [leader, third] {
        cluster.nodes[node].end();
    }
    for node in [leader, third] {
        cluster.start(node).await;
    }
    let leader = cluster.leader_among(&[leader, third]).await;
    cluster.nodes[leader].commit_until(put("between", "v")).await;
    catches_up(&mut cluster, leader, behind, 500).await;
}
