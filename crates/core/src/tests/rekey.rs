//! New shares, root keys and root tokens: the required capabilities, and that either the old shares are valid or the
//! new ones.

use crate::seal::SealShape;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use keepfast_crypto::secret::SecretBytes;
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestResponse, TestServer};

/// A server with three shares and the threshold two.
async fn server() -> TestServer {
    let server = TestServer::sealed(SealShape { shares: 3, threshold: 2 }).await;
    assert!(server.node.lifecycle.unseal(&server.shares[..2]).await.unwrap());
    server
}

fn hexed(share: &SecretBytes) -> String {
    hex::encode(share.expose())
}

/// The shares in a response.
fn shares(answer: &TestResponse) -> Vec<SecretBytes> {
    let keys = answer.data()["keys"].as_array().unwrap();
    keys.iter().map(|k| SecretBytes::new(hex::decode(k.as_str().unwrap()).unwrap())).collect()
}

async fn give(server: &TestServer, path: &str, share: &SecretBytes, nonce: &Value) -> TestResponse {
    server.post(path, ROOT, json!({ "key": hexed(share), "nonce": nonce })).await
}

/// Seals the server and tries to unseal it with these shares.
async fn reopens(server: &TestServer, shares: &[SecretBytes]) -> bool {
    server.node.lifecycle.seal().await;
    server.node.lifecycle.unseal(shares).await.unwrap()
}

#[tokio::test]
async fn sec_cs05_exactly_one_of_old_and_new_shares_unseals_at_every_moment() {
    let server = server().await;
    server.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    assert!(reopens(&server, &server.shares[1..]).await, "a new root key leaves the shares as they are");
    let init = json!({ "secret_shares": 4, "secret_threshold": 3, "require_verification": true });
    let nonce = server.post("sys/rotate/root/init", ROOT, init).await.ok().data()["nonce"].clone();
    give(&server, "sys/rotate/root/update", &server.shares[0], &nonce).await.ok();
    let made = give(&server, "sys/rotate/root/update", &server.shares[2], &nonce).await.ok();
    let (new, proof) = (shares(&made), made.data()["verification_nonce"].clone());
    for share in &new[..2] {
        give(&server, "sys/rotate/root/verify", share, &proof).await.ok();
    }
    // The pending shares are in memory: after a seal the old shares are valid and the new ones are discarded.
    assert!(!reopens(&server, &new[..3]).await);
    assert!(reopens(&server, &server.shares[..2]).await);
    server.get("sys/rotate/root/verify", ROOT).await.is(400);
    let init = json!({ "secret_shares": 4, "secret_threshold": 3, "require_verification": true });
    let nonce = server.post("sys/rotate/root/init", ROOT, init).await.ok().data()["nonce"].clone();
    give(&server, "sys/rotate/root/update", &server.shares[0], &nonce).await.ok();
    let made = give(&server, "sys/rotate/root/update", &server.shares[2], &nonce).await.ok();
    let (new, proof) = (shares(&made), made.data()["verification_nonce"].clone());
    // A change of the root key during the verification does not affect it.
    server.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    for share in &new[1..3] {
        give(&server, "sys/rotate/root/verify", share, &proof).await.ok();
    }
    assert_eq!(give(&server, "sys/rotate/root/verify", &new[0], &proof).await.ok().data()["complete"], true);
    server.post("sys/rotate/root", ROOT, Value::Null).await.is(204);
    assert!(!reopens(&server, &server.shares[..2]).await);
    assert!(!reopens(&server, &new[..2]).await);
    assert!(reopens(&server, &new[1..]).await);
    assert!(server.accepts(ROOT).await);
}

