//! Shares and root tokens for PGP keys: GnuPG decrypts them, the decrypted shares unseal, and a key that cannot encrypt is
//! refused before anything is written.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::secret::SecretBytes;
use keepfast_storage::{Backend as _, Key, Page, StorageError};
use serde_json::{Value, json};

use super::gnupg::{CURVE, Gpg, RSA, SIGN_ONLY};
use crate::seal::SealShape;
use crate::seal::test_seal::TestSeal;
use crate::tests::fixture::{ROOT, TestResponse, TestServer};
use crate::tests::seals::{initialized, server as sealed_by, set};

/// A holder of a PGP key.
struct Holder {
    gpg: Gpg,
    /// The certificate in base64.
    key: String,
}

impl Holder {
    fn new(parameters: &str) -> Option<Self> {
        let gpg = Gpg::new()?;
        let key = STANDARD.encode(gpg.generate(parameters));
        Some(Holder { gpg, key })
    }

    /// The text of a message in base64.
    fn text(&self, message: &Value) -> String {
        let message = STANDARD.decode(message.as_str().unwrap()).unwrap();
        String::from_utf8(self.gpg.run(&["--decrypt"], &message)).unwrap()
    }

    /// The share in a message in base64.
    fn share(&self, message: &Value) -> SecretBytes {
        SecretBytes::new(hex::decode(self.text(message)).unwrap())
    }
}

/// A server after the creation of the keys.
fn uninitialized() -> TestServer {
    let server = TestServer::uninitialized();
    server.clock.advance(Duration::from_secs(60));
    server
}

/// A server with three shares and the threshold two, after the creation of the keys.
async fn unsealed() -> TestServer {
    let server = TestServer::sealed(SealShape { shares: 3, threshold: 2 }).await;
    server.clock.advance(Duration::from_secs(60));
    assert!(server.node.lifecycle.unseal(&server.shares[..2]).await.unwrap());
    server
}

async fn unseals(server: &TestServer, shares: &[SecretBytes]) -> bool {
    server.node.lifecycle.seal().await;
    server.node.lifecycle.unseal(shares).await.unwrap()
}

/// Sends shares to a rotation; returns the last response.
async fn rotate(server: &TestServer, path: &str, shares: &[SecretBytes], body: Value) -> TestResponse {
    let nonce = server.post(&format!("{path}/init"), ROOT, body).await.ok().data()["nonce"].clone();
    let mut last = None;
    for share in shares {
        let body = json!({ "key": hex::encode(share.expose()), "nonce": nonce });
        last = Some(server.post(&format!("{path}/update"), ROOT, body).await.ok());
    }
    last.unwrap()
}

/// The same bytes in both forms.
fn assert_same(hexed: &Value, base64: &Value) {
    assert_eq!(hex::decode(hexed.as_str().unwrap()).unwrap(), STANDARD.decode(base64.as_str().unwrap()).unwrap());
}

#[tokio::test]
async fn shares_and_root_token_of_init_are_for_the_holders_of_the_keys() {
    let (Some(rsa), Some(curve)) = (Holder::new(RSA), Holder::new(CURVE)) else { return };
    let server = uninitialized();
    let body = json!({
        "secret_shares": 3, "secret_threshold": 2,
        "pgp_keys": [rsa.key, curve.key, curve.key], "root_token_pgp_key": rsa.key,
    });
    let made = server.post("sys/init", "", body).await.ok().body;
    let messages = made["keys_base64"].as_array().unwrap();
    let shares = [&rsa, &curve, &curve].into_iter().zip(messages).map(|(holder, message)| holder.share(message));
    let shares: Vec<SecretBytes> = shares.collect();
    for at in 0..3 {
        assert_same(&made["keys"][at], &made["keys_base64"][at]);
        assert_eq!(shares[at].expose().len(), 33);
    }
    assert!(!rsa.gpg.output(&["--decrypt"], &STANDARD.decode(messages[1].as_str().unwrap()).unwrap()).status.success());
    let token = rsa.text(&made["root_token"]);
    assert!(token.starts_with("hvs."));
    for share in &shares {
        assert!(!made.to_string().contains(&hex::encode(share.expose())));
    }
    assert!(!made.to_string().contains(&token));
    assert!(server.node.lifecycle.unseal(&shares[1..]).await.unwrap());
    assert!(server.accepts(&token).await);
    assert!(unseals(&server, &shares[..2]).await);
}

