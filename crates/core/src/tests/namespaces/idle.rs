//! Idle namespaces cost nothing: an unseal reads nothing of them, and only a request in one opens it.

use serde_json::{Value, json};

use super::tenants::{create, mount_kv, set, within, work};
use crate::tests::fixture::{ROOT, TestServer};
use crate::unsealed::NamespaceHost as _;

/// The number of namespaces.
const MANY: usize = 200;

async fn with_many() -> TestServer {
    let server = TestServer::new().await;
    for n in 0..MANY {
        create(&server, &format!("n{n}")).await;
    }
    for n in [0, 1, 2] {
        mount_kv(&server, &format!("n{n}")).await;
        set(&server, &format!("n{n}"), "kv/x", json!({ "k": n })).await;
    }
    server
}

fn opened(server: &TestServer) -> usize {
    server.node.lifecycle.namespaces().unwrap().opened().len()
}

#[tokio::test]
async fn two_hundred_idle_namespaces_are_not_read_at_unseal() {
    let mut server = TestServer::new().await;
    server.restarted().await;
    server.backend.watch_reads();
    server.restarted().await;
    let alone = server.backend.take_reads().len();
    let mut server = with_many().await;
    server.backend.watch_reads();
    server.restarted().await;
    let reads = server.backend.take_reads();
    let of_namespaces: Vec<_> = reads.iter().filter(|key| key.starts_with("ns/")).collect();
    println!("{} reads, {alone} without namespaces", reads.len());
    assert!(of_namespaces.len() <= 1, "{of_namespaces:?}");
    assert_eq!(opened(&server), 0);
    server.get("secret/data/none", ROOT).await.is(404);
    assert_eq!(opened(&server), 0, "a request in root opens none");
    within(&server, "n1", ("GET", "kv/x"), ROOT, Value::Null).await.ok();
    assert_eq!(opened(&server), 1);
}

/// The most reads of the first request in a namespace.
const FIRST_REQUEST: usize = 40;

#[tokio::test]
async fn the_first_request_reads_one_namespace_and_the_next_none() {
    let mut server = with_many().await;
    server.restarted().await;
    server.get("secret/data/none", ROOT).await.is(404);
    server.backend.watch_reads();
    within(&server, "n0", ("GET", "kv/x"), ROOT, Value::Null).await.ok();
    let first = server.backend.take_reads();
    assert!(first.len() <= FIRST_REQUEST, "{}: {first:#?}", first.len());
    server.backend.watch_reads();
    within(&server, "n0", ("GET", "kv/x"), ROOT, Value::Null).await.ok();
    let next = server.backend.take_reads();
    assert!(next.len() <= 1, "the record of the secret at most: {next:#?}");
}

#[tokio::test]
async fn background_work_opens_only_namespaces_that_have_some() {
    let mut server = with_many().await;
    server.restarted().await;
    work(&server).await;
    // KV version 1 has no background work.
    assert_eq!(opened(&server), 0);
    set(&server, "n3", "sys/mounts/t", json!({ "type": "transit" })).await;
    set(&server, "n3", "t/keys/k", json!({})).await;
    server.restarted().await;
    work(&server).await;
    assert_eq!(opened(&server), 1);
}
