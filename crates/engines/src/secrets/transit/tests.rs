//! The transit engine on the bench. Conformance scenarios cover what must equal OpenBao exactly.

use std::collections::HashSet;
use std::time::Duration;

use keepfast_crypto::keys::KeyKind;
use keepfast_framework::testing::Bench;
use serde_json::{Value, json};

use super::{Transit, codec, usage};

async fn bench() -> Bench {
    Bench::new::<Transit>().await.unwrap()
}

async fn write(bench: &Bench, path: &str, body: Value) -> Value {
    bench.write(path, body).await.unwrap_or_else(|error| panic!("{path}: {error}")).data()
}

async fn refused(bench: &Bench, path: &str, body: Value) -> String {
    let error = bench.write(path, body).await.err().unwrap_or_else(|| panic!("{path} succeeds"));
    assert_eq!(error.status().0, 400, "{path}: {error}");
    error.public().to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn encrypt(bench: &Bench, key: &str, plaintext: &str) -> String {
    text(
        &write(bench, &format!("encrypt/{key}"), json!({ "plaintext": codec::encode(plaintext.as_bytes()) })).await["ciphertext"],
    )
}

async fn decrypt(bench: &Bench, key: &str, ciphertext: &str) -> String {
    let plaintext =
        text(&write(bench, &format!("decrypt/{key}"), json!({ "ciphertext": ciphertext })).await["plaintext"]);
    String::from_utf8(codec::decode(&plaintext).unwrap()).unwrap()
}

#[test]
fn the_table_has_no_ambiguous_rows() {
    let registered = keepfast_framework::engine::Registered::of::<Transit>();
    assert_eq!(registered.table().ambiguities(), []);
}

#[tokio::test]
async fn every_key_kind_supports_the_operations_of_its_row() {
    let bench = bench().await;
    for (kind, name) in KeyKind::ALL {
        let created = write(&bench, &format!("keys/{name}"), json!({ "type": name })).await;
        assert_eq!(created["supports_encryption"], kind.encrypts(), "{name}");
        assert_eq!(created["supports_signing"], kind.signs(), "{name}");
        let input = codec::encode(b"message");
        let encrypted = bench.write(&format!("encrypt/{name}"), json!({ "plaintext": input })).await;
        assert_eq!(encrypted.is_ok(), kind.encrypts(), "{name}");
        if let Ok(answer) = encrypted {
            assert_eq!(decrypt(&bench, name, answer.data()["ciphertext"].as_str().unwrap()).await, "message");
        }
        let signed = bench.write(&format!("sign/{name}"), json!({ "input": input })).await;
        assert_eq!(signed.is_ok(), kind.signs(), "{name}");
        if let Ok(answer) = signed {
            let signature = answer.data()["signature"].clone();
            let verify = |input: String| json!({ "input": input, "signature": signature });
            assert_eq!(write(&bench, &format!("verify/{name}"), verify(input.clone())).await["valid"], true, "{name}");
            assert_eq!(
                write(&bench, &format!("verify/{name}"), verify(codec::encode(b"x"))).await["valid"],
                false,
                "{name}"
            );
        }
        let mac = write(&bench, &format!("hmac/{name}"), json!({ "input": input })).await["hmac"].clone();
        assert_eq!(
            write(&bench, &format!("verify/{name}"), json!({ "input": input, "hmac": mac })).await["valid"],
            true
        );
    }
}

#[tokio::test]
async fn old_ciphertexts_decrypt_until_the_minimum_exceeds_their_version() {
    let bench = bench().await;
    let first = encrypt(&bench, "k", "hello").await;
    assert!(first.starts_with("vault:v1:"));
    write(&bench, "keys/k/rotate", json!({})).await;
    assert!(encrypt(&bench, "k", "x").await.starts_with("vault:v2:"));
    assert_eq!(decrypt(&bench, "k", &first).await, "hello");
    let renewed = text(&write(&bench, "rewrap/k", json!({ "ciphertext": first })).await["ciphertext"]);
    assert!(renewed.starts_with("vault:v2:"));
    write(&bench, "keys/k/config", json!({ "min_decryption_version": 2 })).await;
    assert!(refused(&bench, "decrypt/k", json!({ "ciphertext": first })).await.contains("too old"));
    assert_eq!(decrypt(&bench, "k", &renewed).await, "hello");
    // Lowering the minimum restores access to a version that was not trimmed.
    write(&bench, "keys/k/config", json!({ "min_decryption_version": 1 })).await;
    assert_eq!(decrypt(&bench, "k", &first).await, "hello");
    write(&bench, "keys/k/config", json!({ "min_decryption_version": 2, "min_encryption_version": 2 })).await;
    write(&bench, "keys/k/trim", json!({ "min_available_version": 2 })).await;
    assert!(refused(&bench, "keys/k/config", json!({ "min_decryption_version": 1 })).await.contains("min available"));
}

#[tokio::test]
async fn convergent_ciphertexts_are_equal_only_within_a_context() {
    let bench = bench().await;
    write(&bench, "keys/c", json!({ "derived": true, "convergent_encryption": true })).await;
    let body =
        |context: &str| json!({ "plaintext": codec::encode(b"same"), "context": codec::encode(context.as_bytes()) });
    let one = write(&bench, "encrypt/c", body("a")).await;
    assert_eq!(one, write(&bench, "encrypt/c", body("a")).await);
    assert_ne!(one, write(&bench, "encrypt/c", body("b")).await);
}

// SE-01: a nonce in the request is never used, and generated nonces do not repeat.
#[tokio::test]
async fn sec_se01_nonces_are_generated_and_never_repeat() {
    let bench = bench().await;
    let mut nonces = HashSet::new();
    let item = json!({ "plaintext": "", "nonce": "AAAAAAAAAAAAAAAA" });
    let batch = json!({ "batch_input": vec![item; 2_000], "nonce": "AAAAAAAAAAAAAAAA" });
    for _ in 0..50 {
        let results = write(&bench, "encrypt/k", batch.clone()).await;
        for result in results["batch_results"].as_array().unwrap() {
            let sealed = result["ciphertext"].as_str().unwrap().strip_prefix("vault:v1:").unwrap();
            nonces.insert(codec::decode(sealed).unwrap()[..12].to_vec());
        }
    }
    assert_eq!(nonces.len(), 100_000);
}

// SE-02: no read, list or configuration returns key material, even of exportable keys.
#[tokio::test]
async fn sec_se02_reads_never_return_key_material() {
    let bench = bench().await;
    for (kind, name) in KeyKind::ALL {
        let new = json!({ "type": name, "exportable": true, "allow_plaintext_backup": true });
        let mut shown = vec![write(&bench, &format!("keys/{name}"), new).await];
        shown.push(write(&bench, &format!("keys/{name}/rotate"), json!({})).await);
        shown.push(write(&bench, &format!("keys/{name}/config"), json!({ "deletion_allowed": true })).await);
        shown.push(bench.read(&format!("keys/{name}")).await.unwrap().data());
        shown.push(bench.list("keys/").await.unwrap().data());
        let mut parts = vec!["hmac-key"];
        parts.extend(kind.encrypts().then_some("encryption-key"));
        parts.extend(kind.signs().then_some("signing-key"));
        for part in parts {
            let exported = bench.read(&format!("export/{part}/{name}")).await.unwrap().data();
            for secret in exported["keys"].as_object().unwrap().values() {
                // All PEM texts begin alike, and every format ends with the public key.
                let secret = secret.as_str().unwrap();
                let from = if secret.starts_with('-') { secret.len() / 3 } else { secret.len() / 8 };
                let canary = &secret[from..from + 12];
                assert!(shown.iter().all(|view| !view.to_string().contains(canary)), "{name} {part}");
            }
        }
    }
}

#[tokio::test]
async fn a_key_that_is_not_exportable_cannot_leave_the_mount() {
    let bench = bench().await;
    write(&bench, "keys/k", json!({})).await;
    for path in ["export/encryption-key/k", "export/hmac-key/k", "backup/k", "byok-export/k/k"] {
        assert!(bench.read(path).await.is_err(), "{path}");
    }
    assert!(refused(&bench, "keys/k/import_version", json!({ "ciphertext": "AAAA" })).await.contains("imported key"));
    assert_eq!(bench.delete("keys/k").await.err().unwrap().status().0, 400);
}

#[tokio::test]
async fn a_wrapped_key_moves_to_another_mount() {
    let (from, to) = (bench().await, bench().await);
    let wrapping = to.read("wrapping_key").await.unwrap().data()["public_key"].clone();
    assert_eq!(wrapping, to.read("wrapping_key").await.unwrap().data()["public_key"], "it is created once");
    write(&from, "keys/door/import", json!({ "type": "rsa-4096", "public_key": wrapping })).await;
    for kind in ["aes256-gcm96", "xchacha20-poly1305", "ml-kem-768"] {
        write(&from, &format!("keys/{kind}"), json!({ "type": kind, "exportable": true })).await;
        let ciphertext = encrypt(&from, kind, "hello").await;
        let wrapped = from.read(&format!("byok-export/door/{kind}")).await.unwrap().data()["keys"]["1"].clone();
        write(&to, &format!("keys/{kind}/import"), json!({ "type": kind, "ciphertext": wrapped })).await;
        assert_eq!(decrypt(&to, kind, &ciphertext).await, "hello");
        // The same bytes are refused as another kind of key and with another hash function.
        refused(&to, "keys/other/import", json!({ "type": "ecdsa-p256", "ciphertext": wrapped })).await;
        refused(&to, "keys/other/import", json!({ "type": kind, "ciphertext": wrapped, "hash_function": "SHA512" }))
            .await;
    }
    for kind in ["ed25519", "ecdsa-p256", "rsa-2048", "ml-dsa-65"] {
        write(&from, &format!("keys/{kind}"), json!({ "type": kind, "exportable": true })).await;
        let input = codec::encode(b"hello");
        let signature = write(&from, &format!("sign/{kind}"), json!({ "input": input })).await["signature"].clone();
        let wrapped = from.read(&format!("byok-export/door/{kind}")).await.unwrap().data()["keys"]["1"].clone();
        write(&to, &format!("keys/{kind}/import"), json!({ "type": kind, "ciphertext": wrapped })).await;
        let verified = write(&to, &format!("verify/{kind}"), json!({ "input": input, "signature": signature })).await;
        assert_eq!(verified["valid"], true, "{kind}");
    }
}

#[tokio::test]
async fn a_valid_backup_restores_and_a_forged_one_does_not() {
    let bench = bench().await;
    write(&bench, "keys/k", json!({ "exportable": true, "allow_plaintext_backup": true })).await;
    write(&bench, "keys/pq", json!({ "type": "ml-dsa-44", "exportable": true, "allow_plaintext_backup": true })).await;
    let ciphertext = encrypt(&bench, "k", "hello").await;
    let backup = bench.read("backup/k").await.unwrap().data()["backup"].clone();
    let again = bench.write("restore", json!({ "backup": backup })).await.err().unwrap();
    assert!(again.public().contains("already exists"), "{again}");
    write(&bench, "restore/copy", json!({ "backup": backup })).await;
    assert_eq!(decrypt(&bench, "copy", &ciphertext).await, "hello");
    write(&bench, "keys/k/rotate", json!({})).await;
    write(&bench, "restore", json!({ "backup": backup, "force": true })).await;
    assert!(encrypt(&bench, "k", "x").await.starts_with("vault:v1:"), "the prepared key was invalidated");

    // OpenBao's format, and that of Keepfast for a key that OpenBao lacks.
    let sound = |backup: &Value| -> Value {
        serde_json::from_slice(&codec::decode(backup.as_str().unwrap()).unwrap()).unwrap()
    };
    let (theirs, ours) = (sound(&backup), sound(&bench.read("backup/pq").await.unwrap().data()["backup"]));
    for (form, part, field, value) in [
        (&theirs, "policy", "type", json!(3)),
        (&theirs, "policy", "type", json!(99)),
        (&theirs, "policy", "latest_version", json!(2)),
        (&theirs, "policy", "latest_version", json!(0)),
        (&theirs, "policy", "min_decryption_version", json!(9)),
        (&theirs, "policy", "min_encryption_version", json!(9)),
        (&theirs, "policy", "convergent_encryption", json!(true)),
        (&ours, "key", "kind", json!("rsa-2048")),
        (&ours, "key", "kind", json!("nope")),
        (&ours, "key", "latest", json!(2)),
        (&ours, "key", "latest", json!(0)),
        (&ours, "key", "min_decryption", json!(0)),
        (&ours, "key", "min_decryption", json!(9)),
        (&ours, "key", "min_encryption", json!(9)),
        (&ours, "key", "convergent", json!(true)),
        (&ours, "key", "versions", json!({})),
    ] {
        let mut forged = form.clone();
        forged[part][field] = value.clone();
        let body = json!({ "backup": codec::encode(forged.to_string().as_bytes()) });
        refused(&bench, "restore/forged", body).await;
    }
    for name in ["../k", "a/b", "-", "k "] {
        let mut forged = ours.clone();
        forged["name"] = json!(name);
        let body = json!({ "backup": codec::encode(forged.to_string().as_bytes()) });
        assert!(bench.write("restore", body).await.is_err(), "{name}");
    }
    assert!(bench.read("keys/forged").await.is_err());
}

// A backup by OpenBao 2.7.2, with ciphertexts, signatures and HMACs from before the rotation of its keys.
#[tokio::test]
async fn openbao_backups_restore() {
    let golden: Value = serde_json::from_str(include_str!("testdata/openbao-2.7.2-backups.json")).unwrap();
    let bench = bench().await;
    for entry in golden.as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        write(&bench, "restore", json!({ "backup": entry["backup"] })).await;
        let view = write(&bench, &format!("keys/{name}/config"), json!({ "min_decryption_version": 1 })).await;
        assert_eq!((&view["type"], &view["latest_version"]), (&json!(name), &json!(2)));
        for check in entry["checks"].as_array().unwrap() {
            let answer = write(&bench, check["path"].as_str().unwrap(), check["body"].clone()).await;
            assert_eq!(answer, check["answer"], "{}", check["path"]);
        }
    }
}

