//! The seals of a cluster: migrations one member after another, with failovers and dead seals.

use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::random;
use keepfast_framework::seal::SealErrorClass;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};

use super::fake::Cluster;
use super::written;
use crate::seal::SealConfig;
use crate::seal::test_seal::{Behaviour, TestSeal};
use crate::tests::fixture::{ROOT, TestServer};
use crate::tests::seals::unseal;
use crate::unseal::by_seals::{RoundOutcome, round};
use crate::{ConfiguredSeal, SealSet};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Seals of a configuration; those with a `-` are disabled.
fn set(seals: &[(&str, &Arc<TestSeal>)]) -> SealSet {
    let seal = |(name, seal): &(&str, &Arc<TestSeal>)| {
        let disabled = name.starts_with('-');
        ConfiguredSeal { disabled, ..seal.configured(name.trim_start_matches('-')) }
    };
    SealSet::new(seals.iter().map(seal).collect()).unwrap()
}

async fn config(server: &TestServer) -> SealConfig {
    server.node.lifecycle.parts.seal_config().await.unwrap().unwrap()
}

/// The names of the seals that have a slot.
async fn enrolled(cluster: &Cluster) -> Vec<String> {
    config(&cluster.nodes()[0]).await.seal_slots().map(|slot| slot.name.clone()).collect()
}

async fn unseals(server: &TestServer) -> bool {
    matches!(round(&server.node.lifecycle).await.unwrap(), RoundOutcome::Unsealed)
}

/// Lets the tasks of all nodes run while time passes, until it holds.
async fn until(cluster: &Cluster, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        for _ in 0..30 {
            tokio::task::yield_now().await;
        }
        if holds().await {
            return;
        }
        cluster.clock().advance(Duration::from_secs(1));
    }
    panic!("it does not happen");
}

/// Lets this many seconds pass.
async fn pass(cluster: &Cluster, seconds: usize) {
    let mut passed = 0;
    until(cluster, async || {
        passed += 1;
        passed > seconds
    })
    .await;
}

/// What the leader waits for, in one text.
async fn awaited(server: &TestServer) -> String {
    server.get("sys/seals", ROOT).await.ok().data()["migration"]["awaits"].to_string()
}

/// A cluster under this seal, of which every member has the stanza.
async fn under(seal: &Arc<TestSeal>) -> Cluster {
    let mut cluster = Cluster::new().await;
    for name in ["b", "c", "a"] {
        cluster.restart(name, set(&[("one", seal)]), |_| {}).await;
        let server = cluster.nodes().iter().find(|server| server.node.state().is_sealed).unwrap();
        assert!(server.node.lifecycle.unseal(&server.shares).await.unwrap());
    }
    cluster.elect(Some("a"));
    cluster.nodes()[0].post("sys/seals/one", ROOT, Value::Null).await.is(204);
    cluster
}

async fn migrate(server: &TestServer) -> u16 {
    let key = hex::encode(server.shares[0].expose());
    server.post("sys/unseal", "", json!({ "key": key, "migrate": true })).await.status
}

#[tokio::test]
async fn a_cluster_migrates_from_one_seal_to_another_without_an_interruption() {
    let (one, two) = (TestSeal::new(), TestSeal::of_kind("transit"));
    let mut cluster = under(&one).await;
    let next = || set(&[("-one", &one), ("two", &two)]);
    for (at, name) in [(1, "b"), (2, "c")] {
        cluster.restart(name, next(), |_| {}).await;
        assert!(unseals(&cluster.nodes()[at]).await, "by the seal that retires");
    }
    pass(&cluster, 20).await;
    assert_eq!(enrolled(&cluster).await, ["one"], "the leader has the old configuration");
    cluster.elect(Some("b"));
    until(&cluster, async || enrolled(&cluster).await == ["one", "two"]).await;
    pass(&cluster, 60).await;
    assert_eq!(enrolled(&cluster).await, ["one", "two"], "a member does not unseal by the new seal");
    assert!(awaited(&cluster.nodes()[1]).await.contains("member \\\"a\\\": does not unseal by: two"));
    assert!(awaited(&cluster.nodes()[2]).await.contains("the leader"));
    // Meanwhile each seal alone unseals a member that has both.
    two.fails(SealErrorClass::Unreachable);
    cluster.restart("a", next(), |_| {}).await;
    assert!(unseals(&cluster.nodes()[0]).await);
    pass(&cluster, 60).await;
    assert_eq!(enrolled(&cluster).await, ["one", "two"], "the new seal is dead");
    two.set(Behaviour::Well);
    let before = config(&cluster.nodes()[0]).await.generation;
    until(&cluster, async || enrolled(&cluster).await == ["two"]).await;
    assert!(config(&cluster.nodes()[0]).await.generation > before, "with a new root key");
    assert!(cluster.nodes().iter().all(|server| !server.node.state().is_sealed));
    until(&cluster, async || cluster.nodes()[1].get("sys/seals", ROOT).await.ok().data().get("migration").is_none())
        .await;
    // Every member starts by the new seal alone.
    for (at, name) in NAMES.into_iter().enumerate() {
        cluster.restart(name, set(&[("two", &two)]), |_| {}).await;
        assert!(unseals(&cluster.nodes()[at]).await, "{name}");
    }
    cluster.elect(Some("a"));
    cluster.nodes()[2].post("secret/data/a", ROOT, written()).await.ok();
}

