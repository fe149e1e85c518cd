//! Devices without room.

use super::*;
use crate::local::sim_disk::Fault;

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_without_room_waits_and_goes_on_when_there_is() {
    let cluster = Cluster::simulated(3).await;
    let leader = cluster.leader().await;
    let follower = &cluster.nodes[(leader + 1) % 3];
    let disk = follower.disk.as_ref().unwrap();
    disk.set_free(1 << 20);
    let before = follower.applied();
    let mut index = crate::Index(0);
    for _ in 0..20 {
        index = cluster.nodes[leader].commit_until(put("k", "v")).await;
        cluster.nodes[(leader + 2) % 3].applies(index.0).await;
    }
    assert!(follower.applied() == before && follower.status().is_running);
    disk.set_free(1 << 40);
    follower.applies(index.0).await;
    assert_eq!(follower.get("k").await.as_deref(), Some("v"));
}

/// What was not written is not acknowledged, and not lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_room_is_tried_again() {
    for is_leader in [false, true] {
        let mut cluster = Cluster::simulated(3).await;
        let leader = cluster.leader().await;
        let victim = if is_leader { leader } else { (leader + 1) % 3 };
        let disk = cluster.nodes[victim].disk.clone().unwrap();
        cluster.nodes[victim].rests().await;
        disk.fail_at(disk.operations(), Fault::FullOnce);
        for number in 0..5 {
            let index = cluster.nodes[leader].commit_until(put(&format!("k{number}"), "v")).await;
            cluster.nodes[victim].applies(index.0).await;
        }
        assert!(cluster.nodes[victim].status().is_running);
        // All of it is durable there.
        cluster.nodes[victim].end();
        disk.lose_power();
        cluster.open(victim);
        cluster.connect(victim).await;
        cluster.nodes[victim].consensus().settled(PATIENCE).await.unwrap();
        for number in 0..5 {
            assert!(cluster.nodes[victim].get(&format!("k{number}")).await.is_some(), "{number}");
        }
    }
}