#[tokio::test]
async fn a_failed_upsert_leaves_no_key() {
    let bench = bench().await;
    assert!(refused(&bench, "encrypt/k", json!({ "plaintext": "#" })).await.contains("base64"));
    assert!(bench.read("keys/k").await.is_err());
    assert_eq!(bench.exists("encrypt/k").await.unwrap(), Some(false));
    encrypt(&bench, "k", "x").await;
    assert_eq!(bench.exists("encrypt/k").await.unwrap(), Some(true));
}

#[tokio::test]
async fn keys_rotate_after_their_period() {
    let bench = bench().await;
    write(&bench, "keys/k", json!({ "auto_rotate_period": "2h" })).await;
    write(&bench, "keys/still", json!({})).await;
    let latest = async |name: &str| bench.read(&format!("keys/{name}")).await.unwrap().data()["latest_version"].clone();
    bench.tick_after(Duration::from_secs(7_000)).await.unwrap();
    assert_eq!(latest("k").await, 1);
    bench.tick_after(Duration::from_secs(700)).await.unwrap();
    assert_eq!((latest("k").await, latest("still").await), (json!(2), json!(1)));
    assert!(encrypt(&bench, "k", "x").await.starts_with("vault:v2:"), "the prepared key was invalidated");
}

#[tokio::test]
async fn a_key_version_rotates_before_its_nonces_can_repeat() {
    let bench = bench().await;
    for key in ["worn", "spent"] {
        write(&bench, &format!("keys/{key}"), json!({})).await;
    }
    let (_, mut cx) = bench.engine_and_cx();
    usage::set_reserved(&mut cx, "worn", 1, (1 << 32) / 10 * 9).unwrap();
    usage::set_reserved(&mut cx, "spent", 1, 1 << 32).unwrap();
    cx.commit().await.unwrap();
    let answer = bench.write("encrypt/worn", json!({ "plaintext": "" })).await.unwrap();
    assert!(answer.warnings[0].contains("rotated soon"), "{:?}", answer.warnings);
    assert!(refused(&bench, "encrypt/spent", json!({ "plaintext": "" })).await.contains("rotate the key"));
    bench.tick_after(Duration::from_secs(700)).await.unwrap();
    for key in ["worn", "spent"] {
        assert!(encrypt(&bench, key, "x").await.starts_with("vault:v2:"), "{key}");
        // The limit of the old version is reached as before.
        let body = json!({ "plaintext": "", "key_version": 1 });
        assert_eq!(bench.write(&format!("encrypt/{key}"), body).await.is_ok(), key == "worn");
    }
}