#[tokio::test]
async fn a_bad_pgp_key_leaves_no_trace() {
    let (Some(good), Some(sign)) = (Holder::new(CURVE), Holder::new(SIGN_ONLY)) else { return };
    let armored = String::from_utf8(good.gpg.run(&["--armor", "--export", "a@example.com"], b"")).unwrap();
    let secret = STANDARD.encode(good.gpg.run(&["--export-secret-keys", "a@example.com"], b""));
    let server = uninitialized();
    let is_empty = async || server.backend.list(&Key::prefix("").unwrap(), &Page::all()).await.unwrap().is_empty();
    let count = "count mismatch between number of provided PGP keys and number of shares";
    let bad = [
        (sign.key.as_str(), "the public key has no valid key for encryption with RSA or Curve25519"),
        (armored.as_str(), "the public key is ASCII-armored"),
        (secret.as_str(), "the key is a private key"),
        ("keybase:someone", "keybase: names are not supported"),
        ("no base64!", "the public key is not base64"),
        ("YWJj", "the public key is not an OpenPGP certificate"),
    ];
    let init = async |keys: Value, token: &str| {
        let body = json!({ "secret_shares": 2, "secret_threshold": 2, "pgp_keys": keys, "root_token_pgp_key": token });
        server.post("sys/init", "", body).await
    };
    for (key, why) in bad {
        let refused = init(json!([good.key, key]), "").await.is(400);
        let expected = format!("invalid seal configuration: error parsing given PGP key 2: {why}");
        assert!(refused.error().starts_with(&expected), "{refused:?}");
        let refused = init(json!([good.key, good.key]), key).await.is(400);
        assert!(refused.error().starts_with(&format!("error parsing root_token_pgp_key: {why}")), "{refused:?}");
        assert!(is_empty().await, "{why}");
    }
    for keys in [json!([good.key]), json!([good.key, good.key, good.key])] {
        let refused = init(keys, "").await.is(400);
        assert_eq!(refused.error(), format!("invalid seal configuration: {count}"));
    }
    let body = json!({ "secret_shares": 1, "secret_threshold": 1, "recovery_pgp_keys": [good.key] });
    let refused = server.post("sys/init", "", body).await.is(400);
    assert_eq!(refused.error(), "parameters recovery_pgp_keys not applicable to seal type shamir");
    assert!(is_empty().await);
    let made = init(json!([good.key, good.key]), &good.key).await.ok().body;
    let shares: Vec<_> = made["keys_base64"].as_array().unwrap().iter().map(|share| good.share(share)).collect();
    assert!(server.node.lifecycle.unseal(&shares).await.unwrap());
    // No rotation and no root generation begins with such a key either.
    let root = good.text(&made["root_token"]);
    for (key, why) in bad {
        let body = json!({ "secret_shares": 1, "secret_threshold": 1, "pgp_keys": [key] });
        let refused = server.post("sys/rotate/root/init", &root, body).await.is(400);
        let expected = format!("invalid rotate seal configuration: error parsing given PGP key 1: {why}");
        assert!(refused.error().starts_with(&expected), "{refused:?}");
        let refused = server.post("sys/generate-root-token/attempt", &root, json!({ "pgp_key": key })).await.is(400);
        assert!(refused.error().starts_with(&format!("error parsing PGP key: {why}")), "{refused:?}");
    }
    for path in ["sys/rotate/root/init", "sys/generate-root-token/attempt"] {
        assert_eq!(server.get(path, &root).await.ok().data()["started"], false);
    }
}

