//! What a new leader goes on with.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::Clock as _;
use serde_json::{Value, json};

use super::fake::Cluster;
use super::written;
use crate::tests::fixture::{ROOT, TestServer};

async fn with_user(server: &TestServer) {
    server.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    server.post("auth/up/users/anna", ROOT, json!({ "password": "right" })).await.ok();
}

async fn login(server: &TestServer, name: &str, password: &str) -> u16 {
    server.post(&format!("auth/up/login/{name}"), "", json!({ "password": password })).await.status
}

#[tokio::test]
async fn failed_logins_are_counted_on_by_the_next_leader() {
    let cluster = Cluster::new().await;
    let [first, second, third] = cluster.nodes();
    with_user(first).await;
    let mut statuses = [Vec::new(), Vec::new()];
    for (leader, server) in [("a", second), ("a", first), ("b", second), ("c", first), ("a", third), ("b", first)] {
        cluster.elect(Some(leader));
        for (name, statuses) in ["anna", "nobody"].into_iter().zip(&mut statuses) {
            statuses.push(login(server, name, "wrong").await);
        }
    }
    assert_eq!(statuses, [[400, 400, 400, 400, 400, 403], [400, 400, 400, 400, 400, 403]]);
    assert_eq!(login(third, "anna", "right").await, 403);
    // A right password clears the count for every leader.
    cluster.clock().advance(Duration::from_secs(900));
    for (leader, password, expected) in [("a", "wrong", 400), ("b", "right", 200), ("c", "wrong", 400)] {
        cluster.elect(Some(leader));
        assert_eq!(login(first, "anna", password).await, expected, "{leader}");
    }
    for _ in 0..4 {
        assert_eq!(login(first, "anna", "wrong").await, 400);
    }
    assert_eq!(login(first, "anna", "right").await, 403);
}

#[tokio::test]
async fn a_count_that_is_not_stored_is_not_answered() {
    let cluster = Cluster::new().await;
    let [leader, ..] = cluster.nodes();
    with_user(leader).await;
    leader.backend.refuse(|batch| {
        let is_count = batch.writes.iter().any(|write| write.key().as_str().starts_with("sys/lockout"));
        is_count.then_some(keepfast_storage::StorageError::NoLeader)
    });
    assert_eq!((login(leader, "anna", "wrong").await, login(leader, "nobody", "wrong").await), (503, 503));
}

#[tokio::test]
async fn a_failed_login_costs_one_commit_in_a_cluster_and_none_alone() {
    let cluster = Cluster::new().await;
    let [leader, ..] = cluster.nodes();
    let lone = TestServer::new().await;
    with_user(leader).await;
    with_user(&lone).await;
    let mut before = cluster.commits();
    let mut commits = || {
        let after = cluster.commits();
        after - std::mem::replace(&mut before, after)
    };
    for name in ["anna", "nobody"] {
        for _ in 0..5 {
            login(leader, name, "wrong").await;
            assert_eq!(commits(), 1, "{name}");
        }
        login(leader, name, "wrong").await;
        assert_eq!(commits(), 0, "a guess at a locked name");
    }
    lone.backend.refuse(|_| Some(keepfast_storage::StorageError::Full));
    for name in ["anna", "nobody"] {
        for _ in 0..4 {
            assert_eq!(login(&lone, name, "wrong").await, 400);
        }
    }
}

#[tokio::test]
async fn a_write_at_a_new_leader_waits_for_its_takeover() {
    let cluster = Arc::new(Cluster::new().await);
    cluster.nodes()[0].post("secret/data/a", ROOT, written()).await.ok();
    // The first commit of the new leader is that of its takeover.
    let gate = cluster.nodes()[0].backend.arm();
    cluster.elect(Some("b"));
    gate.reached.notified().await;
    cluster.nodes()[1].get("secret/data/a", ROOT).await.ok();
    let write = || {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.nodes()[1].post("secret/data/b", ROOT, written()).await.status })
    };
    let (refused, before) = (write(), cluster.commits());
    while !refused.is_finished() {
        cluster.clock().advance(Duration::from_millis(100));
        tokio::task::yield_now().await;
    }
    assert_eq!((refused.await.unwrap(), cluster.commits()), (503, before));
    let waiting = write();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    gate.open.notify_one();
    assert_eq!(waiting.await.unwrap(), 200);
    cluster.nodes()[2].post("secret/data/c", ROOT, written()).await.ok();
    cluster.nodes()[1].get("sys/seal-status", "").await.ok();
    assert_eq!(cluster.nodes()[2].get("secret/data/b", ROOT).await.ok().body.get("errors"), None::<&Value>);
}

#[tokio::test]
async fn the_active_time_is_that_of_the_leadership() {
    let cluster = Cluster::new().await;
    let [first, second, _] = cluster.nodes();
    let active_time = async |server: &TestServer| {
        let response = server.get("sys/leader", "").await.ok().body;
        response.get("active_time").and_then(Value::as_str).map(str::to_owned)
    };
    assert_eq!(active_time(first).await, Some(cluster.clock().now().rfc3339()));
    cluster.clock().advance(Duration::from_secs(7));
    cluster.elect(Some("b"));
    while active_time(second).await.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(active_time(second).await, Some(cluster.clock().now().rfc3339()));
    assert_eq!(active_time(first).await, None);
}

#[tokio::test]
async fn a_new_leadership_drops_what_autopilot_has_seen() {
    let cluster = Cluster::new().await;
    let leader = &cluster.nodes()[0].node.lifecycle;
    let leading_for = || leader.administration.autopilot.memory().leading_for();
    for _ in 0..2 {
        crate::cluster::autopilot_task::advance(leader).await.unwrap();
        cluster.clock().advance(Duration::from_secs(9));
    }
    assert_eq!(leading_for(), Duration::from_secs(9));
    cluster.elect(Some("b"));
    cluster.elect(Some("a"));
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(leader.leads_since().is_some());
    assert_eq!(leading_for(), Duration::ZERO);
}
