//! A node that was away while its successors were added.

use super::*;

/// Of {n1, n2, n3} the node n2 has an old list, without n3, and n1 is down: n2 and n3 are a majority.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_an_old_list_elects_one_that_it_does_not_know() {
    let mut cluster = Cluster::of(3).await;
    cluster.lead(0).await;
    cluster.nodes[2].end();
    cluster.add().await;
    cluster.nodes[3].applies(cluster.nodes[0].applied()).await;
    let changes = async |number: usize, change: Change| cluster.nodes[number].consensus().change(change).await.unwrap();
    changes(0, Change::Promote("n3".into())).await;
    // A removed leader cannot commit the removal of itself alone.
    cluster.lead(1).await;
    let index = changes(1, Change::Remove("n0".into())).await;
    cluster.nodes[3].applies(index.0).await;
    cluster.nodes[0].end();
    cluster.nodes[1].end();
    cluster.start(2).await;
    assert!(!cluster.nodes[2].status().members.iter().any(|member| member.node == "n3"));
    let leader = cluster.leader_among(&[2, 3]).await;
    assert_eq!(leader, 3, "the log of the other one is shorter");
    let index = cluster.nodes[3].commit_until(put("k", "v")).await;
    cluster.nodes[2].applies(index.0).await;
    let members = cluster.nodes[2].status().members;
    assert_eq!(members.iter().map(|member| &*member.node).collect::<Vec<_>>(), ["n1", "n2", "n3"]);
    let consensus = cluster.nodes[2].consensus();
    let kind = |origin: Origin| consensus.peer_kind(&origin);
    let origin = |member: &Member| Origin { node: member.node.clone(), incarnation: member.incarnation };
    assert!(members.iter().all(|member| kind(origin(member)) == PeerKind::Member));
    let stranger = Origin { node: "n9".into(), incarnation: [9; 16] };
    assert_eq!(kind(stranger), PeerKind::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_has_the_standing_of_one() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let [removed, stays] = [(leader + 1) % 3, (leader + 2) % 3];
    let origin = cluster.nodes[removed].consensus().identity();
    assert_eq!(cluster.nodes[stays].consensus().peer_kind(&origin), PeerKind::Member);
    let change = Change::Remove(format!("n{removed}"));
    let index = cluster.nodes[leader].consensus().change(change).await.unwrap();
    for number in [leader, stays] {
        cluster.nodes[number].applies(index.0).await;
        cluster.nodes[number].until(|status| status.members.len() == 2).await;
        assert_eq!(cluster.nodes[number].consensus().peer_kind(&origin), PeerKind::Removed);
    }
    // Another disk under its name is another node.
    let other_disk = Origin { incarnation: [9; 16], ..origin };
    assert_eq!(cluster.nodes[stays].consensus().peer_kind(&other_disk), PeerKind::Unknown);
}
