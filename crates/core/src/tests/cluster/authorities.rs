//! The keys of the cluster port after a rotation of the keyring, and a member that missed it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::fake::Cluster;
use super::written;
use crate::cluster::join::exchange::{Applicant, JOINING, Proof};
use crate::tests::fixture::ROOT;

#[tokio::test]
async fn sec_the_authority_before_a_rotation_is_accepted_for_a_minute() {
    let cluster = Cluster::new().await;
    let before = cluster.authorities("a");
    cluster.clock().advance(Duration::from_secs(3600));
    cluster.nodes()[0].post("sys/rotate", ROOT, json!({})).await.ok();
    let becomes = async |name: &str, count: usize| {
        while cluster.authorities(name).len() != count {
            tokio::task::yield_now().await;
        }
    };
    for name in ["a", "b", "c"] {
        becomes(name, 2).await;
    }
    cluster.clock().advance(Duration::from_secs(59));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(cluster.authorities("a").len(), 2);
    cluster.clock().advance(Duration::from_secs(1));
    for name in ["a", "b", "c"] {
        becomes(name, 1).await;
        assert_ne!(cluster.authorities(name), before);
    }
    // An unseal does not accept it again.
    let third = &cluster.nodes()[2];
    third.node.shutdown().await;
    assert!(third.node.lifecycle.unseal(&third.shares).await.unwrap());
    assert_eq!(cluster.authorities("c"), cluster.authorities("a"));
}

/// A node that was down during a rotation. Its root key is still that of the cluster.
async fn node_that_missed_a_rotation() -> Cluster {
    node_that_missed(async |cluster| {
        cluster.nodes()[0].post("sys/rotate", ROOT, json!({})).await.ok();
    })
    .await
}

/// A node that was down during a change that rotates the keyring.
async fn node_that_missed(change: impl AsyncFnOnce(&Cluster)) -> Cluster {
    let cluster = Cluster::new().await;
    let third = &cluster.nodes()[2];
    third.node.shutdown().await;
    cluster.fall_behind("c");
    change(&cluster).await;
    while cluster.authorities("a").len() != 2 {
        tokio::task::yield_now().await;
    }
    while cluster.authorities("a").len() != 1 {
        cluster.clock().advance(Duration::from_secs(61));
        tokio::task::yield_now().await;
    }
    assert!(third.node.lifecycle.unseal(&third.shares).await.unwrap());
    assert!(!cluster.are_connected("c", "a"));
    third.get("secret/data/a", ROOT).await.is(503);
    cluster
}

async fn wait_for_contact(cluster: &Cluster) {
    let contact = async {
        while !cluster.are_connected("c", "a") {
            // A challenge can be answered for a minute.
            cluster.clock().advance(Duration::from_millis(10));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), contact).await.expect("it has not come back");
}

#[tokio::test]
async fn a_member_that_missed_a_rotation_comes_back_by_itself() {
    let cluster = node_that_missed_a_rotation().await;
    let [leader, _, third] = cluster.nodes();
    wait_for_contact(&cluster).await;
    assert_eq!(cluster.authorities("c"), cluster.authorities("a"), "that of the cluster alone");
    cluster.catch_up();
    leader.post("secret/data/a", ROOT, written()).await.ok();
    // The next record of the keyring has all terms; from then on the node uses its own keys.
    leader.post("sys/rotate", ROOT, json!({})).await.ok();
    while cluster.authorities("c")[0] != cluster.authorities("a")[0] || cluster.authorities("a").len() != 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(third.get("secret/data/a", ROOT).await.ok().data()["data"]["k"], "v");
}

#[tokio::test]
async fn a_member_keeps_the_keys_that_it_got_while_no_other_responds() {
    let cluster = node_that_missed_a_rotation().await;
    wait_for_contact(&cluster).await;
    let keys = cluster.authorities("c");
    for server in &cluster.nodes()[..2] {
        server.node.shutdown().await;
    }
    cluster.elect(None);
    for _ in 0..1000 {
        cluster.clock().advance(Duration::from_millis(100));
        tokio::task::yield_now().await;
    }
    assert_eq!(cluster.authorities("c"), keys);
}

#[tokio::test]
async fn a_member_comes_back_without_a_leader() {
    let cluster = node_that_missed_a_rotation().await;
    // The second node is down, so that the first one needs the third one to lead.
    cluster.nodes()[1].node.shutdown().await;
    cluster.elect(None);
    wait_for_contact(&cluster).await;
    cluster.elect(Some("a"));
    assert_eq!(cluster.nodes()[0].node.lifecycle.parts.membership.cluster_status().unwrap().leader.unwrap().node, "a");
}

#[tokio::test]
async fn two_members_meet_although_one_does_not_know_the_other() {
    let cluster = node_that_missed_a_rotation().await;
    cluster.nodes()[1].node.shutdown().await;
    // It was away when the first node was added. That one asks it for its keys, and so becomes known.
    cluster.hide("c", "a");
    cluster.elect(None);
    wait_for_contact(&cluster).await;
    assert_eq!(cluster.authorities("c"), cluster.authorities("a"));
}

#[tokio::test]
async fn a_node_that_missed_its_removal_gets_the_proof_and_seals() {
    let cluster = node_that_missed(async |cluster| cluster.remove_unheard("c").await).await;
    let third = &cluster.nodes()[2];
    let sealed = async {
        while third.node.lifecycle.unsealed().is_some() {
            cluster.clock().advance(Duration::from_millis(10));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), sealed).await.expect("it goes on");
    assert_eq!(third.get("sys/health", "").await.status, 530);
    assert!(!cluster.are_connected("c", "a"));
}

#[tokio::test]
async fn sec_without_a_leader_only_a_member_with_the_root_key_gets_the_keys() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    cluster.elect(None);
    let try_as = async |node: &str, incarnation: u8, root: &keepfast_crypto::locked::Key256| {
        let (cluster_addr, api_addr) = ("https://x".to_owned(), String::new());
        let (node, version) = (node.to_owned(), "1.0.0".to_owned());
        let (incarnation, wants_vote) = ([incarnation; 16], true);
        let applicant = Applicant {
            node,
            incarnation,
            cluster_addr,
            api_addr,
            wants_vote,
            election_ms: 600,
            version,
            nonce: [0; 16],
            is_member: true,
        };
        let request = applicant.encode().unwrap();
        let body = json!({ "server_id": applicant.node, "request": STANDARD.encode(&request) });
        let challenged = standby.post("sys/storage/raft/bootstrap/challenge", "", body).await.ok();
        let bytes = |name: &str| STANDARD.decode(challenged.data()[name].as_str().unwrap()).unwrap();
        let (seal, challenge) = (bytes("seal_record"), bytes("challenge"));
        let answer = Proof::new(root.clone(), &seal, &request, &challenge).answer();
        let answer = json!({ "server_id": applicant.node, "challenge": STANDARD.encode(challenge), "answer": STANDARD.encode(answer) });
        standby.post("sys/storage/raft/bootstrap/answer", "", answer).await.status
    };
    let key = leader.unsealed().barrier.derive_from_root(JOINING).unwrap();
    assert_eq!(try_as("c", b'c', &key).await, 200);
    assert_eq!(try_as("c", b'd', &key).await, 503, "a new data directory needs a leader");
    assert_eq!(try_as("d", b'c', &key).await, 503);
    assert_eq!(try_as("b", b'b', &key).await, 503, "the node itself");
    assert_eq!(try_as("c", b'c', &keepfast_crypto::random::key()).await, 400);
    standby.get("secret/data/a", ROOT).await.is(503);
}
