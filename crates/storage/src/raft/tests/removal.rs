//! A member that misses its removal.

use keepfast_consensus::{Body, Message, Origin};

use super::*;

/// The leader, a voter that is removed while it is cut off, and the other one.
async fn removed_while_away(cluster: &Cluster) -> (usize, usize) {
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    cluster.transport.isolate(away);
    cluster.nodes[leader].consensus().change(Change::Remove(format!("n{away}"))).await.unwrap();
    (leader, away)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_misses_its_removal_learns_it_from_the_leader() {
    let mut cluster = Cluster::of(3).await;
    let (leader, away) = removed_while_away(&cluster).await;
    assert!(!cluster.nodes[away].status().is_removed);
    cluster.nodes[away].until(|status| status.leader.is_none()).await;
    let mut roles = cluster.nodes[away].backend().roles().unwrap();
    roles.borrow_and_update();
    cluster.transport.heal();
    cluster.nodes[away].until(|status| status.is_removed && !status.is_running).await;
    // Those who follow the role look again.
    tokio::time::timeout(PATIENCE, roles.changed()).await.unwrap().unwrap();
    let removed = &cluster.nodes[away];
    // It has its own list still, and its records.
    assert_eq!(removed.status().members.len(), 3);
    assert!(matches!(removed.backend().commit(put("k", "v")).await, Err(StorageError::NoLeader)));
    let (transport, addresses) = cluster.place(away, "again");
    assert!(matches!(removed.consensus().start(transport, addresses).await, Err(StorageError::Removed)));
    cluster.nodes[leader].commit_until(put("k", "v")).await;
    // It is durable.
    cluster.nodes[away].end();
    cluster.open(away);
    assert!(cluster.nodes[away].status().is_removed);
    let (transport, addresses) = cluster.place(away, "again");
    let started = cluster.nodes[away].consensus().start(transport, addresses).await;
    assert!(matches!(started, Err(StorageError::Removed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_a_follower_sends_is_ignored() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let (victim, forger) = (&cluster.nodes[(leader + 1) % 3], &cluster.nodes[(leader + 2) % 3]);
    victim.until(|status| status.leader.is_some()).await;
    let status = victim.status();
    let origin = forger.consensus().identity();
    let from = forger.status().id.unwrap();
    let incarnation = victim.consensus().identity().incarnation;
    let body = Body::Gone { commit: status.applied + 100, incarnation };
    let message = Message { from, to: status.id.unwrap(), term: status.term, body };
    victim.consensus().deliver(origin, message.encode());
    let index = cluster.nodes[leader].commit_until(put("k", "v")).await;
    victim.applies(index.0).await;
    assert!(!victim.status().is_removed && victim.status().is_running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_long_after_its_removal_ends_by_proof() {
    let mut cluster = Cluster::of(3).await;
    let (leader, away) = removed_while_away(&cluster).await;
    let directory = cluster.nodes[away].consensus().identity().incarnation;
    cluster.nodes[leader].commit_until(put("k", "v")).await;
    let index = cluster.nodes[leader].consensus().departed(directory).await.unwrap();
    // A member has not departed, and only the leader knows who has.
    let other = (leader + 2) % 3;
    let member = cluster.nodes[other].consensus().identity().incarnation;
    assert!(matches!(cluster.nodes[leader].consensus().departed(member).await, Err(StorageError::NoLeader)));
    assert!(cluster.nodes[other].consensus().departed(directory).await.is_err());
    // It gets it on another way than by a message of Raft.
    cluster.nodes[away].consensus().leave(index).await.unwrap();
    assert!(cluster.nodes[away].status().is_removed && !cluster.nodes[away].status().is_running);
    cluster.nodes[away].end();
    cluster.open(away);
    assert!(cluster.nodes[away].status().is_removed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_that_is_removed_ends() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let removed = (leader + 1) % 3;
    cluster.nodes[leader].consensus().change(Change::Remove(format!("n{removed}"))).await.unwrap();
    cluster.nodes[removed].until(|status| status.is_removed && !status.is_running).await;
    assert!(cluster.nodes[leader].status().members.len() == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_known_by_its_name_and_its_directory() {
    let mut cluster = Cluster::of(3).await;
    for node in &cluster.nodes {
        node.until(|status| status.leader.is_some()).await;
        for other in &cluster.nodes {
            let origin = other.consensus().identity();
            assert_eq!(node.consensus().peer_kind(&origin), PeerKind::Member);
            for stranger in [
                Origin { incarnation: [9; 16], ..origin.clone() },
                Origin { node: "other".to_owned(), ..origin.clone() },
            ] {
                assert_eq!(node.consensus().peer_kind(&stranger), PeerKind::Unknown);
            }
        }
    }
    let (leader, away) = removed_while_away(&cluster).await;
    let consensus = cluster.nodes[leader].consensus();
    assert_eq!(consensus.peer_kind(&cluster.nodes[away].consensus().identity()), PeerKind::Removed);
    assert_eq!(consensus.leader().map(|leader| leader.node), Some(consensus.identity().node));
    // Also after a restart.
    let gone = cluster.nodes[away].consensus().identity();
    cluster.nodes[leader].end();
    cluster.open(leader);
    assert_eq!(cluster.nodes[leader].consensus().peer_kind(&gone), PeerKind::Removed);
}
