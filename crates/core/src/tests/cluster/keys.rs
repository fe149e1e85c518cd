//! Changes of the root key and the shares, which reach the members before their records do.

use std::time::Duration;

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::seal::SealErrorClass;
use serde_json::{Value, json};

use super::fake::Cluster;
use super::written;
use crate::cluster::announced::announced;
use crate::cluster::port::ComingRoot;
use crate::rewrap;
use crate::seal::Seals;
use crate::seal::slots::Change;
use crate::seal::test_seal::{Behaviour, TestSeal, set_of};
use crate::tests::fixture::{ROOT, TestServer};
use crate::tests::seals::until;
use crate::unseal::keeper;

/// Replaces the share by two new ones of a quorum of two.
async fn rekeyed(server: &TestServer, share: &SecretBytes) -> Vec<SecretBytes> {
    let init = json!({ "secret_shares": 3, "secret_threshold": 2 });
    let nonce = server.post("sys/rotate/root/init", ROOT, init).await.ok().data()["nonce"].clone();
    let body = json!({ "key": hex::encode(share.expose()), "nonce": nonce });
    let made = server.post("sys/rotate/root/update", ROOT, body).await.ok();
    let shares = made.data()["keys"].as_array().unwrap().clone();
    shares.iter().map(|key| SecretBytes::new(hex::decode(key.as_str().unwrap()).unwrap())).collect()
}

async fn opens(server: &TestServer, shares: &[SecretBytes]) -> bool {
    server.node.lifecycle.seal().await;
    server.node.lifecycle.unseal(shares).await.unwrap()
}

#[tokio::test]
async fn a_new_root_key_leaves_every_member_unsealed() {
    let cluster = Cluster::new().await;
    let [leader, standby, third] = cluster.nodes();
    for _ in 0..20 {
        standby.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    }
    cluster.elect(Some("b"));
    third.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    standby.post("sys/rotate", ROOT, json!({})).await.ok();
    leader.post("secret/data/a", ROOT, written()).await.ok();
    for server in cluster.nodes() {
        assert_eq!(server.get("secret/data/a", ROOT).await.ok().data()["data"]["k"], "v");
    }
    for server in cluster.nodes() {
        assert!(opens(server, &leader.shares).await, "the shares stay the same");
    }
}

#[tokio::test]
async fn old_shares_open_no_node_also_after_a_failover() {
    let cluster = Cluster::new().await;
    let [leader, standby, third] = cluster.nodes();
    let new = rekeyed(standby, &leader.shares[0]).await;
    cluster.elect(Some("b"));
    // The new leader wraps the next root key under the current unseal key.
    third.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    cluster.elect(Some("c"));
    leader.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    for server in cluster.nodes() {
        assert!(!server.node.state().is_sealed);
        assert!(!opens(server, &leader.shares).await && server.node.state().is_sealed);
        assert!(server.node.lifecycle.unseal(&new[1..]).await.unwrap());
    }
    assert!(leader.accepts(ROOT).await && standby.accepts(ROOT).await);
}

#[tokio::test]
async fn a_root_key_that_reaches_no_quorum_is_not_committed() {
    let cluster = Cluster::new().await;
    let [leader, standby, third] = cluster.nodes();
    cluster.keep_roots_from(&["b", "c"]);
    let refused = leader.post("sys/rotate/root", ROOT, Value::Null).await.is(503);
    assert!(refused.error().contains("reached 1 of 3 voters"), "{refused:?}");
    assert!(cluster.nodes().iter().all(|server| !server.node.state().is_sealed));
    // A member that is not reached seals.
    cluster.keep_roots_from(&["c"]);
    leader.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    assert!(third.node.state().is_sealed && !standby.node.state().is_sealed);
    leader.post("secret/data/a", ROOT, written()).await.ok();
    standby.get("secret/data/a", ROOT).await.ok();
    while cluster.has_port("c") {
        tokio::task::yield_now().await;
    }
    assert!(third.node.lifecycle.unseal(&leader.shares).await.unwrap());
    third.get("secret/data/a", ROOT).await.ok();
}

#[tokio::test]
async fn a_root_key_is_taken_from_the_leader_only() {
    let cluster = Cluster::new().await;
    // The node believes that it leads, and the others do not.
    cluster.elect(Some("b"));
    let unsealed = cluster.nodes()[0].unsealed();
    let change = Change::NewRoot(random::key());
    let refused = unsealed.current_seal.change(&unsealed.barrier, change).await.unwrap_err();
    assert!(refused.to_string().contains("reached 1 of 3"), "{refused}");
    assert!(cluster.nodes().iter().all(|server| !server.node.state().is_sealed));
}

