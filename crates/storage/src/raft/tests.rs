//! Members in one process, on real directories and simulated disks, with a transport in memory.

mod behind;
mod cluster;
mod faults;
mod recovery;
mod removal;
mod restore;
mod room;
mod transport;
mod unlisted;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use self::cluster::{Cluster, put, swap};
use crate::{Backend, Batch, Change, Key, Member, Origin, PeerKind, Role, StorageError, Write};

/// Long enough for any machine: tests wait for conditions.
const PATIENCE: Duration = Duration::from_secs(30);

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_any_node_is_visible_on_all() {
    let cluster = Cluster::of(3).await;
    for (number, node) in cluster.nodes.iter().enumerate() {
        let path = format!("k{number}");
        node.commit_until(put(&path, "v")).await;
        // A follower returns when the entry is applied there, too.
        assert_eq!(node.get(&path).await.as_deref(), Some("v"));
        for other in &cluster.nodes {
            other.consensus().settled(PATIENCE).await.unwrap();
            assert_eq!(other.get(&path).await.as_deref(), Some("v"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_sees_every_acknowledged_commit() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    for number in 0..200_u64 {
        let value = number.to_string();
        let index = cluster.nodes[leader].commit_until(put("k", &value)).await;
        for node in &cluster.nodes {
            assert!(node.consensus().settled(PATIENCE).await.unwrap() >= index);
            assert_eq!(node.get("k").await.unwrap(), value);
        }
    }
}

/// A follower may apply an entry, and show it, before the leader does.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_settles_when_what_is_committed_is_applied_there() {
    let cluster = Cluster::of(3).await;
    let leader = &cluster.nodes[cluster.leader().await];
    leader.commit_until(put("before", "v")).await;
    let backend = leader.backend();
    let mut written = None;
    leader
        .without_applying(async {
            written = Some(tokio::spawn(async move { backend.commit(put("k", "v")).await }));
            leader.until(|status| status.committed > status.applied).await;
            for _ in 0..20 {
                let settled = leader.consensus().settled(Duration::from_millis(20)).await;
                assert!(settled.is_err(), "{settled:?}");
            }
        })
        .await;
    written.unwrap().await.unwrap().unwrap();
    leader.consensus().settled(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_batches_with_the_same_read_one_conflicts() {
    let cluster = Cluster::of(3).await;
    cluster.nodes[0].commit_until(put("k", "0")).await;
    for node in &cluster.nodes {
        node.consensus().settled(PATIENCE).await.unwrap();
    }
    let swap = async |node: usize| cluster.nodes[node].backend().commit(swap("k", "0", "1")).await;
    let results = <[_; 3]>::from(tokio::join!(swap(0), swap(1), swap(2)));
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let conflicts = results.iter().filter(|result| matches!(result, Err(StorageError::Conflict)));
    assert_eq!(conflicts.count(), 2, "{results:?}");
    // After a conflict, a follower reads what it conflicts with.
    for node in &cluster.nodes {
        assert_eq!(node.get("k").await.as_deref(), Some("1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_concurrent_increment_is_lost_through_any_node() {
    let cluster = Cluster::of(3).await;
    cluster.nodes[0].commit_until(put("k", "0")).await;
    let increment = async |node: usize| {
        let node = &cluster.nodes[node];
        for _ in 0..20 {
            loop {
                node.consensus().settled(PATIENCE).await.unwrap();
                let before = node.get("k").await.unwrap();
                let after = (before.parse::<u64>().unwrap() + 1).to_string();
                match node.backend().commit(swap("k", &before, &after)).await {
                    Ok(_) => break,
                    Err(StorageError::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    tokio::join!(increment(0), increment(1), increment(2));
    cluster.nodes[0].consensus().settled(PATIENCE).await.unwrap();
    assert_eq!(cluster.nodes[0].get("k").await.as_deref(), Some("60"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_without_writes_checks_its_reads_on_any_node() {
    let cluster = Cluster::of(3).await;
    let index = cluster.nodes[0].commit_until(put("k", "0")).await;
    for node in &cluster.nodes {
        let reads = |value| Batch { writes: vec![], ..swap("k", value, "") };
        assert!(node.backend().commit(reads("0")).await.unwrap() >= index);
        assert!(matches!(node.backend().commit(reads("1")).await, Err(StorageError::Conflict)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_another_member_is_never_passed_on() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let mut batch = Vec::new();
    put("k", "v").encode(&mut batch);
    let batch = Bytes::from(batch);
    let index = cluster.nodes[leader].consensus().propose(batch.clone()).await.unwrap();
    let follower = &cluster.nodes[(leader + 1) % 3];
    assert!(matches!(follower.consensus().propose(batch).await, Err(StorageError::NotLeader)));
    follower.applies(index.0).await;
    assert_eq!(follower.get("k").await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_room_refuses_puts_and_takes_deletes() {
    let cluster = Cluster::simulated(3).await;
    let leader = &cluster.nodes[cluster.leader().await];
    leader.commit_until(put("k", "v")).await;
    leader.disk.as_ref().unwrap().set_free(1 << 20);
    assert!(matches!(leader.backend().commit(put("l", "v")).await, Err(StorageError::Full)));
    leader.commit_until(Batch { reads: vec![], writes: vec![Write::Delete { key: key("k") }] }).await;
    assert_eq!((leader.get("k").await, leader.get("l").await), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_drops_the_restore_of_the_one_before() {
    let cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    cluster.nodes[first].commit_until(put("k", "v")).await;
    let (head, _) = cluster.nodes[first].consensus().snapshot().unwrap();
    let consensus = cluster.nodes[first].consensus();
    let restore = tokio::spawn(async move { consensus.restore(head, &mut transport::Endless, Bytes::new()).await });
    let staged = |node: usize| cluster.nodes[node].backend().is_restoring();
    while !staged(first) {
        tokio::task::yield_now().await;
    }
    // No batch comes between.
    assert!(matches!(cluster.nodes[first].backend().commit(put("k", "w")).await, Err(StorageError::NoLeader)));
    cluster.nodes[first].consensus().transfer(None).await.unwrap();
    let others: Vec<usize> = (0..3).filter(|number| *number != first).collect();
    let second = cluster.leader_among(&others).await;
    let index = cluster.nodes[second].commit_until(put("after", "v")).await;
    assert!(!staged(second) && restore.await.unwrap().is_err());
    cluster.nodes[first].applies(index.0).await;
    assert!(!staged(first));
    assert_eq!(cluster.nodes[first].get("k").await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_leads_when_the_leader_ends() {
    let mut cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    cluster.nodes[first].commit_until(put("before", "v")).await;
    cluster.nodes[first].end();
    let second = cluster.leader().await;
    assert_ne!(first, second);
    cluster.nodes[second].commit_until(put("after", "v")).await;
    cluster.start(first).await;
    cluster.nodes[first].applies(cluster.nodes[second].applied()).await;
    for path in ["before", "after"] {
        assert_eq!(cluster.nodes[first].get(path).await.as_deref(), Some("v"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_transfers_first() {
    let cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let term = cluster.nodes[first].status().term;
    cluster.nodes[first].consensus().stop().await;
    assert!(!cluster.nodes[first].role().is_leading());
    assert!(matches!(cluster.nodes[first].backend().commit(put("k", "v")).await, Err(StorageError::NoLeader)));
    let second = cluster.leader().await;
    assert_ne!(first, second);
    assert_eq!(cluster.nodes[second].status().term, term + 1, "the first election succeeded");
    // It comes back with what it missed.
    let index = cluster.nodes[second].commit_until(put("k", "v")).await;
    cluster.connect(first).await;
    cluster.nodes[first].applies(index.0).await;
    assert_eq!(cluster.nodes[first].get("k").await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_transfers_to_the_node_that_is_named() {
    let cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let next = (first + 1) % 3;
    cluster.nodes[first].consensus().transfer(Some(format!("n{next}"))).await.unwrap();
    assert!(!cluster.nodes[first].role().is_leading());
    assert_eq!(cluster.leader().await, next);
    let refused = cluster.nodes[first].consensus().transfer(None).await;
    assert!(matches!(refused, Err(StorageError::NotLeader)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_know_the_addresses_of_the_leader() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    for (number, node) in cluster.nodes.iter().enumerate().filter(|(number, _)| *number != leader) {
        node.waits(|role| matches!(role, Role::Following { leader: Some(_) })).await;
        let Role::Following { leader: Some(known) } = node.role() else { panic!("{number}") };
        assert_eq!(known.api_addr, format!("api-{leader}"));
        assert_eq!(known.cluster_addr, format!("cluster-{leader}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_keep_everything_over_a_restart() {
    let mut cluster = Cluster::of(3).await;
    for number in 0..20 {
        cluster.nodes[0].commit_until(put(&format!("k{number}"), "v")).await;
    }
    for number in 0..3 {
        cluster.nodes[number].end();
    }
    for number in 0..3 {
        cluster.open(number);
        // Before the start, reads work and commits do not.
        assert_eq!(cluster.nodes[number].get("k0").await.as_deref(), Some("v"));
        assert!(!cluster.nodes[number].role().is_leading());
        assert!(matches!(cluster.nodes[number].backend().commit(put("k", "v")).await, Err(StorageError::NoLeader)));
        let settled = cluster.nodes[number].consensus().settled(PATIENCE).await;
        assert!(matches!(settled, Err(StorageError::NoLeader)));
    }
    for number in 0..3 {
        cluster.connect(number).await;
    }
    let leader = cluster.leader().await;
    for node in &cluster.nodes {
        node.consensus().settled(PATIENCE).await.unwrap();
        for number in 0..20 {
            assert_eq!(node.get(&format!("k{number}")).await.as_deref(), Some("v"));
        }
    }
    cluster.nodes[leader].commit_until(put("k", "v")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_by_a_snapshot_with_all_that_is_counted() {
    let mut cluster = Cluster::lone();
    let sealed = |term: u32| Bytes::from([&[1], &term.to_le_bytes()[..], &[0; 28]].concat());
    let write = |path: &str, value| Batch { reads: vec![], writes: vec![Write::Put { key: key(path), value }] };
    for (number, term) in [1, 1, 2, 2, 2].into_iter().enumerate() {
        cluster.nodes[0].commit_until(write(&format!("s{number}"), sealed(term))).await;
    }
    // Longer than a part.
    cluster.nodes[0].commit_until(write("large", vec![7; 3 << 20].into())).await;
    cluster.connect(0).await;
    cluster.add().await;
    let joined = &cluster.nodes[1];
    joined.applies(cluster.nodes[0].applied()).await;
    assert_eq!(joined.backend().get(&key("large")).await.unwrap().unwrap().len(), 3 << 20);
    assert_eq!([1, 2, 3].map(|term| joined.backend().encryptions(term).unwrap()), [2, 3, 0]);
    joined.until(|status| !status.is_joining).await;
    let status = joined.status();
    assert!(!status.is_removed && status.is_running);
    assert_eq!(status.members.iter().map(|member| member.voter).collect::<Vec<_>>(), [true, false]);
    // Its caches are those of another state. Who waits for the end of the joining opens them after that.
    assert!(joined.replaced() > 0 && joined.replaced_while_joining() > 0);
    // The rest comes as entries.
    let index = cluster.nodes[0].commit_until(put("k", "v")).await;
    joined.applies(index.0).await;
    assert_eq!(joined.get("k").await.as_deref(), Some("v"));
    assert_eq!(cluster.nodes[0].status().peers.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_while_a_cluster_is_founded_is_not_lost() {
    let mut cluster = Cluster::lone();
    cluster.connect(0).await;
    let writes = {
        let backend = cluster.nodes[0].backend();
        tokio::spawn(async move {
            for number in 0..300 {
                let written = backend.commit(put(&format!("k{number}"), "v")).await;
                written.unwrap_or_else(|error| panic!("{number}: {error}"));
            }
        })
    };
    let mut roles = cluster.nodes[0].backend().roles().unwrap();
    cluster.add().await;
    writes.await.unwrap();
    assert!(!roles.has_changed().unwrap() && roles.borrow_and_update().is_leading(), "it leads all the time");
    cluster.nodes[1].applies(cluster.nodes[0].applied()).await;
    for number in 0..300 {
        assert_eq!(cluster.nodes[1].get(&format!("k{number}")).await.as_deref(), Some("v"));
    }
}

#[tokio::test]
async fn a_lone_node_is_the_only_voter_and_may_grow() {
    let cluster = Cluster::lone();
    let node = &cluster.nodes[0];
    let status = node.status();
    assert!(status.is_leading && !status.is_running && !status.is_joining && !status.is_removed);
    assert_eq!(
        status.members.iter().map(|member| (member.node.as_str(), member.voter)).collect::<Vec<_>>(),
        [("n0", true)]
    );
    assert_eq!(status.id, Some(status.members[0].id));
    let index = node.backend().commit(put("k", "v")).await.unwrap();
    assert_eq!(node.consensus().settled(PATIENCE).await.unwrap(), index);
    assert_eq!(node.consensus().read_index().await.unwrap(), index);
    let roles = node.backend().roles().unwrap();
    assert!(roles.has_changed().is_ok(), "the sender lives");
    assert!(matches!(node.consensus().transfer(None).await, Err(StorageError::NoTarget)));
    assert!(matches!(node.consensus().change(Change::Remove("n0".into())).await, Err(StorageError::Change(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_empty_directory_joins() {
    let cluster = Cluster::of(3).await;
    let mut lone = Cluster::lone();
    lone.nodes[0].commit_until(put("k", "v")).await;
    let members = cluster.nodes[0].status().members;
    let joined = crate::Joined { cluster_id: "c".into(), members };
    assert!(matches!(lone.nodes[0].consensus().join(joined.clone()).await, Err(StorageError::Layout(_))));
    assert!(matches!(cluster.nodes[1].consensus().join(joined).await, Err(StorageError::Layout(_))));
    // Nothing has changed.
    lone.nodes[0].end();
    lone.open(0);
    assert!(lone.nodes[0].role().is_leading() && !lone.nodes[0].status().is_joining);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_and_restarts_goes_on() {
    let mut cluster = Cluster::of(1).await;
    cluster.nodes[0].commit_until(put("k", "v")).await;
    let added = cluster.prepare().await;
    assert!(cluster.nodes[added].status().is_joining);
    cluster.nodes[added].end();
    cluster.open(added);
    assert!(cluster.nodes[added].status().is_joining && !cluster.nodes[added].role().is_leading());
    assert!(matches!(cluster.nodes[added].backend().commit(put("k", "w")).await, Err(StorageError::NoLeader)));
    // Another cluster does not take it over; the same one may begin again.
    let members = cluster.nodes[0].status().members;
    let other = crate::Joined { cluster_id: "other".into(), members: members.clone() };
    let added_to = cluster.nodes[added].consensus();
    assert!(matches!(added_to.join(other).await, Err(StorageError::Layout(_))));
    added_to.join(crate::Joined { cluster_id: "c".into(), members }).await.unwrap();
    cluster.connect(added).await;
    cluster.nodes[added].applies(cluster.nodes[0].applied()).await;
    assert_eq!(cluster.nodes[added].get("k").await.as_deref(), Some("v"));
    // Published after the watchers have the new records.
    cluster.nodes[added].until(|status| !status.is_joining).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_followers_commits_and_confirms_nothing() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    cluster.transport.isolate(leader);
    let node = &cluster.nodes[leader];
    let backend = node.backend();
    let lost = tokio::spawn(async move { backend.commit(put("lost", "v")).await });
    node.waits(|role| !role.is_leading()).await;
    let settled = node.consensus().settled(Duration::from_millis(200)).await;
    assert!(matches!(settled, Err(StorageError::NoLeader)), "{settled:?}");
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    let second = cluster.leader_among(&others).await;
    let index = cluster.nodes[second].commit_until(put("kept", "v")).await;
    cluster.transport.heal();
    node.applies(index.0).await;
    // Another entry has the place of the lost one, which may run again.
    assert!(matches!(lost.await.unwrap(), Err(StorageError::NotCommitted)));
    assert_eq!((node.get("lost").await, node.get("kept").await.as_deref()), (None, Some("v")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_takes_effect_before_it_is_answered() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    let consensus = cluster.nodes[leader].consensus();
    let voters = || consensus.status().members.iter().filter(|member| member.voter).count();
    consensus.change(Change::Demote(format!("n{other}"))).await.unwrap();
    assert_eq!(voters(), 2);
    consensus.change(Change::Promote(format!("n{other}"))).await.unwrap();
    assert_eq!(voters(), 3);
    consensus.change(Change::Remove(format!("n{other}"))).await.unwrap();
    assert_eq!(consensus.status().members.len(), 2);
    let unknown = consensus.change(Change::Promote(format!("n{other}"))).await;
    assert!(matches!(unknown, Err(StorageError::Change(crate::ChangeError::Unknown))));
    let not_here = cluster.nodes[other].consensus().change(Change::Promote("n0".into())).await;
    assert!(matches!(not_here, Err(StorageError::NotLeader)));
    cluster.nodes[leader].commit_until(put("k", "v")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_alone_again_commits_alone_and_may_grow() {
    let mut cluster = Cluster::of(2).await;
    while cluster.leader().await != 0 {
        let _ = cluster.nodes[1].consensus().transfer(Some("n0".into())).await;
    }
    assert!(!cluster.nodes[0].consensus().is_alone());
    cluster.nodes[0].consensus().change(Change::Remove("n1".into())).await.unwrap();
    assert!(cluster.nodes[0].consensus().is_alone());
    cluster.nodes[1].end();
    cluster.nodes[0].commit_until(put("before", "v")).await;
    let before = cluster.nodes[0].status();
    cluster.nodes[0].end();
    cluster.open(0);
    // Without a start.
    assert!(cluster.nodes[0].role().is_leading());
    let index = cluster.nodes[0].backend().commit(put("after", "v")).await.unwrap();
    assert!(index.0 > before.applied && cluster.nodes[0].status().term >= before.term);
    assert_eq!(cluster.nodes[0].get("before").await.as_deref(), Some("v"));
    assert!(cluster.nodes[0].consensus().is_alone());
    cluster.connect_as(0, "moved").await;
    cluster.add().await;
    assert!(!cluster.nodes[0].consensus().is_alone());
    let index = cluster.nodes[0].commit_until(put("last", "v")).await;
    cluster.nodes[2].applies(index.0).await;
    assert_eq!(cluster.nodes[2].get("after").await.as_deref(), Some("v"));
    // The new member reaches it where it is now.
    for status in [cluster.nodes[0].status(), cluster.nodes[2].status()] {
        let first = status.members.iter().find(|member| member.node == "n0").unwrap();
        assert_eq!((first.api_addr.as_str(), first.cluster_addr.as_str()), ("api-moved", "cluster-moved"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_stops_and_does_not_start_again() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    // The others need its vote no more, and it applies the list if the last messages reach it.
    cluster.nodes[leader].consensus().change(Change::Remove(format!("n{leader}"))).await.unwrap();
    cluster.nodes[leader].waits(|role| !role.is_leading()).await;
    cluster.nodes[leader].until(|status| status.is_removed).await;
    assert!(cluster.nodes[leader].consensus().is_removed());
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    let second = cluster.leader_among(&others).await;
    cluster.nodes[second].commit_until(put("k", "v")).await;
    cluster.nodes[leader].end();
    cluster.open(leader);
    let removed = &cluster.nodes[leader];
    assert!(removed.status().is_removed && !removed.role().is_leading());
    let (transport, addresses) = cluster.place(leader, "again");
    assert!(matches!(removed.consensus().start(transport, addresses).await, Err(StorageError::Removed)));
    assert!(matches!(removed.backend().commit(put("k", "w")).await, Err(StorageError::NoLeader)));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_addresses_of_the_leader_reach_all() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    cluster.connect_as(leader, "moved").await;
    for node in &cluster.nodes {
        node.until(|status| status.members.iter().any(|member| member.api_addr == "api-moved")).await;
    }
}

/// A leader may count by the longer one until it has applied a list with the shorter one.
#[tokio::test(flavor = "multi_thread")]
async fn a_longer_election_timeout_is_forgotten_once_all_know_a_shorter_one() {
    let mut cluster = Cluster::of(3).await;
    let announced = |cluster: &Cluster| cluster.nodes[0].backend().announced_ms();
    let listed = |election_ms| {
        move |status: &crate::ClusterStatus| {
            status.members.iter().any(|member| member.node == "n0" && member.election_ms == election_ms)
        }
    };
    for (seconds, before) in [(2, 2000), (1, 2000)] {
        cluster.nodes[0].end();
        cluster.nodes[0].election = Duration::from_secs(seconds);
        cluster.open(0);
        assert_eq!(announced(&cluster), before);
        cluster.connect(0).await;
        cluster.lead(0).await;
        for node in &cluster.nodes {
            node.until(listed(seconds as u32 * 1000)).await;
        }
        // A thread that may wait for the disk stores a shorter one.
        cluster.nodes[0].until(|_| announced(&cluster) == seconds as u32 * 1000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_replaces_all_records_on_all_nodes() {
    let cluster = Cluster::of(3).await;
    for number in 0..30 {
        cluster.nodes[0].commit_until(put(&format!("old{number}"), &"v".repeat(100_000))).await;
    }
    cluster.nodes[0].consensus().settled(PATIENCE).await.unwrap();
    let (head, mut parts) = cluster.nodes[0].consensus().snapshot().unwrap();
    let mut stored = Vec::new();
    while let Some(part) = parts.next().await.unwrap() {
        stored.push(part);
    }
    assert!(stored.len() > 10 && stored.iter().all(|part| part.len() <= crate::MAX_SNAPSHOT_PART));
    cluster.nodes[0].commit_until(put("new", "v")).await;
    let index = loop {
        // On a slow machine the leader may be another one in the middle.
        let leader = cluster.nodes[cluster.leader().await].consensus();
        match leader.restore(head.clone(), &mut transport::Cut(stored.clone()), "mark".into()).await {
            Ok(index) => break index,
            Err(StorageError::NotLeader | StorageError::NotCommitted | StorageError::Unknown) => {}
            Err(error) => panic!("{error}"),
        }
    };
    for node in &cluster.nodes {
        node.applies(index.0).await;
        assert_eq!(node.get("new").await, None);
        assert_eq!(node.get("barrier/restored").await.as_deref(), Some("mark"), "in the same entry");
        for number in 0..30 {
            assert_eq!(node.get(&format!("old{number}")).await.unwrap().len(), 100_000);
        }
        assert!(node.replaced() > 0);
    }
    cluster.nodes[0].commit_until(put("k", "v")).await;
}

#[tokio::test]
async fn a_lone_node_restores_and_keeps_its_records_after_a_bad_snapshot() {
    let cluster = Cluster::lone();
    let node = &cluster.nodes[0];
    node.commit_until(put("old", "v")).await;
    let (head, mut parts) = node.consensus().snapshot().unwrap();
    node.commit_until(put("new", "v")).await;
    let mut cut = transport::Cut(vec![Bytes::from_static(&[1, 1, 0, 0, 0])]);
    assert!(node.consensus().restore(head.clone(), &mut cut, "mark".into()).await.is_err());
    assert_eq!(node.get("new").await.as_deref(), Some("v"));
    assert_eq!(node.get("barrier/restored").await, None);
    let index = node.consensus().restore(head, &mut *parts, "mark".into()).await.unwrap();
    assert_eq!((node.get("old").await.as_deref(), node.get("new").await), (Some("v"), None));
    assert!(node.backend().commit(put("k", "v")).await.unwrap() > index);
}

crate::backend_suite!(suite_of_a_leader, || async {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    (cluster.nodes[leader].backend() as Arc<dyn Backend>, cluster)
});