// RSA keys are slow to generate; on this one thread another request runs only if that happens elsewhere.
#[tokio::test]
async fn requests_are_served_while_an_rsa_key_is_generated() {
    let bench = bench().await;
    write(&bench, "keys/k", json!({})).await;
    let making = write(&bench, "keys/large", json!({ "type": "rsa-4096" }));
    tokio::pin!(making);
    let mut served = 0;
    loop {
        tokio::select! {
            biased;
            _ = &mut making => break,
            _ = encrypt(&bench, "k", "x") => served += 1,
        }
    }
    assert!(served > 0);
}

#[tokio::test]
async fn key_agreement_gives_both_sides_the_same_key() {
    let (one, two) = (bench().await, bench().await);
    for bench in [&one, &two] {
        write(bench, "keys/own", json!({ "type": "ecdsa-p384" })).await;
    }
    let public = async |bench: &Bench| bench.read("export/public-key/own").await.unwrap().data()["keys"]["1"].clone();
    for (bench, peer) in [(&one, public(&two).await), (&two, public(&one).await)] {
        write(bench, "derive-key/shared", json!({ "base_key_name": "own", "peer_public_key": peer })).await;
    }
    assert_eq!(decrypt(&two, "shared", &encrypt(&one, "shared", "hello").await).await, "hello");
}