#[tokio::test]
async fn rl23_another_leader_finishes_a_migration_after_the_first_commit() {
    let (one, two) = (TestSeal::new(), TestSeal::of_kind("transit"));
    let mut cluster = under(&one).await;
    let next = || set(&[("-one", &one), ("two", &two)]);
    cluster.restart("b", next(), |_| {}).await;
    assert!(unseals(&cluster.nodes()[1]).await);
    cluster.elect(Some("b"));
    until(&cluster, async || enrolled(&cluster).await == ["one", "two"]).await;
    // The leader is gone between the two commits. Another one leads, first with the old configuration.
    cluster.elect(Some("c"));
    pass(&cluster, 60).await;
    assert_eq!(enrolled(&cluster).await, ["one", "two"]);
    cluster.restart("b", next(), |_| {}).await;
    assert!(unseals(&cluster.nodes()[1]).await, "each of both seals opens");
    cluster.restart("c", next(), |_| {}).await;
    assert!(unseals(&cluster.nodes()[2]).await);
    cluster.restart("a", next(), |_| {}).await;
    assert!(unseals(&cluster.nodes()[0]).await);
    cluster.elect(Some("c"));
    until(&cluster, async || enrolled(&cluster).await == ["two"]).await;
    for (at, name) in NAMES.into_iter().enumerate() {
        cluster.restart(name, set(&[("two", &two)]), |_| {}).await;
        assert!(unseals(&cluster.nodes()[at]).await, "{name}");
    }
}

#[tokio::test]
async fn a_member_that_is_sealed_holds_up_the_second_commit() {
    let (one, two) = (TestSeal::new(), TestSeal::of_kind("transit"));
    let mut cluster = under(&one).await;
    let next = || set(&[("-one", &one), ("two", &two)]);
    for (at, name) in NAMES.into_iter().enumerate() {
        cluster.restart(name, next(), |_| {}).await;
        assert!(name == "c" || unseals(&cluster.nodes()[at]).await);
    }
    cluster.elect(Some("a"));
    until(&cluster, async || enrolled(&cluster).await.len() == 2).await;
    pass(&cluster, 60).await;
    assert_eq!(enrolled(&cluster).await, ["one", "two"]);
    assert!(awaited(&cluster.nodes()[0]).await.contains("member \\\"c\\\": is sealed"));
    // An operator who gives the member up forces it.
    cluster.nodes()[0].delete("sys/seals/one", ROOT).await.is(204);
    assert_eq!(enrolled(&cluster).await, ["two"]);
}