#[tokio::test]
async fn an_announced_root_key_is_forgotten_after_30_seconds() {
    let cluster = Cluster::new().await;
    let [leader, standby, third] = cluster.nodes();
    let (barrier, clock) = (leader.unsealed().barrier.clone(), std::sync::Arc::new(cluster.clock().clone()));
    let expect = |server: &TestServer, record: [u8; 32], root: &_| {
        let unsealed = server.unsealed();
        let coming = ComingRoot { record, root: Clone::clone(root), seal: SecretBytes::default() };
        assert!(unsealed.current_seal.expect(&unsealed.barrier, &coming, clock.clone()));
    };
    let pass = async |seconds: u64| {
        for _ in 0..seconds {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            cluster.clock().advance(Duration::from_secs(1));
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    };
    let (root, next) = (random::key(), random::key());
    expect(third, [1; 32], &root);
    expect(standby, [1; 32], &root);
    pass(29).await;
    barrier.rewrap_root(&root, None).await.unwrap();
    assert!(!third.node.state().is_sealed && !standby.node.state().is_sealed);
    expect(third, [2; 32], &next);
    pass(31).await;
    expect(standby, [2; 32], &next);
    barrier.rewrap_root(&next, None).await.unwrap();
    assert!(third.node.state().is_sealed && !standby.node.state().is_sealed);
}

#[tokio::test]
async fn the_connections_of_a_removed_member_end_with_its_membership() {
    let cluster = Cluster::new().await;
    let before = cluster.member_changes();
    cluster.remove("c");
    while cluster.member_changes() < before + 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn only_the_leader_heals_the_slot_of_a_seal() {
    let cluster = Cluster::new().await;
    let [leader, standby, third] = cluster.nodes();
    let seal = TestSeal::new();
    let seals = Seals::new(set_of(&[("a", &seal)]));
    let access = &*seals.named("a").unwrap();
    let unsealed = leader.unsealed();
    assert!(keeper::enroll(&unsealed, access).await.unwrap().is_ok());
    let stored = async || standby.unsealed().current_seal.seal_config().await.unwrap();
    let key = async || stored().await.slot_named("a").unwrap().kek.as_ref().unwrap().key_id.clone();
    let check = async |server: &TestServer| {
        keeper::check(&server.unsealed(), access, server.node.lifecycle.parts.is_active()).await.unwrap();
    };
    seal.rotate();
    check(standby).await;
    check(third).await;
    assert!(key().await == "v1" && access.health().success.is_some(), "a standby only checks");
    check(leader).await;
    assert_eq!(key().await, "v2");
    // The next leader has the keys of all slots, without the seal.
    seal.fails(SealErrorClass::Unreachable);
    cluster.elect(Some("b"));
    third.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    for server in cluster.nodes() {
        assert!(!server.node.state().is_sealed);
        check(server).await;
    }
    assert_eq!(stored().await.slot_named("a").unwrap().kek_generation, 1);
    seal.set(Behaviour::Well);
    check(standby).await;
    let config = stored().await;
    assert_eq!(config.slot_named("a").unwrap().kek_generation, config.generation);
    assert!(opens(third, &leader.shares).await, "the shares open as well");
}

#[tokio::test]
async fn every_member_gets_the_wrap_keys_before_the_values_under_them() {
    let cluster = Cluster::new().await;
    let [leader, standby, third] = cluster.nodes();
    let keys = async |server: &TestServer| {
        let key = server.get("transit/keys/k", ROOT).await.ok();
        assert_eq!(key.data()["name"], "k");
        let keys = server.unsealed().barrier.wrap_keys();
        (keys.generation(), keys.has_former())
    };
    standby.post("sys/mounts/transit", ROOT, json!({ "type": "transit" })).await.is(204);
    third.post("transit/keys/k", ROOT, json!({})).await.ok();
    for server in cluster.nodes() {
        assert_eq!(keys(server).await, (1, false));
    }
    // Another leader rewraps, and changes the root key and the shares.
    cluster.elect(Some("b"));
    leader.post("sys/sealwrap/rewrap", ROOT, Value::Null).await.is(204);
    until(standby, async || standby.get("sys/sealwrap/rewrap", ROOT).await.ok().data()["is_running"] == false).await;
    leader.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    let new = rekeyed(standby, &leader.shares[0]).await;
    for server in cluster.nodes() {
        assert_eq!(keys(server).await, (2, false));
    }
    for server in cluster.nodes() {
        assert!(opens(server, &new[..2]).await);
        assert_eq!(keys(server).await, (2, false));
    }
}

#[tokio::test]
async fn sec_a_wrap_key_waits_until_every_member_reads_wrapped_values() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    let current = leader.settings.addresses().version;
    cluster.announces("c", "1.0.0");
    leader.post("sys/mounts/transit", ROOT, json!({ "type": "transit" })).await.is(204);
    leader.post("transit/keys/k", ROOT, json!({})).await.ok();
    assert!(leader.unsealed().barrier.wrap_keys().is_empty());
    let refused = leader.post("sys/sealwrap/rewrap", ROOT, Value::Null).await.is(503);
    assert!(refused.error().ends_with("once every member has a version that reads them; upgrade c"), "{refused:?}");
    standby.get("transit/keys/k", ROOT).await.ok();
    cluster.announces("c", &current);
    leader.post("sys/sealwrap/rewrap", ROOT, Value::Null).await.is(204);
    until(leader, async || leader.get("sys/sealwrap/rewrap", ROOT).await.ok().data()["is_running"] == false).await;
    assert_eq!(leader.unsealed().barrier.wrap_keys().generation(), 1);
    // Other members show the version without what was announced.
    let nodes = leader.get("sys/ha-status", ROOT).await.ok();
    let versions = nodes.body["nodes"].as_array().unwrap().iter().map(|node| node["version"].clone());
    assert!(versions.clone().all(|version| version == leader.settings.version.as_str()), "{versions:?}");
}

#[tokio::test]
async fn a_rewrap_waits_while_members_differ_in_disable_sealwrap() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    let current = leader.settings.addresses().version;
    leader.post("sys/mounts/transit", ROOT, json!({ "type": "transit" })).await.is(204);
    leader.post("transit/keys/k", ROOT, json!({})).await.ok();
    assert_eq!(leader.unsealed().barrier.wrap_keys().generation(), 1);
    cluster.announces("b", &announced("1.0.0", true));
    let refused = leader.post("sys/sealwrap/rewrap", ROOT, Value::Null).await.is(503);
    assert!(refused.error().contains("disable_sealwrap differs between the leader and b"), "{refused:?}");
    let shown = leader.get("sys/sealwrap/rewrap", ROOT).await.ok();
    assert_eq!(shown.data()["disable_sealwrap_differs_at"], json!(["b"]));
    // One that runs is not undone by the next leader.
    cluster.announces("b", &current);
    assert!(rewrap::begin(&leader.unsealed()).await.unwrap());
    cluster.announces("b", &announced("1.0.0", true));
    assert!(!rewrap::resume(&leader.unsealed()).await.unwrap());
    assert!(leader.unsealed().barrier.wrap_keys().has_former());
    cluster.announces("b", &current);
    assert!(rewrap::resume(&leader.unsealed()).await.unwrap());
    assert!(!leader.unsealed().barrier.wrap_keys().has_former());
    let shown = standby.get("sys/sealwrap/rewrap", ROOT).await.ok();
    assert!(shown.data().get("disable_sealwrap_differs_at").is_none(), "{shown:?}");
}

#[tokio::test]
async fn a_wrap_key_that_reaches_no_quorum_is_not_created() {
    let cluster = Cluster::new().await;
    let [leader, standby, third] = cluster.nodes();
    cluster.keep_roots_from(&["b", "c"]);
    leader.post("sys/mounts/transit", ROOT, json!({ "type": "transit" })).await.is(204);
    leader.post("transit/keys/k", ROOT, json!({})).await.ok();
    assert!(leader.unsealed().barrier.wrap_keys().is_empty());
    let refused = leader.post("sys/sealwrap/rewrap", ROOT, Value::Null).await.is(503);
    assert!(refused.error().contains("wrap keys reached 1 of 3 voters"), "{refused:?}");
    // A member that is not reached has unsealed by the slot that has the keys.
    cluster.keep_roots_from(&["c"]);
    leader.post("sys/sealwrap/rewrap", ROOT, Value::Null).await.is(204);
    until(leader, async || leader.get("sys/sealwrap/rewrap", ROOT).await.ok().data()["is_running"] == false).await;
    for server in [leader, standby, third] {
        server.get("transit/keys/k", ROOT).await.ok();
        assert_eq!(server.unsealed().barrier.wrap_keys().generation(), 1);
    }
}
