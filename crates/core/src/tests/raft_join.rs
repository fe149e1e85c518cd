//! A join that something interferes with: a seal, a stranger, another cluster.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keepfast_crypto::random;
use keepfast_framework::seal::SealErrorClass;
use keepfast_storage::{Consensus as _, Joined};
use serde_json::{Value, json};

use crate::cluster::fake::status;
use crate::seal::slots::Change;
use crate::seal::test_seal::{Behaviour, TestSeal, set_of};
use crate::tests::fixture::{ROOT, TestServer};
use crate::tests::raft::{Pair, RAFT, leader};
use crate::unseal::by_seals::{RoundOutcome, round};

/// Waits until the shares were accepted and the node waits for the records.
async fn wait_for_records(pair: &Pair) {
    while !pair.consensus.status().is_running {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn sec_a_stop_ends_a_join_whose_records_have_not_arrived() {
    let pair = Pair::new().await;
    pair.join().await;
    let ended = async {
        wait_for_records(&pair).await;
        pair.node.node.shutdown().await;
    };
    let (unsealed, ()) = tokio::join!(pair.unseal(), ended);
    assert_eq!(unsealed.is(503).error(), "the attempt to join the cluster was ended");
    assert!(!pair.consensus.status().is_running && pair.port.closed.load(Ordering::Relaxed) == 1);
    // The records arrive now, and the node stays sealed.
    pair.node.backend.memory().replace_with(pair.leader.backend.memory());
    pair.consensus.status.lock().is_joining = false;
    for _ in 0..100 {
        pair.node.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert!(pair.node.node.lifecycle.is_sealed());
}

#[tokio::test]
async fn sec_a_caller_without_a_token_does_not_end_a_join() {
    let pair = Pair::new().await;
    pair.join().await;
    let disturbed = async {
        wait_for_records(&pair).await;
        for (path, body) in [("sys/seal", Value::Null), ("sys/unseal", json!({ "reset": true }))] {
            let refused = pair.node.post(path, "", body).await.is(400);
            assert!(refused.error().contains("the shares were accepted"), "{path}: {}", refused.error());
        }
        pair.node.backend.memory().replace_with(pair.leader.backend.memory());
        pair.consensus.status.lock().is_joining = false;
        while pair.node.node.lifecycle.is_sealed() {
            pair.node.clock.advance(Duration::from_millis(50));
            tokio::task::yield_now().await;
        }
    };
    let (unsealed, ()) = tokio::join!(pair.unseal(), disturbed);
    assert_eq!(unsealed.ok().body["sealed"], json!(false));
}

#[tokio::test]
async fn a_join_that_was_ended_begins_again() {
    let pair = Pair::new().await;
    pair.join().await;
    let ended = async {
        wait_for_records(&pair).await;
        pair.node.node.shutdown().await;
    };
    tokio::join!(pair.unseal(), ended).0.is(503);
    assert!(!pair.node.node.is_initialized().await.unwrap(), "it has dropped the cluster");
    pair.join().await;
    pair.will_receive();
    assert_eq!(pair.unseal().await.ok().body["sealed"], json!(false));
}

#[tokio::test]
async fn sec_a_stranger_does_not_hold_up_the_join_of_an_operator() {
    let pair = Pair::new().await;
    let retry = async |address: &str| {
        let body = json!({ "leader_api_addr": address, "retry": true });
        pair.node.post(&format!("{RAFT}/join"), "", body).await.is(200);
    };
    retry("http://stranger").await;
    for _ in 0..100 {
        pair.node.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert!(!pair.node.node.is_initialized().await.unwrap());
    retry("http://leader").await;
    while !pair.node.node.is_initialized().await.unwrap() {
        pair.node.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    pair.will_receive();
    assert_eq!(pair.unseal().await.ok().body["sealed"], json!(false));
}

#[tokio::test]
async fn sec_strangers_do_not_replace_the_leaders_of_the_configuration() {
    let pair = Pair::new().await;
    pair.calls.fails.store(usize::MAX, Ordering::Relaxed);
    pair.node.node.start();
    for number in 0..20 {
        let body = json!({ "leader_api_addr": format!("http://stranger{number}"), "retry": true });
        pair.node.post(&format!("{RAFT}/join"), "", body).await.is(200);
    }
    pair.calls.fails.store(0, Ordering::Relaxed);
    for _ in 0..1000 {
        pair.node.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert!(pair.node.node.is_initialized().await.unwrap());
    pair.will_receive();
    assert_eq!(pair.unseal().await.ok().body["sealed"], json!(false));
}

#[tokio::test]
async fn sec_a_join_goes_on_at_the_leader_whose_seal_has_the_shares() {
    let pair = Pair::new().await;
    pair.node.node.start();
    while !pair.node.node.is_initialized().await.unwrap() {
        tokio::task::yield_now().await;
    }
    // Another cluster responds at an earlier address.
    let (other, _) = leader(status(&[1])).await;
    *pair.calls.other.lock() = Some(other.node.clone());
    pair.will_receive();
    assert_eq!(pair.unseal().await.ok().body["sealed"], json!(false));
    assert_eq!(pair.cluster.status().members.len(), 2);
}

#[tokio::test]
async fn sec_a_node_that_cannot_unseal_after_its_join_leaves_the_network() {
    let pair = Pair::new().await;
    pair.join().await;
    // The records that arrive have another seal.
    let (other, _) = leader(status(&[1])).await;
    let (from, to, consensus) = (other.backend.clone(), pair.node.backend.clone(), pair.consensus.clone());
    *pair.consensus.on_start.lock() = Some(Box::new(move || {
        to.memory().replace_with(from.memory());
        consensus.status.lock().is_joining = false;
    }));
    assert_eq!(pair.unseal().await.is(409).error(), "the seal of the cluster has changed; submit its shares");
    assert!(pair.node.node.lifecycle.is_sealed() && !pair.consensus.status().is_running);
    assert_eq!(pair.port.closed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn sec_a_stranger_does_not_replace_a_cluster_that_has_shares() {
    let pair = Pair::new().await;
    pair.join().await;
    let (other, _) = leader(status(&[1])).await;
    let first = pair.leader.shares[0].expose();
    if pair.leader.shares.len() == 1 {
        // A threshold of one: a share that is none of the seal waits as well as a right one.
        pair.node.node.lifecycle.unsealing.lock().add(&keepfast_crypto::secret::SecretBytes::new(first.to_vec()));
    }
    let mine = pair.calls.leader.lock().replace(other.node.clone());
    let path = format!("{RAFT}/join");
    let join = || pair.node.post(&path, "", json!({ "leader_api_addr": "http://leader" }));
    let refused = join().await.is(400);
    assert!(refused.error().contains("shares were submitted"), "{}", refused.error());
    // The same cluster is no other one, and without shares there is nothing to protect.
    *pair.calls.leader.lock() = mine;
    join().await.is(200);
    *pair.calls.leader.lock() = Some(other.node.clone());
    pair.node.post("sys/unseal", "", json!({ "reset": true })).await.ok();
    join().await.is(200);
}

#[tokio::test]
async fn a_directory_that_has_begun_to_join_joins_no_other_cluster() {
    let pair = Pair::new().await;
    pair.join().await;
    let ended = async {
        wait_for_records(&pair).await;
        pair.node.node.shutdown().await;
    };
    tokio::join!(pair.unseal(), ended);
    let (other, _) = leader(status(&[1])).await;
    *pair.calls.leader.lock() = Some(other.node.clone());
    pair.join().await;
    let mut last = None;
    for share in &other.shares {
        last = Some(pair.node.post("sys/unseal", "", json!({ "key": hex::encode(share.expose()) })).await);
    }
    let refused = last.unwrap().is(400);
    assert!(refused.error().contains("it has begun to join another cluster"), "{}", refused.error());
}

/// The leader with this seal, enrolled as `a`.
async fn enrolled(leader: TestServer, seal: &Arc<TestSeal>) -> TestServer {
    let leader = leader.under(set_of(&[("a", seal)]));
    assert!(leader.node.lifecycle.unseal(&leader.shares).await.unwrap());
    leader.post("sys/seals/a", ROOT, Value::Null).await.is(204);
    run_tasks().await;
    leader
}

/// A leader and a node with this seal.
async fn pair_with(seal: &Arc<TestSeal>) -> Pair {
    let mut pair = Pair::new().await;
    pair.leader = enrolled(pair.leader, seal).await;
    *pair.calls.leader.lock() = Some(pair.leader.node.clone());
    pair.node = pair.node.under(set_of(&[("a", seal)]));
    pair
}

/// Runs the background tasks at this time.
async fn run_tasks() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn sec_a_node_with_seals_joins_the_leaders_of_its_configuration() {
    let pair = pair_with(&TestSeal::new()).await;
    for retry in [false, true] {
        let body = json!({ "leader_api_addr": "http://stranger", "retry": retry });
        let refused = pair.node.post(&format!("{RAFT}/join"), "", body).await.is(400);
        assert_eq!(refused.error(), "this node joins the leaders of its configuration");
    }
    let body = json!({ "leader_api_addr": "http://leader/" });
    pair.node.post(&format!("{RAFT}/join"), "", body).await.is(200);
}

#[tokio::test]
async fn sec_join_requests_do_not_drive_the_seal() {
    let seal = TestSeal::new();
    let pair = pair_with(&seal).await;
    seal.fails(SealErrorClass::Denied);
    pair.node.node.start();
    pair.join().await;
    run_tasks().await;
    let calls = seal.calls();
    assert!(calls > 0 && pair.node.node.lifecycle.is_sealed());
    let leader = pair.leader.unsealed();
    for _ in 0..20 {
        // The same record, and another one.
        pair.join().await;
        run_tasks().await;
        leader.current_seal.change(&leader.barrier, Change::NewRoot(random::key())).await.unwrap();
        pair.join().await;
        run_tasks().await;
    }
    assert_eq!(seal.calls(), calls, "no time has passed");
    pair.node.clock.advance(Duration::from_secs(1));
    run_tasks().await;
    assert!(seal.calls() > calls, "another record is tried after a second");
}

#[tokio::test]
async fn sec_a_node_joins_by_the_configured_key_only() {
    let seal = TestSeal::of_kind("transit");
    let pair = pair_with(&seal).await;
    seal.rotate();
    pair.will_receive();
    pair.join().await;
    let calls = seal.calls();
    let outcome = round(&pair.node.node.lifecycle).await.unwrap();
    assert!(matches!(outcome, RoundOutcome::Failed(classes) if classes == [SealErrorClass::WrongKey]));
    assert_eq!(seal.calls(), calls + 1, "the key of the slot was not used");
}

#[tokio::test]
async fn sec_a_node_leaves_a_cluster_that_its_seal_does_not_open() {
    let (seal, foreign) = (TestSeal::new(), TestSeal::new());
    let pair = pair_with(&seal).await;
    let (other, _) = leader(status(&[1])).await;
    let other = enrolled(other, &foreign).await;
    *pair.calls.leader.lock() = Some(other.node.clone());
    pair.node.node.start();
    run_tasks().await;
    assert!(pair.node.node.is_initialized().await.unwrap());
    *pair.calls.leader.lock() = Some(pair.leader.node.clone());
    pair.will_receive();
    for _ in 0..300 {
        pair.node.clock.advance(Duration::from_secs(1));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert!(!pair.node.node.lifecycle.is_sealed() && pair.node.accepts(ROOT).await);
}

#[tokio::test]
async fn a_join_by_a_seal_that_fails_is_repeated_after_a_pause() {
    let seal = TestSeal::new();
    let pair = pair_with(&seal).await;
    let members = pair.cluster.status().members;
    *pair.consensus.joined.lock() = Some(Joined { cluster_id: "other".to_owned(), members });
    let calls = seal.calls();
    pair.node.node.start();
    for _ in 0..10 {
        run_tasks().await;
    }
    assert_eq!(seal.calls(), calls + 1, "no time has passed");
    pair.node.clock.advance(Duration::from_secs(2));
    run_tasks().await;
    assert_eq!(seal.calls(), calls + 2);
}

#[tokio::test]
async fn a_node_joins_by_its_own_seal_without_shares() {
    let seal = TestSeal::new();
    let pair = pair_with(&seal).await;
    pair.join().await;
    let status = pair.node.get("sys/seal-status", "").await.ok();
    assert_eq!((&status.body["type"], &status.body["sealed"]), (&json!("static"), &json!(true)));
    // A seal that does not work joins nothing, and the next round does.
    seal.fails(SealErrorClass::Denied);
    assert!(matches!(round(&pair.node.node.lifecycle).await.unwrap(), RoundOutcome::Failed(_)));
    seal.set(Behaviour::Well);
    pair.will_receive();
    assert!(matches!(round(&pair.node.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed));
    assert!(pair.node.accepts(ROOT).await);
}

#[tokio::test]
async fn a_node_with_another_seal_than_its_cluster_joins_by_shares() {
    let seal = TestSeal::new();
    let mut pair = Pair::new().await;
    pair.node = pair.node.under(set_of(&[("new", &seal)]));
    pair.join().await;
    pair.will_receive();
    assert_eq!(pair.unseal().await.ok().body["sealed"], json!(false));
}
