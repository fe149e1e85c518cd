//! Init, unseal and seal: the shares, and the state after the keys are gone.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::place::Site;
use crate::seal::SealShape;
use crate::{Node, Settings};
use keepfast_framework::clock::TestClock;
use keepfast_storage::{Backend as _, Batch, Key, MemoryBackend, Write};
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestServer, incoming};

fn share(server: &TestServer, n: usize) -> String {
    hex::encode(server.shares[n].expose())
}

#[tokio::test]
async fn shares_unseal_in_any_order_and_wrong_ones_do_not() {
    let server = TestServer::sealed(SealShape { shares: 5, threshold: 3 }).await;
    server.get("secret/data/a", ROOT).await.is(503);
    server.post("sys/seal", "", Value::Null).await.is(204);
    let unseal = async |key: String| server.post("sys/unseal", "", json!({ "key": key })).await;
    let status = unseal(share(&server, 4)).await.ok();
    assert_eq!(
        (&status.body["progress"], &status.body["sealed"], &status.body["t"], &status.body["n"]),
        (&json!(1), &json!(true), &json!(3), &json!(5))
    );
    let nonce = status.body["nonce"].clone();
    assert_eq!(unseal(share(&server, 4)).await.ok().body["progress"], 1, "the same share counts once");
    assert_eq!(unseal(share(&server, 0)).await.ok().body["nonce"], nonce);
    // A share of another key: the attempt fails as a whole and restarts.
    let wrong = format!("{}{}", "ab".repeat(32), "07");
    assert_eq!(unseal(wrong).await.is(400).error(), "Unsealing failed, invalid key");
    assert_eq!(server.get("sys/seal-status", "").await.ok().body["progress"], 0);
    for bad in [
        json!({}),
        json!({ "key": "" }),
        json!({ "key": "zz" }),
        json!({ "key": "ab" }),
        json!({ "key": "ab".repeat(34) }),
        json!({ "key": [1] }),
    ] {
        server.post("sys/unseal", "", bad).await.is(400);
    }
    unseal(share(&server, 0)).await.ok();
    assert_eq!(server.post("sys/unseal", "", json!({ "reset": true })).await.ok().body["progress"], 0);
    for n in [3, 1] {
        assert_eq!(unseal(share(&server, n)).await.ok().body["sealed"], true);
    }
    let open = unseal(share(&server, 2)).await.ok();
    assert_eq!(
        (&open.body["sealed"], &open.body["progress"], &open.body["nonce"]),
        (&json!(false), &json!(0), &json!(""))
    );
    assert!(server.accepts(ROOT).await);
}

#[tokio::test]
async fn init_is_done_once_and_its_shapes_are_checked() {
    let node = Node::new(
        Arc::new(MemoryBackend::new()),
        keepfast_engines::all(),
        Arc::new(TestClock::default()),
        Settings::default(),
    );
    let send = async |body: Value| {
        let response = node
            .handle(incoming(
                "POST",
                "sys/init",
                RequestOptions { body: Some(body.to_string()), ..RequestOptions::default() },
            ))
            .await;
        (response.status().0, serde_json::from_slice::<Value>(&response.into_body()).unwrap())
    };
    let uninitialised = node.handle(incoming("GET", "sys/health", RequestOptions::default())).await;
    assert_eq!(uninitialised.status().0, 501);
    for (shares, threshold) in [(0, 0), (1, 0), (2, 1), (3, 4), (256, 3), (-1, -1)] {
        assert_eq!(
            send(json!({ "secret_shares": shares, "secret_threshold": threshold })).await.0,
            400,
            "{shares}/{threshold}"
        );
    }
    let (status, made) = send(json!({ "secret_shares": 3, "secret_threshold": 2 })).await;
    assert_eq!(
        (status, made["keys"].as_array().unwrap().len(), made["keys_base64"].as_array().unwrap().len()),
        (200, 3, 3)
    );
    assert!(made["root_token"].as_str().unwrap().starts_with("hvs."));
    assert_eq!(
        send(json!({ "secret_shares": 3, "secret_threshold": 2 })).await.1["errors"][0],
        "Vault is already initialized"
    );
}