#[tokio::test]
async fn wrong_shares_create_nothing_and_restart_the_collection() {
    let server = server().await;
    let init = json!({ "secret_shares": 1, "secret_threshold": 1 });
    let nonce = server.post("sys/rotate/root/init", ROOT, init).await.ok().data()["nonce"].clone();
    let foreign = SecretBytes::new([vec![0xab; 32], vec![7]].concat());
    give(&server, "sys/rotate/root/update", &server.shares[0], &json!("other")).await.is(400);
    give(&server, "sys/rotate/root/update", &server.shares[0], &nonce).await.ok();
    give(&server, "sys/rotate/root/update", &server.shares[0], &nonce).await.is(400);
    give(&server, "sys/rotate/root/update", &foreign, &nonce).await.is(400);
    assert_eq!(server.get("sys/rotate/root/init", ROOT).await.ok().data()["progress"], 0);
    let attempt = server.post("sys/generate-root-token/attempt", ROOT, json!({})).await.ok();
    let nonce = &attempt.data()["nonce"];
    give(&server, "sys/generate-root-token/update", &foreign, nonce).await.ok();
    give(&server, "sys/generate-root-token/update", &server.shares[0], nonce).await.is(400);
    assert_eq!(server.get("sys/generate-root-token/attempt", ROOT).await.ok().data()["progress"], 0);
    assert!(reopens(&server, &server.shares[..2]).await);
}

#[tokio::test]
async fn a_quorum_creates_a_root_token_that_only_the_otp_decodes() {
    let server = server().await;
    let attempt = server.post("sys/generate-root-token/attempt", ROOT, json!({})).await.ok();
    let (otp, nonce) = (attempt.data()["otp"].as_str().unwrap().to_owned(), attempt.data()["nonce"].clone());
    assert_eq!(attempt.data()["otp_length"], otp.len());
    assert_eq!(server.get("sys/generate-root-token/attempt", ROOT).await.ok().data()["otp"], "", "it is returned once");
    give(&server, "sys/generate-root-token/update", &server.shares[0], &nonce).await.ok();
    let done = give(&server, "sys/generate-root-token/update", &server.shares[1], &nonce).await.ok();
    let encoded = done.data()["encoded_token"].as_str().unwrap();
    let plain: Vec<u8> =
        STANDARD_NO_PAD.decode(encoded).unwrap().iter().zip(otp.as_bytes()).map(|(a, b)| a ^ b).collect();
    let token = String::from_utf8(plain).unwrap();
    assert!(server.accepts(&token).await);
    let actual = server.post("sys/decode-token", "", json!({ "encoded_token": encoded, "otp": otp })).await.ok();
    assert_eq!(actual.data()["token"], token);
    let lookup = server.get("auth/token/lookup-self", &token).await.ok();
    assert_eq!((&lookup.data()["policies"], &lookup.data()["ttl"]), (&json!(["root"]), &json!(0)));
    assert_eq!(server.get("sys/generate-root-token/attempt", ROOT).await.ok().data()["started"], false);
    // The audit log contains neither shares nor token nor pad.
    let log = server.audit("audit");
    for secret in [&token, &otp, &hexed(&server.shares[0]), &hexed(&server.shares[1])] {
        assert!(!log.contains(secret.as_str()));
    }
}

#[tokio::test]
async fn sec_ds05_strangers_neither_begin_nor_cancel_and_hold_no_state() {
    let server = server().await;
    let init = json!({ "secret_shares": 3, "secret_threshold": 2 });
    let nonce = server.post("sys/rotate/root/init", ROOT, init.clone()).await.ok().data()["nonce"].clone();
    server.post("sys/generate-root-token/attempt", ROOT, json!({})).await.ok();
    for path in ["sys/rotate/root/init", "sys/generate-root-token/attempt", "sys/rotate/root/verify"] {
        for method in ["GET", "POST", "DELETE"] {
            server.call(method, path, "", init.clone()).await.is(403);
        }
    }
    for path in ["sys/rekey/init", "sys/generate-root/attempt", "sys/rekey/verify"] {
        for method in ["GET", "POST", "DELETE"] {
            for token in ["", ROOT] {
                assert_eq!(
                    server.call(method, path, token, init.clone()).await.is(405).error(),
                    "unsupported operation"
                );
            }
        }
    }
    give(&server, "sys/rotate/root/update", &server.shares[0], &nonce).await.ok();
    let made = give(&server, "sys/rotate/root/update", &server.shares[1], &nonce).await.ok();
    assert!(reopens(&server, &shares(&made)[1..]).await);
    assert_eq!(
        server.get("sys/generate-root-token/attempt", ROOT).await.ok().data()["started"],
        false,
        "sealing forgets"
    );
}