#[tokio::test]
async fn concurrent_upserts_create_one_key() {
    let bench = std::sync::Arc::new(bench().await);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let bench = bench.clone();
            tokio::spawn(async move { encrypt(&bench, "k", "hello").await })
        })
        .collect();
    for task in tasks {
        assert_eq!(decrypt(&bench, "k", &task.await.unwrap()).await, "hello");
    }
}

proptest::proptest! {
    // Untrusted input may be refused and must not panic.
    #[test]
    fn parsers_do_not_panic_on_arbitrary_bytes(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        use keepfast_crypto::keys::{Key, der, pem};
        let text = String::from_utf8_lossy(&bytes);
        let _ = (codec::decode(&text), codec::parse_tagged(&text), codec::decode_url(&text), pem::decode(&text));
        let _ = der::children(&bytes);
        let _ = super::certificate::parses(&bytes);
        for (kind, _) in KeyKind::ALL {
            let _ = (Key::load(kind, &bytes), Key::import(kind, &bytes), Key::load_public(kind, &bytes));
        }
    }

    // An OpenBao backup with any byte changed is refused or gives a valid key.
    #[test]
    fn changed_backups_do_not_panic(which in 0_usize..7, at in proptest::prelude::any::<proptest::sample::Index>(), byte in 0x20_u8..0x7f) {
        let golden: Value = serde_json::from_str(include_str!("testdata/openbao-2.7.2-backups.json")).unwrap();
        let mut json = codec::decode(golden[which]["backup"].as_str().unwrap()).unwrap();
        let at = at.index(json.len());
        json[at] = byte;
        super::export::parses(&json);
    }

    #[test]
    fn decoding_inverts_encoding(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
        proptest::prop_assert!(codec::decode(&codec::encode(&bytes)).is_ok_and(|decoded| decoded == bytes));
        let tagged = codec::tagged(7, &bytes);
        let (version, body) = codec::parse_tagged(&tagged).unwrap();
        proptest::prop_assert_eq!((version, codec::decode(body).ok()), (7, Some(bytes)));
    }
}