#[tokio::test]
async fn a_cluster_migrates_from_shares_to_a_seal_when_a_quorum_authorizes_it() {
    let seal = TestSeal::new();
    let mut cluster = Cluster::new().await;
    let next = || set(&[("one", &seal)]);
    let forbid = |settings: &mut crate::Settings| settings.disable_break_glass = true;
    cluster.restart("b", next(), forbid).await;
    // Without the option the member unseals, and migrates nothing.
    let server = &cluster.nodes()[1];
    assert_eq!(server.get("sys/seal-status", "").await.ok().body["migration"], true);
    assert_eq!(unseal(server, &server.shares).await.ok().body["sealed"], false);
    cluster.elect(Some("b"));
    pass(&cluster, 30).await;
    assert!(enrolled(&cluster).await.is_empty());
    assert!(awaited(&cluster.nodes()[1]).await.contains("operator unseal -migrate"));
    cluster.restart("b", next(), |_| {}).await;
    assert_eq!(migrate(&cluster.nodes()[1]).await, 200);
    cluster.elect(Some("b"));
    until(&cluster, async || enrolled(&cluster).await == ["one"]).await;
    // The members without the seal still unseal by the shares.
    pass(&cluster, 60).await;
    let record = config(&cluster.nodes()[0]).await;
    assert!(record.opens_by_shares(), "the configuration forbids it, and members need it");
    assert!(awaited(&cluster.nodes()[1]).await.contains("member \\\"a\\\": does not unseal by: one"));
    for (at, name) in [(0, "a"), (2, "c")] {
        cluster.restart(name, next(), forbid).await;
        assert!(unseals(&cluster.nodes()[at]).await, "{name}");
    }
    cluster.elect(Some("b"));
    until(&cluster, async || !config(&cluster.nodes()[0]).await.opens_by_shares()).await;
    assert!(cluster.nodes().iter().all(|server| !server.node.state().is_sealed));
}

#[tokio::test]
async fn a_cluster_migrates_from_a_seal_to_shares_when_a_quorum_authorizes_it() {
    let seal = TestSeal::new();
    let mut cluster = under(&seal).await;
    cluster.nodes()[0].delete("sys/seals/break-glass", ROOT).await.is(204);
    assert!(!config(&cluster.nodes()[0]).await.opens_by_shares());
    let next = || set(&[("-one", &seal)]);
    for (at, name) in [(1, "b"), (2, "c")] {
        cluster.restart(name, next(), |_| {}).await;
        let server = &cluster.nodes()[at];
        assert!(!unseals(server).await, "that somebody has the shares must be proved");
        let status = server.get("sys/seal-status", "").await.ok();
        assert_eq!((&status.body["migration"], &status.body["type"]), (&json!(true), &json!("shamir")));
        assert_eq!(status.body["sealed_reason"], "migration");
        unseal(server, &server.shares).await.is(400);
        assert_eq!(migrate(server).await, 200);
        assert!(!server.node.state().is_sealed);
    }
    cluster.elect(Some("b"));
    until(&cluster, async || config(&cluster.nodes()[0]).await.opens_by_shares()).await;
    pass(&cluster, 60).await;
    assert_eq!(enrolled(&cluster).await, ["one"], "a member has the old configuration");
    assert!(awaited(&cluster.nodes()[1]).await.contains("member \\\"a\\\": its configuration has an enabled seal"));
    cluster.restart("a", next(), |_| {}).await;
    assert_eq!(migrate(&cluster.nodes()[0]).await, 200);
    cluster.elect(Some("c"));
    until(&cluster, async || enrolled(&cluster).await.is_empty()).await;
    for (at, name) in NAMES.into_iter().enumerate() {
        cluster.restart(name, SealSet::default(), |_| {}).await;
        let server = &cluster.nodes()[at];
        assert_eq!(unseal(server, &server.shares).await.ok().body["sealed"], false, "{name}");
    }
}

#[tokio::test]
async fn seals_are_added_ordered_and_removed_while_members_serve() {
    let (one, two) = (TestSeal::new(), TestSeal::of_kind("transit"));
    let cluster = under(&one).await;
    // The new stanza is read by a reload, on one member after another.
    for server in cluster.nodes() {
        server.node.reload(Some(set(&[("one", &one), ("two", &two)])), None);
    }
    until(&cluster, async || enrolled(&cluster).await.len() == 2).await;
    let order = json!({ "names": ["two", "one"] });
    cluster.nodes()[2].post("sys/seals/order", ROOT, order).await.is(204);
    assert_eq!(enrolled(&cluster).await, ["two", "one"]);
    for server in cluster.nodes() {
        server.node.reload(Some(set(&[("-one", &one), ("two", &two)])), None);
    }
    until(&cluster, async || enrolled(&cluster).await == ["two"]).await;
    assert!(cluster.nodes().iter().all(|server| !server.node.state().is_sealed));
    cluster.nodes()[1].post("secret/data/a", ROOT, written()).await.ok();
}