/// Sends every parameter of `sys/health` with invalid codes, in the current state of the node.
async fn health_refuses_what_is_no_code(node: &Node, state: &str) {
    let parameters = [
        "activecode",
        "standbycode",
        "sealedcode",
        "uninitcode",
        "performancestandbycode",
        "drsecondarycode",
        "haunhealthycode",
        "removedcode",
    ];
    // The edge turns HEAD into a read, which `conformance/scenarios/http/health.yaml` tests.
    for parameter in parameters {
        for (code, accepted) in [
            ("abc", false),
            ("", false),
            ("-1", false),
            ("0", false),
            ("99", false),
            ("100", false),
            ("199", false),
            ("1000", false),
            ("65736", false),
            ("200.0", false),
            ("0x1f4", false),
            ("200", true),
            ("299", true),
            ("999", true),
        ] {
            let path = format!("sys/health?{parameter}={code}");
            let answer = node.handle(incoming("GET", &path, RequestOptions::default())).await;
            assert_eq!(answer.status().0 != 400, accepted, "{state} {path}: {}", answer.status().0);
        }
    }
}

#[tokio::test]
async fn health_refuses_what_is_no_status_code_in_every_state() {
    let fresh = Node::new(
        Arc::new(MemoryBackend::new()),
        keepfast_engines::all(),
        Arc::new(TestClock::default()),
        Settings::default(),
    );
    health_refuses_what_is_no_code(&fresh, "uninitialized").await;
    let server = TestServer::new().await;
    health_refuses_what_is_no_code(&server.node, "active").await;
    server.node.lifecycle.seal().await;
    health_refuses_what_is_no_code(&server.node, "sealed").await;
    // Its record is read only after the parameters are checked.
    let unreadable = Batch {
        reads: Vec::new(),
        writes: vec![Write::Put { key: Key::new("barrier/seal").unwrap(), value: "{".into() }],
    };
    server.backend.commit(unreadable).await.unwrap();
    assert_eq!(server.get("sys/health", "").await.status, 500);
    health_refuses_what_is_no_code(&server.node, "unreadable").await;
}

#[tokio::test]
async fn health_and_seal_status_show_a_quarantine_of_leases() {
    let server = TestServer::new().await;
    for path in ["sys/health", "sys/seal-status"] {
        assert!(server.get(path, "").await.body.get("lease_quarantine").is_none());
    }
    server.post("sys/leases/quarantine", ROOT, json!({ "enabled": true })).await.is(204);
    for path in ["sys/health", "sys/seal-status"] {
        assert_eq!(server.get(path, "").await.body["lease_quarantine"], true, "{path}");
    }
    server.post("sys/leases/quarantine", ROOT, json!({ "enabled": false })).await.is(204);
    assert!(server.get("sys/health", "").await.body.get("lease_quarantine").is_none());
}