#[tokio::test]
async fn encrypted_shares_of_a_rotation_unseal_and_are_backed_up() {
    let (Some(rsa), Some(curve)) = (Holder::new(RSA), Holder::new(CURVE)) else { return };
    let mut server = unsealed().await;
    let fingerprints = json!([curve.gpg.fingerprint(), rsa.gpg.fingerprint(), curve.gpg.fingerprint()]);
    let keys = json!([curve.key, rsa.key, curve.key]);
    let init = json!({ "secret_shares": 3, "secret_threshold": 2, "pgp_keys": keys, "backup": true });
    let started = server.post("sys/rotate/root/init", ROOT, init.clone()).await.ok();
    for status in [started, server.get("sys/rotate/root/init", ROOT).await.ok()] {
        assert_eq!((&status.data()["pgp_fingerprints"], &status.data()["backup"]), (&fingerprints, &json!(true)));
    }
    server.delete("sys/rotate/root/init", ROOT).await.is(204);
    let made = rotate(&server, "sys/rotate/root", &server.shares[..2], init).await;
    let data = made.data();
    assert_eq!((&data["pgp_fingerprints"], &data["backup"]), (&fingerprints, &json!(true)));
    let holders = [&curve, &rsa, &curve];
    let shares = holders.iter().enumerate().map(|(at, holder)| {
        assert_same(&data["keys"][at], &data["keys_base64"][at]);
        holder.share(&data["keys_base64"][at])
    });
    let shares: Vec<SecretBytes> = shares.collect();
    assert!(!unseals(&server, &server.shares[..2]).await);
    assert!(unseals(&server, &shares[1..]).await);
    server.shares = shares;
    server.restarted().await;
    for path in ["sys/rotate/root/backup", "sys/rekey/backup"] {
        let backup = server.get(path, ROOT).await.ok();
        assert_eq!(backup.data()["nonce"], data["nonce"]);
        for form in ["keys", "keys_base64"] {
            let of = |at: usize| data[form][at].clone();
            let expected = json!({ curve.gpg.fingerprint(): [of(0), of(2)], rsa.gpg.fingerprint(): [of(1)] });
            assert_eq!(backup.data()[form], expected);
            assert_eq!(backup.body[form], expected, "also at the top level");
        }
    }
    server.get("sys/rotate/recovery/backup", ROOT).await.is(400);
    server.get("sys/rotate/root/backup", "").await.is(403);
    // A rotation without a backup leaves the older one, which its nonce tells.
    let plain = json!({ "secret_shares": 1, "secret_threshold": 1, "backup": true });
    let made = rotate(&server, "sys/rotate/root", &server.shares[..2], plain).await;
    assert_eq!((&made.data()["backup"], &made.data()["pgp_fingerprints"]), (&json!(false), &Value::Null));
    assert_eq!(server.get("sys/rotate/root/backup", ROOT).await.ok().data()["nonce"], data["nonce"]);
    server.delete("sys/rekey/backup", ROOT).await.is(204);
    assert_eq!(server.get("sys/rotate/root/backup", ROOT).await.is(400).error(), "no backed-up keys found");
}

#[tokio::test]
async fn a_backup_is_of_the_shares_that_are_valid_or_await_verification() {
    let Some(holder) = Holder::new(CURVE) else { return };
    let server = unsealed().await;
    let body = |verify: bool| {
        let keys = json!([holder.key, holder.key]);
        json!({ "secret_shares": 2, "secret_threshold": 2, "pgp_keys": keys, "backup": true, "require_verification": verify })
    };
    let path = "sys/rotate/root";
    let shares = |made: &TestResponse| -> Vec<SecretBytes> {
        made.data()["keys_base64"].as_array().unwrap().iter().map(|share| holder.share(share)).collect()
    };
    let backup = async || server.get("sys/rotate/root/backup", ROOT).await.ok().data()["nonce"].clone();
    let first = rotate(&server, path, &server.shares[..2], body(false)).await;
    let old = shares(&first);
    assert_eq!(backup().await, first.data()["nonce"]);
    // New shares that are not verified leave the backup of the valid ones.
    let pending = rotate(&server, path, &old, body(true)).await;
    assert_eq!(backup().await, pending.data()["nonce"]);
    server.delete("sys/rotate/root/verify", ROOT).await.ok();
    assert_eq!(backup().await, pending.data()["nonce"]);
    server.delete("sys/rotate/root/init", ROOT).await.is(204);
    assert_eq!(backup().await, first.data()["nonce"]);
    // A commit that fails changes neither the shares nor the backup.
    server.backend.refuse(|batch| {
        let is_seal = batch.writes.iter().any(|write| write.key().as_str() == "barrier/seal");
        is_seal.then_some(StorageError::Full)
    });
    let nonce = server.post("sys/rotate/root/init", ROOT, body(false)).await.ok().data()["nonce"].clone();
    let give = async |share: &SecretBytes| {
        server.post("sys/rotate/root/update", ROOT, json!({ "key": hex::encode(share.expose()), "nonce": nonce })).await
    };
    give(&old[0]).await.ok();
    assert!(give(&old[1]).await.status >= 500);
    server.backend.refuse(|_| None);
    assert_eq!(backup().await, first.data()["nonce"]);
    assert!(unseals(&server, &old).await);
    let pending = rotate(&server, path, &old, body(true)).await;
    let new = shares(&pending);
    for share in &new {
        let proof = &pending.data()["verification_nonce"];
        let body = json!({ "key": hex::encode(share.expose()), "nonce": proof });
        server.post("sys/rotate/root/verify", ROOT, body).await.ok();
    }
    assert_eq!(backup().await, pending.data()["nonce"]);
    assert!(unseals(&server, &new).await);
    assert_eq!(backup().await, pending.data()["nonce"]);
    // A deleted backup is not stored with the shares.
    let pending = rotate(&server, path, &new, body(true)).await;
    server.delete("sys/rotate/root/backup", ROOT).await.is(204);
    for share in &shares(&pending) {
        let proof = &pending.data()["verification_nonce"];
        let body = json!({ "key": hex::encode(share.expose()), "nonce": proof });
        server.post("sys/rotate/root/verify", ROOT, body).await.ok();
    }
    server.get("sys/rotate/root/backup", ROOT).await.is(400);
}