#[tokio::test]
async fn a_leader_whose_seal_is_dead_serves_and_others_take_over() {
    let seal = TestSeal::new();
    let cluster = under(&seal).await;
    seal.fails(SealErrorClass::Unreachable);
    for name in ["b", "c", "a"] {
        cluster.elect(Some(name));
        for server in cluster.nodes() {
            server.post("secret/data/a", ROOT, written()).await.ok();
        }
        pass(&cluster, 5).await;
    }
    assert!(cluster.nodes().iter().all(|server| !server.node.state().is_sealed));
}

#[tokio::test]
async fn a_member_that_restarts_after_a_rotation_waits_for_its_dead_seal() {
    let seal = TestSeal::new();
    let mut cluster = under(&seal).await;
    // Its network does not reach the service.
    let dead = TestSeal::new();
    dead.fails(SealErrorClass::Unreachable);
    cluster.restart("c", set(&[("one", &dead)]), |_| {}).await;
    cluster.nodes()[1].post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    let generation = async || config(&cluster.nodes()[0]).await;
    until(&cluster, async || {
        let config = generation().await;
        config.slot_named("one").is_some_and(|slot| slot.kek_generation == config.generation)
    })
    .await;
    let third = &cluster.nodes()[2];
    assert!(!unseals(third).await);
    let status = third.get("sys/seal-status", "").await.ok();
    assert_eq!((&status.body["sealed"], &status.body["sealed_reason"]), (&json!(true), &json!("unreachable")));
    cluster.nodes()[0].post("secret/data/a", ROOT, written()).await.ok();
    // The service is back: the slot that another leader has renewed opens.
    cluster.restart("c", set(&[("one", &seal)]), |_| {}).await;
    assert!(unseals(&cluster.nodes()[2]).await);
    cluster.nodes()[2].get("secret/data/a", ROOT).await.ok();
}

/// Members get the new configuration in any order, leaders change, and seals fail: every member always unseals by the
/// configuration that it has, and in the end the new seal alone has a slot.
#[tokio::test]
async fn rl23_no_order_of_restarts_failovers_and_failures_locks_a_member_out() {
    let seed = match std::env::var("KEEPFAST_TEST_SEED") {
        Ok(text) => hex::decode(text).unwrap(),
        Err(_) => random::bytes::<32>().to_vec(),
    };
    println!("repeat with KEEPFAST_TEST_SEED={}", hex::encode(&seed));
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut below = move |bound: u32| (rng.next_u32() % bound) as usize;
    for _ in 0..3 {
        let (one, two) = (TestSeal::new(), TestSeal::of_kind("transit"));
        let old = || set(&[("one", &one)]);
        let next = || set(&[("-one", &one), ("two", &two)]);
        let mut cluster = under(&one).await;
        let (mut is_next, mut trace) = ([false; 3], Vec::new());
        for _ in 0..12 {
            let at = below(3);
            let op = below(5);
            trace.push((op, at));
            match op {
                0 | 1 => {
                    is_next[at] |= op == 1;
                    cluster.restart(NAMES[at], if is_next[at] { next() } else { old() }, |_| {}).await;
                }
                2 => cluster.elect(cluster.nodes().iter().position(|s| !s.node.state().is_sealed).map(|at| NAMES[at])),
                3 => two.fails(SealErrorClass::Unreachable),
                _ => two.set(Behaviour::Well),
            }
            for server in cluster.nodes().iter().filter(|server| server.node.state().is_sealed) {
                round(&server.node.lifecycle).await.unwrap();
            }
            if !cluster.nodes()[at].node.state().is_sealed {
                cluster.elect(Some(NAMES[at]));
            }
            pass(&cluster, 1 + below(40)).await;
            let enrolled = enrolled(&cluster).await;
            for is_next in is_next {
                let opens = enrolled.iter().any(|name| name == "one" || (is_next && name == "two"));
                assert!(opens, "{enrolled:?} {trace:?}");
            }
        }
        two.set(Behaviour::Well);
        for (at, name) in NAMES.into_iter().enumerate() {
            cluster.restart(name, next(), |_| {}).await;
            assert!(unseals(&cluster.nodes()[at]).await, "{name} {trace:?}");
        }
        cluster.elect(Some(NAMES[below(3)]));
        until(&cluster, async || enrolled(&cluster).await == ["two"]).await;
    }
}
