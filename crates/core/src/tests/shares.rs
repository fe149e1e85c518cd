//! Unseal, rekey and root generation under attack: parallel shares, foreign nonces, cancellations, kills.

use std::sync::Arc;

use crate::Node;
use crate::seal::SealShape;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::UnauthedEndpoints;
use keepfast_storage::Backend;
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestResponse, TestServer, incoming};

/// The number of concurrent requests.
const PARALLEL: usize = 64;

/// An unsealed server with five shares and the threshold three.
async fn server() -> Arc<TestServer> {
    let server = TestServer::sealed(SealShape { shares: 5, threshold: 3 }).await;
    assert!(server.node.lifecycle.unseal(&server.shares[..3]).await.unwrap());
    Arc::new(server)
}

fn hexed(share: &SecretBytes) -> String {
    hex::encode(share.expose())
}

/// A share of another key; `n` below five has the coordinate of a right one.
fn foreign(server: &TestServer, n: usize) -> String {
    let last = server.shares.get(n).map_or(0xf0 + (n % 8) as u8, |share| *share.expose().last().unwrap());
    hex::encode([vec![0xab ^ n as u8; 32], vec![last]].concat())
}

/// A request without a token to a listener that enables the unauthenticated ceremonies.
async fn open(server: &TestServer, method: &str, path: &str, body: Value) -> TestResponse {
    let body = (!body.is_null()).then(|| body.to_string());
    let mut request = incoming(method, path, RequestOptions { body, ..RequestOptions::default() });
    request.open = UnauthedEndpoints { rekey: true, generate_root: true };
    let response = server.node.handle(request).await;
    let status = response.status().0;
    TestResponse { status, body: serde_json::from_slice(&response.into_body()).unwrap_or_default() }
}