#[tokio::test]
async fn sec_kf18_a_generated_key_accepts_no_derived_version() {
    let bench = bench().await;
    write(&bench, "keys/own", json!({ "type": "ecdsa-p256" })).await;
    write(&bench, "keys/generated", json!({})).await;
    let peer = bench.read("export/public-key/own").await.unwrap().data()["keys"]["1"].clone();
    let derive = json!({ "base_key_name": "own", "peer_public_key": peer });
    assert!(refused(&bench, "derive-key/generated", derive.clone()).await.contains("generated"));
    let shown = bench.read("keys/generated").await.unwrap().data();
    assert_eq!(shown["latest_version"], 1);
    // A derived key accepts more versions.
    for latest in [1, 2] {
        write(&bench, "derive-key/derived", derive.clone()).await;
        assert_eq!(bench.read("keys/derived").await.unwrap().data()["latest_version"], latest);
    }
}

#[tokio::test]
async fn an_external_key_is_not_used_in_a_transaction_with_writes() {
    let bench = Bench::new::<Transit>().await.unwrap();
    let (_, mut cx) = bench.engine_and_cx();
    assert_eq!(cx.external_key("c:k").await.err().unwrap().status().0, 400, "the bench has no external keys");
    super::config::SETTINGS.put(&mut cx, "", &super::config::Settings::default()).unwrap();
    assert_eq!(cx.external_key("c:k").await.err().unwrap().status().0, 500);
}
