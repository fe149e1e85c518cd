//! Changes of the members, and promotions by the background task of autopilot.

use std::time::Duration;

use keepfast_framework::Clock as _;
use keepfast_storage::{ClusterStatus, Consensus as _, PeerStatus, RaftId, StorageError};
use serde_json::{Value, json};

use crate::cluster::fake::{member, status};
use crate::cluster::members::{removed_directories, rotate_when_due};
use crate::tests::fixture::ROOT;
use crate::tests::raft::{Pair, RAFT, leader, three};

#[tokio::test]
async fn members_are_listed_promoted_demoted_and_removed() {
    let (server, consensus) = leader(three()).await;
    let listed = server.get(&format!("{RAFT}/configuration"), ROOT).await.ok();
    let server_of = |n: u64, leader: bool, voter: bool| {
        json!({ "node_id": format!("n{n}"), "address": format!("n{n}:8201"), "leader": leader, "protocol_version": "3",
                "voter": voter })
    };
    let expected = json!({ "config": { "servers": [server_of(1, true, true), server_of(2, false, true), server_of(3, false, true)],
                            "index": 0 } });
    assert_eq!(listed.data(), &expected);
    let change = async |action: &str, body: Value| {
        let response = server.post(&format!("{RAFT}/{action}"), ROOT, body).await;
        (response.status, response.error().to_owned())
    };
    let named = |n: u64| json!({ "server_id": format!("n{n}") });
    for action in ["remove-peer", "promote", "demote"] {
        assert_eq!(change(action, json!({})).await, (400, "no server id provided".to_owned()));
    }
    let framed = |text: &str| (500, format!("1 error occurred:\n\t* {text}\n\n"));
    assert_eq!(change("remove-peer", named(9)).await, (204, String::new()));
    assert_eq!(change("promote", named(9)).await, framed("server not found in raft configuration"));
    assert_eq!(change("promote", named(2)).await, framed("server is not a non-voter"));
    assert_eq!(change("demote", named(2)).await, (204, String::new()));
    let second = consensus.status().members[1].clone();
    assert_eq!((second.voter, second.wants_vote), (false, false));
    assert_eq!(change("demote", named(2)).await, framed("server is already a non-voter"));
    assert_eq!(change("promote", named(2)).await, (204, String::new()));
    let second = consensus.status().members[1].clone();
    assert_eq!((second.voter, second.wants_vote), (false, true), "autopilot gives the vote");
    assert_eq!(change("remove-peer", named(2)).await, (204, String::new()));
    assert_eq!(consensus.status().members.len(), 2);
    assert_eq!(change("remove-peer", named(3)).await, (204, String::new()));
    let last = framed("need at least one voter in configuration: {[]}");
    assert_eq!(change("remove-peer", named(1)).await, last);
    assert_eq!(change("demote", named(1)).await, last);
}

#[tokio::test]
async fn a_removal_that_leaves_no_quorum_in_contact_is_refused() {
    let mut silent = three();
    silent.peers[1].last_contact = Some(Duration::from_secs(60));
    let (server, consensus) = leader(silent).await;
    let remove =
        async |node: &str| server.post(&format!("{RAFT}/remove-peer"), ROOT, json!({ "server_id": node })).await;
    let refused = remove("n2").await.is(400);
    assert!(refused.error().contains("which is no quorum"), "{}", refused.error());
    assert_eq!(consensus.status().members.len(), 3);
    remove("n3").await.is(204);
    // The change itself fails: the directory may still join.
    *consensus.refuses.lock() = Some(StorageError::ChangeOpen);
    remove("n2").await.is(503);
    let removed = removed_directories(&server.unsealed().barrier).await.unwrap();
    assert!(removed.contain([3; 16]) && !removed.contain([2; 16]));
}

#[tokio::test]
async fn a_removal_that_fails_cancels_no_rotation_of_another() {
    let (server, consensus) = leader(three()).await;
    let barrier = &server.unsealed().barrier;
    *consensus.refuses.lock() = Some(StorageError::ChangeOpen);
    server.post(&format!("{RAFT}/remove-peer"), ROOT, json!({ "server_id": "n2" })).await.is(503);
    let term = || barrier.key_status().unwrap().term;
    assert_eq!(term(), 1);
    rotate_when_due(barrier, server.clock.now()).await.unwrap();
    assert_eq!(term(), 2);
    rotate_when_due(barrier, server.clock.now()).await.unwrap();
    assert_eq!(term(), 2, "once");
}

#[tokio::test]
async fn a_member_whose_removal_was_cut_off_comes_back_until_it_is_committed() {
    let pair = Pair::joined().await;
    let again = async || pair.answer_again().await.status;
    let remove = async || pair.remove().await.status;
    *pair.cluster.refuses.lock() = Some(StorageError::Unknown);
    assert_eq!(remove().await, 500);
    let removed = removed_directories(&pair.leader.unsealed().barrier).await.unwrap();
    assert!(removed.contain([2; 16]), "the removal may be committed later");
    *pair.cluster.refuses.lock() = None;
    assert_eq!((again().await, pair.cluster.status().members.len()), (200, 2));
    assert_eq!((remove().await, again().await, pair.cluster.status().members.len()), (204, 409, 1));
}

#[tokio::test]
async fn a_learner_votes_as_soon_as_it_is_stable() {
    let mut with_learner = status(&[1]);
    with_learner.members.push(member(2));
    let peer = PeerStatus { id: RaftId(2), matched: 100, last_contact: Some(Duration::ZERO) };
    let (server, consensus) = leader(ClusterStatus { peers: vec![peer], ..with_learner }).await;
    let run = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    run().await;
    let mut seconds = 0;
    while !consensus.status().members[1].voter && seconds < 60 {
        server.clock.advance(Duration::from_secs(1));
        run().await;
        seconds += 1;
    }
    assert_eq!(seconds, 12, "two until its health is seen, then server_stabilization_time");
}