#[tokio::test]
async fn a_generated_root_token_is_for_the_holder_of_the_key() {
    for parameters in [RSA, CURVE] {
        let Some(holder) = Holder::new(parameters) else { return };
        let server = unsealed().await;
        let path = "sys/generate-root-token";
        let started = server.post(&format!("{path}/attempt"), ROOT, json!({ "pgp_key": holder.key })).await.ok();
        let data = started.data();
        assert_eq!((&data["otp"], &data["pgp_fingerprint"]), (&json!(""), &json!(holder.gpg.fingerprint())));
        let mut last = None;
        for share in &server.shares[..2] {
            let body = json!({ "key": hex::encode(share.expose()), "nonce": data["nonce"] });
            last = Some(server.post(&format!("{path}/update"), ROOT, body).await.ok());
        }
        let last = last.unwrap();
        assert_eq!(
            (&last.data()["complete"], &last.data()["pgp_fingerprint"]),
            (&json!(true), &data["pgp_fingerprint"])
        );
        let token = holder.text(&last.data()["encoded_token"]);
        assert!(server.accepts(&token).await);
        assert!(!server.audit("audit").contains(&token));
    }
}

#[tokio::test]
async fn recovery_keys_are_encrypted_and_backed_up_apart_from_unseal_keys() {
    let Some(holder) = Holder::new(CURVE) else { return };
    let seal = TestSeal::new();
    let new = TestServer::with_seals(set(&[&seal]), |_| {});
    new.clock.advance(Duration::from_secs(60));
    let init = async |body: Value| new.post("sys/init", "", body).await;
    let refused = init(json!({ "pgp_keys": [holder.key] })).await.is(400);
    assert!(refused.error().starts_with("parameters pgp_keys not applicable to seal type "), "{refused:?}");
    let refused = init(json!({ "recovery_pgp_keys": [holder.key] })).await.is(400);
    let count = "count mismatch between number of provided PGP keys and number of shares";
    assert_eq!(refused.error(), format!("invalid recovery configuration: {count}"));
    let keys = json!([holder.key, holder.key]);
    let body = json!({ "recovery_shares": 2, "recovery_threshold": 2, "recovery_pgp_keys": keys });
    let made = init(body).await.ok().body;
    assert_eq!((&made["keys"], &made["keys_base64"]), (&json!([]), &json!([])));
    let shares = |keys: &Value| -> Vec<SecretBytes> {
        keys.as_array().unwrap().iter().map(|share| holder.share(share)).collect()
    };
    let recovery = shares(&made["recovery_keys_base64"]);
    assert_same(&made["recovery_keys"][0], &made["recovery_keys_base64"][0]);
    new.node.lifecycle.seal().await;
    assert!(new.node.lifecycle.unseal(&recovery).await.unwrap(), "by break-glass");

    let server = sealed_by(&[&TestSeal::new()]).await;
    server.clock.advance(Duration::from_secs(60));
    let body = json!({ "secret_shares": 2, "secret_threshold": 2, "pgp_keys": keys, "backup": true });
    let refused = server.post("sys/rotate/root/init", ROOT, body.clone()).await.is(400);
    assert_eq!(refused.error(), "PGP key encryption not supported when using stored keys");
    let made = rotate(&server, "sys/rotate/recovery", &server.shares[..2], body.clone()).await;
    for path in ["sys/rotate/recovery/backup", "sys/rekey/recovery-key-backup"] {
        let backup = server.get(path, ROOT).await.ok();
        assert_eq!(backup.data()["keys"][holder.gpg.fingerprint()], made.data()["keys"]);
    }
    server.get("sys/rotate/root/backup", ROOT).await.is(400);
    let recovery = shares(&made.data()["keys_base64"]);
    server.node.lifecycle.seal().await;
    assert!(server.node.lifecycle.unseal(&recovery).await.unwrap());

    // The first recovery keys need no quorum.
    let seal = TestSeal::new();
    let server = initialized(TestServer::with_seals(set(&[&seal]), |_| {}), None).await;
    server.clock.advance(Duration::from_secs(60));
    let made = server.post("sys/rotate/recovery/init", ROOT, body).await.ok();
    let recovery = shares(&made.data()["keys_base64"]);
    assert_eq!(
        server.get("sys/rotate/recovery/backup", ROOT).await.ok().data()["keys"][holder.gpg.fingerprint()],
        made.data()["keys"]
    );
    server.node.lifecycle.seal().await;
    assert!(server.node.lifecycle.unseal(&recovery).await.unwrap());
}
