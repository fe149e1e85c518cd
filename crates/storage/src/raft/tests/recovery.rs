//! A cluster without a quorum is recovered from `raft/peers.json`.

use std::{collections::HashSet, sync::Arc};

use super::{
    cluster::{Cluster, options, put},
    *,
};
use crate::{
    LocalBackend,
    local::sim_disk::{Fault, SimDisk},
};

fn peer(number: usize) -> String {
    format!(r#"{{"id": "n{number}", "address": "cluster-{number}", "non_voter": false}}"#)
}

fn peers(numbers: &[usize]) -> String {
    format!("[{}]", numbers.iter().map(|number| peer(*number)).collect::<Vec<_>>().join(","))
}

fn names(members: &[Member]) -> Vec<&str> {
    let mut names: Vec<_> = members.iter().map(|member| &*member.node).collect();
    names.sort_unstable();
    names
}

/// Three voters that have stopped, with a record.
async fn stopped() -> Cluster {
    let mut cluster = Cluster::of(3).await;
    let index = cluster.nodes[0].commit_until(put("before", "v")).await;
    for node in &mut cluster.nodes {
        node.applies(index.0).await;
        node.end();
    }
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_is_recovered_with_its_records() {
    let mut cluster = stopped().await;
    cluster.nodes[1].write_peers(&peers(&[1]));
    for _ in 0..2 {
        cluster.start(1).await;
        assert_eq!(cluster.leader_among(&[1]).await, 1);
        assert!(!cluster.nodes[1].has_peers());
        assert_eq!(names(&cluster.nodes[1].status().members), ["n1"]);
        assert_eq!(cluster.nodes[1].get("before").await.as_deref(), Some("v"));
        cluster.nodes[1].commit_until(put("after", "v")).await;
        cluster.nodes[1].end();
    }
    // Other nodes join it as usual; its former members do not disturb it.
    cluster.start(1).await;
    cluster.start(0).await;
    cluster.start(2).await;
    cluster.add().await;
    cluster.nodes[3].applies(cluster.nodes[1].applied()).await;
    assert_eq!(cluster.nodes[3].get("after").await.as_deref(), Some("v"));
    assert_eq!(names(&cluster.nodes[1].status().members), ["n1", "n3"]);
    assert!(cluster.nodes[0].get("after").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_one_file_come_together_and_ignore_others() {
    let mut cluster = stopped().await;
    for number in [0, 1] {
        cluster.nodes[number].write_peers(&peers(&[0, 1]));
    }
    for number in 0..3 {
        cluster.start(number).await;
    }
    let leader = cluster.leader_among(&[0, 1]).await;
    let index = cluster.nodes[leader].commit_until(put("after", "v")).await;
    for number in [0, 1] {
        cluster.nodes[number].applies(index.0).await;
        assert_eq!(cluster.nodes[number].get("after").await.as_deref(), Some("v"));
        assert_eq!(names(&cluster.nodes[number].status().members), ["n0", "n1"]);
    }
    // The third one has the old list, and no leader.
    let old = cluster.nodes[2].status();
    assert_eq!((names(&old.members).len(), old.leader, old.is_removed), (3, None, false));
    assert!(cluster.nodes[2].get("after").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_different_files_have_no_number_in_common() {
    let cluster = stopped().await;
    let ids = |number: usize, text: &str| {
        cluster.nodes[number].write_peers(text);
        let opened = cluster.nodes[number].try_open().unwrap();
        let members = opened.consensus().unwrap().status().members;
        members.iter().map(|member| member.id).collect::<HashSet<_>>()
    };
    let first = ids(0, &peers(&[0, 1]));
    assert_eq!((first.len(), &ids(1, &peers(&[0, 1]))), (2, &first));
    // Another address, another member, another vote; and the same file again, which begins another cluster.
    let third = ids(2, &peers(&[0, 1, 2]));
    let moved = ids(2, &peers(&[0, 2]).replace("cluster-0", "elsewhere"));
    let learner = ids(1, &peers(&[0, 1]).replacen("false", "true", 1));
    let again = ids(0, &peers(&[0, 1]));
    let all: HashSet<_> = [&first, &third, &moved, &learner, &again].into_iter().flatten().collect();
    assert_eq!(all.len(), 2 + 3 + 2 + 2 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_changes_nothing() {
    let cluster = stopped().await;
    let node = &cluster.nodes[0];
    let many = format!("[{}]", (0..65).map(peer).collect::<Vec<_>>().join(","));
    for (text, why) in [
        ("".to_owned(), "EOF"),
        ("{}".to_owned(), "expected a sequence"),
        ("[]".to_owned(), "no voter"),
        (r#"[{"id": "n0"}]"#.to_owned(), "address"),
        (peers(&[0]).replace("non_voter", "nonvoter"), "nonvoter"),
        (peers(&[0]).replace("false", "true"), "no voter"),
        (peers(&[0]).replace("cluster-0", ""), "address of 'n0'"),
        (peers(&[0, 0]), "'n0' twice"),
        (peers(&[1, 2]), "lacks this node, 'n0'"),
        (peers(&[0, 7]), "'n7' is no member"),
        (many, "more than 64 members"),
        (" ".repeat(70_000), "more than 65536 bytes"),
    ] {
        node.write_peers(&text);
        let error = node.try_open().err().unwrap();
        assert!(matches!(&error, StorageError::Layout(_)) && error.to_string().contains(why), "{text:.60}: {error}");
        assert!(node.has_peers());
    }
    node.delete_peers();
    let opened = node.try_open().unwrap();
    assert_eq!(names(&opened.consensus().unwrap().status().members), ["n0", "n1", "n2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_known_to_be_committed_is_recovered() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    cluster.nodes[leader].commit_until(put("before", "v")).await;
    let last = cluster.nodes[leader].status().last;
    cluster.transport.isolate(leader);
    let backend = cluster.nodes[leader].backend();
    let commit = tokio::spawn(async move { backend.commit(put("late", "v")).await });
    cluster.nodes[leader].until(|status| status.last > last).await;
    for node in &mut cluster.nodes {
        node.end();
    }
    assert!(commit.await.unwrap().is_err());
    cluster.transport.heal();
    cluster.nodes[leader].write_peers(&peers(&[leader]));
    cluster.start(leader).await;
    for path in ["before", "late"] {
        assert_eq!(cluster.nodes[leader].get(path).await.as_deref(), Some("v"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn power_fails_at_every_operation_of_a_recovery() {
    let mut cluster = Cluster::simulated(2).await;
    let index = cluster.nodes[0].commit_until(put("before", "v")).await;
    cluster.nodes[0].applies(index.0).await;
    cluster.nodes.iter_mut().for_each(|node| node.end());
    let original = cluster.nodes[0].disk.clone().unwrap();
    let written = |disk: &SimDisk| {
        use crate::local::disk::Disk as _;
        let file = disk.open("raft/peers.json", true).unwrap().unwrap();
        file.write_at(0, peers(&[0]).as_bytes()).unwrap();
        file.sync().unwrap();
        disk.sync_directory("raft").unwrap();
    };
    let open = |disk: &SimDisk| LocalBackend::open_on(Arc::new(disk.clone()), options("n0"), None);
    let whole = original.copy();
    written(&whole);
    let before = whole.operations();
    let opened = open(&whole).unwrap();
    let count = whole.operations() - before;
    let expected = opened.consensus().unwrap().status().members;
    drop(opened);
    assert!(count > 20, "{count}");
    for operation in 0..count {
        let disk = original.copy();
        written(&disk);
        disk.fail_at(disk.operations() + operation, Fault::Crash);
        drop(open(&disk));
        disk.lose_power();
        let opened = open(&disk).unwrap();
        assert_eq!(opened.consensus().unwrap().status().members, expected, "{operation}");
        assert!(!crate::local::disk::Disk::names(&disk, "raft").unwrap().contains(&"peers.json".to_owned()));
        assert_eq!(opened.get(&key("before")).await.unwrap().as_deref(), Some(&b"v"[..]), "{operation}");
    }
}