#[tokio::test]
async fn a_sealed_server_returns_503_and_its_shares_restore_the_data() {
    let server = TestServer::new().await;
    server.post("secret/data/a", ROOT, json!({ "data": { "k": 1 } })).await.ok();
    let before = server.node.lifecycle.namespaces().unwrap().root().clone();
    server.policy("no-seal", r#"path "sys/seal" { capabilities = ["update"] }"#).await;
    let weak = server.token(json!({ "policies": ["no-seal"] })).await;
    server.post("sys/seal", &weak, Value::Null).await.is(403);
    server.post("sys/seal", "", Value::Null).await.is(403);
    server.post("sys/seal", ROOT, Value::Null).await.is(204);
    let sealed = async {
        while !server.node.state().is_sealed {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), sealed).await.expect("the server is sealed");
    assert!(before.server().barrier.is_closed(), "keys are wiped even while a request holds the barrier");
    for (method, path) in [
        ("GET", "secret/data/a"),
        ("POST", "secret/data/a"),
        ("GET", "auth/token/lookup-self"),
        ("GET", "sys/mounts"),
        ("GET", "none"),
    ] {
        server.call(method, path, ROOT, Value::Null).await.is(503);
    }
    server.get("sys/health", "").await.is(503);
    // A request in flight fails with the same status.
    let options = RequestOptions { token: Some(ROOT.to_owned()), ..RequestOptions::default() };
    let late = before.handle(incoming("GET", "secret/data/a", options), Site::Leader).await;
    assert_eq!(late.ok().map(|late| late.status().0), Some(503));
    server.node.lifecycle.unseal(&server.shares).await.unwrap();
    assert_eq!(server.get("secret/data/a", ROOT).await.ok().data()["data"]["k"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealing_under_load_loses_no_acknowledged_write() {
    let server = Arc::new(TestServer::new().await);
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let server = server.clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    let path = format!("secret/data/{w}-{n}");
                    match server.post(&path, ROOT, json!({ "data": { "n": n } })).await.status {
                        200 => acknowledged.push(path),
                        503 => break,
                        other => panic!("{other}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    let loaded = async {
        while server.entries_written() < 400 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), loaded).await.expect("the writers write");
    server.node.lifecycle.seal().await;
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    server.node.lifecycle.unseal(&server.shares).await.unwrap();
    assert!(acknowledged.len() > 20);
    for path in acknowledged {
        server.get(&path, ROOT).await.is(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_ds05_unauthenticated_callers_do_not_stop_an_operator() {
    let server = TestServer::sealed(SealShape { shares: 3, threshold: 2 }).await;
    for path in ["sys/rekey/init", "sys/generate-root/attempt", "sys/rotate", "sys/rotate/keyring", "sys/step-down"] {
        server.post(path, "", json!({})).await.is(503);
    }
    server.node.lifecycle.unseal(&server.shares).await.unwrap();
    for method in ["GET", "POST", "DELETE"] {
        for path in [
            "sys/rekey/init",
            "sys/rekey/update",
            "sys/generate-root/attempt",
            "sys/generate-root/update",
            "sys/rotate",
            "sys/seal",
            "sys/rotate/config",
        ] {
            // Operations that need no token on OpenBao are off here, with an error that states it.
            let answer = server.call(method, path, "", json!({})).await;
            assert!(matches!(answer.status, 403 | 405), "{method} {path}: {answer:?}");
        }
    }
    // The only node stays the leader.
    server.post("sys/step-down", "", json!({})).await.is(204);
    assert_eq!(server.get("sys/rotate/root/init", ROOT).await.ok().data()["started"], false);
    // Shares given to an unsealed server are not kept.
    for n in 0..1000 {
        server.post("sys/unseal", "", json!({ "key": format!("{n:066x}") })).await.ok();
    }
    assert_eq!(server.get("sys/seal-status", "").await.ok().body["progress"], 0);
    server.post("sys/rotate", ROOT, json!({})).await.ok();
}

#[tokio::test]
async fn background_tasks_revoke_expired_tokens_and_stop_at_seal() {
    let server = TestServer::new().await;
    let token = server.token(json!({ "policies": ["default"], "ttl": "5s" })).await;
    server.clock.advance(Duration::from_secs(7));
    for _ in 0..10_000 {
        if crate::tests::tokens::stored(&server, "token/expiry/").await.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(crate::tests::tokens::stored(&server, "token/expiry/").await.is_empty());
    assert!(!server.accepts(&token).await);
    let held = Arc::downgrade(&server.unsealed());
    server.node.lifecycle.seal().await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(held.upgrade().is_none(), "nothing holds what existed while it was unsealed");
}

#[tokio::test]
async fn the_keyring_is_rotated_by_itself_as_configured() {
    let mut server = TestServer::new().await;
    let term = async |server: &TestServer| server.get("sys/key-status", ROOT).await.ok().body["term"].clone();
    server.post("sys/rotate/config", ROOT, json!({ "interval": "24h" })).await.is(204);
    server.restarted().await;
    let unsealed = server.unsealed();
    let started = unsealed.clock.now();
    crate::keyring_rotation::rotate_worn_key(&unsealed.barrier, started.after(Duration::from_secs(23 * 3600)))
        .await
        .unwrap();
    assert_eq!(term(&server).await, 1);
    crate::keyring_rotation::rotate_worn_key(&unsealed.barrier, started.after(Duration::from_secs(24 * 3600)))
        .await
        .unwrap();
    assert_eq!(term(&server).await, 2);
    server.post("sys/rotate/keyring/config", ROOT, json!({ "enabled": false })).await.is(204);
    crate::keyring_rotation::rotate_worn_key(&unsealed.barrier, started.after(Duration::from_secs(100 * 3600)))
        .await
        .unwrap();
    assert_eq!(term(&server).await, 2);
}