/// Sends keys concurrently, each in a task of its own.
async fn flood(server: &Arc<TestServer>, path: &'static str, keys: Vec<String>, nonce: &Value) -> Vec<TestResponse> {
    let tasks: Vec<_> = keys
        .into_iter()
        .map(|key| {
            let (server, nonce) = (server.clone(), nonce.clone());
            tokio::spawn(async move { open(&server, "POST", path, json!({ "key": key, "nonce": nonce })).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    assert!(answers.iter().all(|a| matches!(a.status, 200 | 400)), "{answers:?}");
    answers
}

/// The right shares, each several times.
fn right(server: &TestServer) -> Vec<String> {
    (0..PARALLEL).map(|n| hexed(&server.shares[n % 5])).collect()
}

/// Right shares among foreign ones.
fn mixed(server: &TestServer) -> Vec<String> {
    (0..PARALLEL).map(|n| if n % 3 == 0 { hexed(&server.shares[n % 5]) } else { foreign(server, n % 8) }).collect()
}

fn complete(answers: &[TestResponse]) -> Vec<&TestResponse> {
    answers.iter().filter(|a| a.body["complete"] == true).collect()
}

/// The server after `kill -9`: a new process on the same storage, without a seal.
async fn killed(server: &TestServer, shares: &[SecretBytes]) -> bool {
    let backend: Arc<dyn Backend> = server.backend.clone();
    let clock = Arc::new(server.clock.clone());
    let node = Node::new(backend, keepfast_engines::all(), clock, server.settings.clone());
    node.lifecycle.unseal(shares).await.unwrap()
}

fn shares_of(body: &Value) -> Vec<SecretBytes> {
    let keys = body["keys"].as_array().unwrap();
    keys.iter().map(|k| SecretBytes::new(hex::decode(k.as_str().unwrap()).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_kf16_parallel_shares_create_one_root_token_and_foreign_ones_none() {
    let server = server().await;
    for _ in 0..4 {
        let nonce = open(&server, "POST", "sys/generate-root/attempt", json!({})).await.ok().body["nonce"].clone();
        let answers = flood(&server, "sys/generate-root/update", mixed(&server), &nonce).await;
        assert!(complete(&answers).len() <= 1);
        // After any requests of attackers, the operators succeed with the same attempt or with a fresh one.
        open(&server, "DELETE", "sys/generate-root/attempt", Value::Null).await.ok();
        let nonce = open(&server, "POST", "sys/generate-root/attempt", json!({})).await.ok().body["nonce"].clone();
        let answers = flood(&server, "sys/generate-root/update", right(&server), &nonce).await;
        assert_eq!(complete(&answers).len(), 1);
        assert_eq!(open(&server, "GET", "sys/generate-root/attempt", Value::Null).await.ok().body["started"], false);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_kf16_parallel_shares_rekey_once_and_the_new_shares_open() {
    let server = server().await;
    let init = json!({ "secret_shares": 4, "secret_threshold": 2 });
    let nonce = open(&server, "POST", "sys/rekey/init", init.clone()).await.ok().body["nonce"].clone();
    let foreign: Vec<String> = (0..PARALLEL).map(|n| foreign(&server, n % 8)).collect();
    assert!(complete(&flood(&server, "sys/rekey/update", foreign, &nonce).await).is_empty());
    open(&server, "DELETE", "sys/rekey/init", Value::Null).await.ok();
    let nonce = open(&server, "POST", "sys/rekey/init", init).await.ok().body["nonce"].clone();
    let answers = flood(&server, "sys/rekey/update", right(&server), &nonce).await;
    let [made] = complete(&answers)[..] else { panic!("{answers:?}") };
    let new = shares_of(&made.body);
    assert!(!killed(&server, &server.shares[..3]).await);
    assert!(killed(&server, &new[2..]).await);
    server.node.lifecycle.seal().await;
    assert!(server.node.lifecycle.unseal(&new[..2]).await.unwrap());
    assert!(server.accepts(ROOT).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_kf16_strangers_see_no_secret_and_shares_serve_no_other_nonce() {
    let server = server().await;
    let started = open(&server, "POST", "sys/generate-root/attempt", json!({})).await.ok();
    let (operator, otp) = (started.body["nonce"].clone(), started.body["otp"].as_str().unwrap().to_owned());
    let give = async |n: usize, nonce: &Value| {
        let body = json!({ "key": hexed(&server.shares[n]), "nonce": nonce });
        open(&server, "POST", "sys/generate-root/update", body).await
    };
    give(0, &operator).await.ok();
    give(1, &operator).await.ok();
    let seen = open(&server, "GET", "sys/generate-root/attempt", Value::Null).await.ok().body.to_string();
    assert!(!seen.contains(&otp) && !seen.contains(&hexed(&server.shares[0])), "{seen}");
    // An attacker replaces the attempt by another one and waits for the last share.
    open(&server, "DELETE", "sys/generate-root/attempt", Value::Null).await.ok();
    let theirs = "x".repeat(otp.len());
    open(&server, "POST", "sys/generate-root/attempt", json!({ "otp": theirs })).await.ok();
    for n in 0..3 {
        give(n, &operator).await.is(400);
    }
    assert_eq!(open(&server, "GET", "sys/generate-root/attempt", Value::Null).await.ok().body["progress"], 0);
    // The same with new shares; a nonce of one ceremony is not valid for the other.
    let init = json!({ "secret_shares": 1, "secret_threshold": 1 });
    let first = open(&server, "POST", "sys/rekey/init", init.clone()).await.ok().body["nonce"].clone();
    open(&server, "DELETE", "sys/rekey/init", Value::Null).await.ok();
    open(&server, "POST", "sys/rekey/init", init).await.ok();
    for (n, nonce) in [(0, &first), (1, &operator), (2, &json!("")), (3, &Value::Null)] {
        let body = json!({ "key": hexed(&server.shares[n]), "nonce": nonce });
        open(&server, "POST", "sys/rekey/update", body).await.is(400);
    }
    assert_eq!(open(&server, "GET", "sys/rekey/init", Value::Null).await.ok().body["progress"], 0);
    assert!(killed(&server, &server.shares[1..4]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_kf16_a_share_counts_once_and_a_forged_one_is_no_server_error() {
    let server = server().await;
    let nonce = open(&server, "POST", "sys/generate-root/attempt", json!({})).await.ok().body["nonce"].clone();
    let same = vec![hexed(&server.shares[0]); PARALLEL];
    assert!(complete(&flood(&server, "sys/generate-root/update", same, &nonce).await).is_empty());
    assert_eq!(open(&server, "GET", "sys/generate-root/attempt", Value::Null).await.ok().body["progress"], 1);
    // Another share with the coordinate of the first one.
    for key in [foreign(&server, 0), hexed(&server.shares[1])] {
        let last = open(&server, "POST", "sys/generate-root/update", json!({ "key": key, "nonce": nonce })).await;
        assert!(matches!(last.status, 200 | 400) && last.body["complete"] != true, "{last:?}");
    }
    let zero = hex::encode([0; 33]);
    for key in [zero.clone(), hexed(&server.shares[2]), hexed(&server.shares[3])] {
        let last = open(&server, "POST", "sys/generate-root/update", json!({ "key": key, "nonce": nonce })).await;
        assert!(matches!(last.status, 200 | 400) && last.body["complete"] != true, "{last:?}");
    }
    server.node.lifecycle.seal().await;
    for key in [zero, foreign(&server, 1), hexed(&server.shares[1])] {
        let answer = server.post("sys/unseal", "", json!({ "key": key })).await;
        assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    }
    assert!(server.node.state().is_sealed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_kf16_parallel_unsealing_opens_and_keeps_no_share() {
    let server = server().await;
    for round in 0..8 {
        server.node.lifecycle.seal().await;
        // Foreign shares of attackers first; the operators restart.
        flood(&server, "sys/unseal", mixed(&server), &Value::Null).await;
        server.post("sys/unseal", "", json!({ "reset": true })).await;
        let answers = flood(&server, "sys/unseal", right(&server), &Value::Null).await;
        assert!(answers.iter().all(|a| a.status == 200), "{round}: {answers:?}");
        assert!(!server.node.state().is_sealed, "{round}");
        let status = server.get("sys/seal-status", "").await.ok();
        assert_eq!((&status.body["progress"], &status.body["nonce"]), (&json!(0), &json!("")), "{round}");
        assert!(server.accepts(ROOT).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_kf16_a_kill_at_the_commit_of_a_ceremony_leaves_one_quorum() {
    let server = server().await;
    server
        .post("sys/policies/acl/kept", ROOT, json!({ "policy": r#"path "x" { capabilities = ["read"] }"# }))
        .await
        .ok();
    // A new root key; killed before the commit.
    let gate = server.backend.arm();
    let held = tokio::spawn({
        let server = server.clone();
        async move { server.post("sys/rotate/root", ROOT, Value::Null).await }
    });
    gate.reached.notified().await;
    held.abort();
    assert!(killed(&server, &server.shares[2..]).await);
    // New shares with a verification; killed after each step but the last, and at the commit of the last.
    let init = json!({ "secret_shares": 3, "secret_threshold": 2, "require_verification": true });
    let nonce = open(&server, "POST", "sys/rekey/init", init).await.ok().body["nonce"].clone();
    let give = async |path: &'static str, share: &SecretBytes, nonce: &Value| {
        open(&server, "POST", path, json!({ "key": hexed(share), "nonce": nonce })).await.ok()
    };
    give("sys/rekey/update", &server.shares[0], &nonce).await;
    give("sys/rekey/update", &server.shares[1], &nonce).await;
    assert!(killed(&server, &server.shares[..3]).await);
    let made = give("sys/rekey/update", &server.shares[2], &nonce).await;
    let (new, proof) = (shares_of(&made.body), made.body["verification_nonce"].clone());
    assert!(killed(&server, &server.shares[..3]).await && !killed(&server, &new[..2]).await);
    give("sys/rekey/verify", &new[0], &proof).await;
    assert!(killed(&server, &server.shares[..3]).await && !killed(&server, &new[..2]).await);
    let gate = server.backend.arm();
    let held = tokio::spawn({
        let (server, key, nonce) = (server.clone(), hexed(&new[1]), proof.clone());
        async move { open(&server, "POST", "sys/rekey/verify", json!({ "key": key, "nonce": nonce })).await }
    });
    gate.reached.notified().await;
    held.abort();
    let _ = held.await;
    assert!(killed(&server, &server.shares[..3]).await && !killed(&server, &new[..2]).await, "not committed");
    // The verification can be repeated, and then it succeeds.
    let restarted = open(&server, "DELETE", "sys/rekey/verify", Value::Null).await.ok();
    for share in &new[1..] {
        give("sys/rekey/verify", share, &restarted.body["nonce"]).await;
    }
    let (old_opens, new_opens) = (killed(&server, &server.shares[..3]).await, killed(&server, &new[..2]).await);
    assert_eq!((old_opens, new_opens), (false, true));
}
