//! External keys with a system in memory: configs, keys, grants, and transit keys of type `external-key`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::external_key::{
    ExternalKey, ExternalKeyConnection, ExternalKeyError, ExternalKeyPlugin, ExternalKeyPlugins, FoundPlugin,
    Parameter, Parameters, Signing,
};
use keepfast_framework::seal::{SealError, SealErrorClass};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestResponse, TestServer};

const CANARY: &str = "canary-token-of-a-config";

const CONFIG: &[Parameter] =
    &[Parameter::text("address"), Parameter::secret("token").required(), Parameter::flag("tls_skip_verify")];
const KEY: &[Parameter] = &[Parameter::text("name").required(), Parameter::number("version").required()];

/// The other system: its plugin is named `transit`.
#[derive(Default)]
struct Memory {
    /// The class with which every call fails.
    fails: Mutex<Option<SealErrorClass>>,
    calls: AtomicUsize,
    connections: AtomicUsize,
}

#[derive(Clone)]
struct MemoryPlugin(Arc<Memory>);

impl fmt::Debug for MemoryPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryPlugin")
    }
}

impl ExternalKeyPlugins for MemoryPlugin {
    fn find(&self, name: &str) -> FoundPlugin {
        match name {
            "transit" => FoundPlugin::Plugin(Arc::new(self.clone())),
            "gcpckms" => FoundPlugin::Unsupported,
            _ => FoundPlugin::Unknown,
        }
    }
}

impl ExternalKeyPlugin for MemoryPlugin {
    fn config_parameters(&self) -> &'static [Parameter] {
        CONFIG
    }

    fn key_parameters(&self) -> &'static [Parameter] {
        KEY
    }

    fn connect(&self, config: &Parameters) -> Result<Arc<dyn ExternalKeyConnection>, String> {
        if config.text("address").is_some_and(|address| address.contains(' ')) {
            return Err("address must be a URL".to_owned());
        }
        self.0.connections.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(MemoryConnection(self.0.clone())))
    }
}

struct MemoryConnection(Arc<Memory>);

impl ExternalKeyConnection for MemoryConnection {
    fn key(&self, key: &Parameters) -> Result<Arc<dyn ExternalKey>, String> {
        let name = format!("{}/{}", key.text("name").unwrap_or_default(), key.number("version"));
        Ok(Arc::new(MemoryKey { memory: self.0.clone(), name }))
    }
}

impl Drop for MemoryConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A key that is its name.
struct MemoryKey {
    memory: Arc<Memory>,
    name: String,
}

impl MemoryKey {
    fn call(&self) -> Result<(), ExternalKeyError> {
        self.memory.calls.fetch_add(1, Ordering::SeqCst);
        match *self.memory.fails.lock() {
            Some(class) => Err(SealError::new(class, "the cause").into()),
            None => Ok(()),
        }
    }

    fn tag(&self, parts: &[&[u8]]) -> Vec<u8> {
        Hash::Sha256.hmac(self.name.as_bytes(), &parts.concat())
    }
}

#[async_trait]
impl ExternalKey for MemoryKey {
    async fn public_key(&self) -> Result<Vec<u8>, ExternalKeyError> {
        Err(ExternalKeyError::refused("the external key has no public key"))
    }

    async fn sign(&self, signing: &Signing<'_>) -> Result<Vec<u8>, ExternalKeyError> {
        self.call()?;
        Ok(self.tag(&[signing.input, format!("{:?}", signing.hash).as_bytes()]))
    }

    async fn verify(&self, signing: &Signing<'_>, signature: &[u8]) -> Result<bool, ExternalKeyError> {
        Ok(self.sign(signing).await? == signature)
    }

    async fn encrypt(&self, plaintext: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, ExternalKeyError> {
        self.call()?;
        let tag = self.tag(&[plaintext, associated_data]);
        Ok([tag, plaintext.iter().map(|byte| !byte).collect()].concat())
    }

    async fn decrypt(&self, ciphertext: &[u8], associated_data: &[u8]) -> Result<SecretBytes, ExternalKeyError> {
        self.call()?;
        let refused = || ExternalKeyError::refused("the ciphertext is wrong");
        let (tag, sealed) = ciphertext.split_at_checked(32).ok_or_else(refused)?;
        let plaintext: Vec<u8> = sealed.iter().map(|byte| !byte).collect();
        if self.tag(&[&plaintext, associated_data]) != tag {
            return Err(refused());
        }
        Ok(SecretBytes::new(plaintext))
    }
}

/// A server with the system, the config `c` and its keys `a` and `b`, of which `a` is granted to the mount `t/`.
async fn server() -> (TestServer, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    let plugins = MemoryPlugin(memory.clone());
    let change = |settings: &mut crate::Settings, _: &std::path::Path| settings.external_keys = Some(Arc::new(plugins));
    let server = TestServer::with(change, keepfast_engines::all()).await;
    for mount in ["t", "other"] {
        server.post(&format!("sys/mounts/{mount}"), ROOT, json!({ "type": "transit" })).await.ok();
    }
    write(&server, "c", json!({ "plugin": "transit", "address": "http://a", "token": CANARY })).await.is(204);
    for key in ["a", "b"] {
        write(&server, &format!("c/keys/{key}"), json!({ "name": key, "version": 1 })).await.is(204);
    }
    write(&server, "c/keys/a/grants/t", json!({})).await.is(204);
    (server, memory)
}

async fn write(server: &TestServer, path: &str, body: Value) -> TestResponse {
    server.post(&format!("sys/external-keys/configs/{path}"), ROOT, body).await
}

async fn read(server: &TestServer, path: &str) -> TestResponse {
    server.get(&format!("sys/external-keys/configs/{path}"), ROOT).await
}

async fn delete(server: &TestServer, path: &str) -> TestResponse {
    server.delete(&format!("sys/external-keys/configs/{path}"), ROOT).await
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

// The statuses and texts are those of OpenBao 2.7.
#[tokio::test]
async fn configs_and_keys_are_refused_with_the_texts_of_openbao() {
    let (server, _) = server().await;
    for (path, body, text) in [
        ("n", json!({}), "missing required field \"plugin\""),
        ("n", json!({ "plugin": "nope" }), "unknown plugin: nope"),
        ("n", json!({ "plugin": "p".repeat(129), "verify": false }), "the name of the plugin is longer than 128 bytes"),
        ("n", json!({ "plugin": "gcpckms" }), "plugin \"gcpckms\" does not support external keys"),
        ("n", json!({ "plugin": "transit" }), "missing required parameter 'token'"),
        ("n", json!({ "plugin": "transit", "token": "t", "address": "a b" }), "address must be a URL"),
        (
            "n",
            json!({ "plugin": "transit", "token": "t", "foo": 1 }),
            "decoding failed due to the following error(s):\n\n'config' has invalid keys: foo",
        ),
        ("c/keys/n", json!({ "name": "a" }), "missing required parameter 'version'"),
        ("n/keys/k", json!({ "name": "a", "version": 1, "verify": false }), "config \"n\" does not exist"),
        ("c/keys/n/grants/t", json!({}), "key \"n\" not found"),
        ("n/keys/n/grants/t", json!({}), "config \"n\" does not exist"),
    ] {
        assert_eq!(write(&server, path, body).await.is(400).error(), text, "{path}");
    }
    for (path, text) in [("n", "config \"n\" not found"), ("c/keys/n", "key \"n\" not found")] {
        assert_eq!(read(&server, path).await.is(400).error(), text);
    }
    delete(&server, "n").await.is(204);
    delete(&server, "c/keys/n").await.is(204);
    // Without the check everything is stored, and not used.
    write(&server, "n", json!({ "plugin": "nope", "verify": false })).await.is(204);
    let unread = read(&server, "n").await.is(400);
    assert_eq!(unread.error(), "failed to read metadata for plugin \"nope\": unknown plugin: nope");
    for path in ["a:b", "a%20b", ".ab", "c/keys/.k", "c/keys/.k/grants/t", ".c/keys/k/grants/t"] {
        assert_eq!(write(&server, path, json!({ "plugin": "transit", "token": "t" })).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_patch_keeps_what_it_does_not_name() {
    let (server, _) = server().await;
    let patch = async |path: &str, body: Value| {
        server.call("PATCH", &format!("sys/external-keys/configs/{path}"), ROOT, body).await
    };
    let change = json!({ "address": null, "tls_skip_verify": true });
    let text = "a change of address needs token again: the stored value is not sent to another system";
    assert_eq!(patch("c", change).await.is(400).error(), text);
    let text = "a change of plugin needs token again: the stored value is not sent to another system";
    assert_eq!(patch("c", json!({ "plugin": "awskms", "verify": false })).await.is(400).error(), text);
    patch("c", json!({ "address": null, "tls_skip_verify": true, "token": CANARY })).await.is(204);
    let config = read(&server, "c").await.ok();
    assert_eq!(*config.data(), json!({ "plugin": "transit", "token": "(redacted)", "tls_skip_verify": true }));
    assert_eq!(patch("c", json!({ "token": null })).await.is(400).error(), "missing required parameter 'token'");
    patch("c/keys/a", json!({ "version": 2 })).await.is(204);
    assert_eq!(*read(&server, "c/keys/a").await.ok().data(), json!({ "name": "a", "version": 2 }));
    let grants = server.list("sys/external-keys/configs/c/keys/a/grants", ROOT).await.ok();
    assert_eq!(grants.data()["keys"], json!(["t/"]), "a patch and a write keep the grants");
    assert_eq!(patch("n", json!({})).await.is(400).error(), "config \"n\" not found");
}

#[tokio::test]
async fn sec_a_mount_without_a_grant_cannot_use_a_key() {
    let (server, memory) = server().await;
    let create = async |path: &str, reference: &str| {
        server.post(path, ROOT, json!({ "type": "external-key", "external_key_ref": reference })).await
    };
    for (path, reference, why) in [
        ("other/keys/k", "c:a", "mount \"other/\" is missing grant for key \"c:a\""),
        ("t/keys/k", "c:b", "mount \"t/\" is missing grant for key \"c:b\""),
        ("t/keys/k", "c:n", "key \"c:n\" does not exist"),
        ("t/keys/k", "n:a", "key \"n:a\" does not exist"),
        ("t/keys/k", "c", "invalid key reference: must be \"<config name>:<key name>\""),
        ("t/keys/k", "c:a:b", "invalid key reference: must be \"<config name>:<key name>\""),
    ] {
        let text = format!("failed to fetch external key: {why}");
        assert_eq!(create(path, reference).await.is(400).error(), text);
    }
    create("t/keys/k", "c:a").await.ok();
    let rotate = json!({ "external_key_ref": "c:b" });
    server.post("t/keys/k/rotate", ROOT, rotate).await.is(400);
    server.post("t/sign/k", ROOT, json!({ "input": base64("x") })).await.ok();
    // The grant of a mount that moves stays behind, and one that is removed ends at once.
    server.post("sys/remount", ROOT, json!({ "from": "t", "to": "moved" })).await.ok();
    let calls = memory.calls.load(Ordering::SeqCst);
    let refused = server.post("moved/sign/k", ROOT, json!({ "input": base64("x") })).await.is(400);
    assert!(refused.error().contains("mount \"moved/\" is missing grant"), "{refused:?}");
    write(&server, "c/keys/a/grants/moved", json!({})).await.is(204);
    server.post("moved/sign/k", ROOT, json!({ "input": base64("x") })).await.ok();
    delete(&server, "c/keys/a/grants/moved").await.is(204);
    for (path, body) in [
        ("sign", json!({ "input": base64("x") })),
        ("verify", json!({ "input": base64("x"), "signature": "vault:v1:AAAA" })),
        ("encrypt", json!({ "plaintext": base64("x") })),
        ("decrypt", json!({ "ciphertext": "vault:v1:AAAA" })),
        ("rewrap", json!({ "ciphertext": "vault:v1:AAAA" })),
        ("datakey/plaintext", json!({})),
        ("encrypt", json!({ "batch_input": [{ "plaintext": base64("x") }] })),
    ] {
        let refused = server.post(&format!("moved/{path}/k"), ROOT, body).await.is(400);
        assert!(refused.error().contains("is missing grant"), "{path}: {refused:?}");
    }
    assert_eq!(memory.calls.load(Ordering::SeqCst), calls + 1, "only the call with a grant reached the system");
}

#[tokio::test]
async fn sec_a_grant_does_not_pass_to_the_next_mount_of_its_path() {
    let (server, _) = server().await;
    let create = async |mount: &str| {
        let body = json!({ "type": "external-key", "external_key_ref": "c:a" });
        server.post(&format!("{mount}/keys/k"), ROOT, body).await
    };
    let mount = async |mount: &str| {
        server.post(&format!("sys/mounts/{mount}"), ROOT, json!({ "type": "transit" })).await.ok();
    };
    create("t").await.ok();
    server.delete("sys/mounts/t", ROOT).await.is(204);
    mount("t").await;
    assert!(create("t").await.is(400).error().contains("is missing grant"));
    // Nor does one for a path without a mount.
    write(&server, "c/keys/a/grants/later", json!({})).await.is(204);
    mount("later").await;
    assert!(create("later").await.is(400).error().contains("is missing grant"));
    for path in ["t", "later"] {
        write(&server, &format!("c/keys/a/grants/{path}"), json!({})).await.is(204);
        create(path).await.ok();
    }
}

#[tokio::test]
async fn a_key_that_is_granted_to_a_mount_cannot_be_deleted() {
    let (server, _) = server().await;
    for (path, text) in [
        ("c/keys/a", "key \"c:a\" is granted to t/: remove the grants first"),
        ("c", "key \"c:a\" is granted to t/: remove the grants first"),
    ] {
        assert_eq!(delete(&server, path).await.is(400).error(), text);
    }
    read(&server, "c/keys/b").await.ok();
    // A grant to a mount that does not exist is not in use.
    write(&server, "c/keys/b/grants/none", json!({})).await.is(204);
    delete(&server, "c/keys/b").await.is(204);
    server.delete("sys/mounts/t", ROOT).await.is(204);
    delete(&server, "c").await.is(204);
    read(&server, "c/keys/a").await.is(400);
    server.list("sys/external-keys/configs/c/keys", ROOT).await.is(404);
}

#[tokio::test]
async fn sec_the_token_of_a_config_is_in_no_response_and_no_audit_entry() {
    let (server, _) = server().await;
    server.post("t/keys/k", ROOT, json!({ "type": "external-key", "external_key_ref": "c:a" })).await.ok();
    let misspelt = json!({ "plugin": "transit", "tokn": CANARY, "verify": false });
    let mut responses = vec![
        read(&server, "c").await,
        write(&server, "d", json!({ "plugin": "transit", "token": [CANARY] })).await,
        write(&server, "d", json!({ "plugin": "transit", "token": CANARY, "tokn": CANARY })).await,
        write(&server, "d", json!({ "plugin": "transit", "token": CANARY, "tls_skip_verify": CANARY })).await,
        write(&server, "d", misspelt).await,
        read(&server, "d").await,
        server.call("PATCH", "sys/external-keys/configs/c", ROOT, json!({ "token": CANARY, "x": 1 })).await,
        server.list("sys/external-keys/configs", ROOT).await,
        server.post("t/sign/k", ROOT, json!({ "input": base64("x") })).await,
        server.get("t/keys/k", ROOT).await,
    ];
    responses.push(delete(&server, "c").await);
    for response in responses {
        assert!(!response.body.to_string().contains(CANARY), "{response:?}");
    }
    assert_eq!(read(&server, "d").await.ok().data()["tokn"], "(redacted)");
    let log = server.audit("audit");
    assert!(log.contains("external-keys") && !log.contains(CANARY));
}

#[tokio::test]
async fn transit_encrypts_signs_and_rotates_with_external_keys() {
    let (server, _) = server().await;
    write(&server, "c/keys/b/grants/t", json!({})).await.is(204);
    let created =
        server.post("t/keys/k", ROOT, json!({ "type": "external-key", "external_key_ref": "c:a" })).await.ok();
    assert_eq!((&created.data()["type"], &created.data()["keys"]), (&json!("external-key"), &json!({ "1": "c:a" })));
    let encrypt = json!({ "plaintext": base64("hello"), "associated_data": base64("aad") });
    let sealed = server.post("t/encrypt/k", ROOT, encrypt).await.ok();
    let ciphertext = sealed.data()["ciphertext"].clone();
    let rotated = server.post("t/keys/k/rotate", ROOT, json!({ "external_key_ref": "c:b" })).await.ok();
    assert_eq!(rotated.data()["keys"], json!({ "1": "c:a", "2": "c:b" }));
    let with_aad = json!({ "ciphertext": ciphertext, "associated_data": base64("aad") });
    let opened = server.post("t/decrypt/k", ROOT, with_aad).await.ok();
    assert_eq!(opened.data()["plaintext"], base64("hello"));
    let refused = server.post("t/decrypt/k", ROOT, json!({ "ciphertext": ciphertext })).await.is(400);
    assert_eq!(refused.error(), "failed to decrypt with external key: the ciphertext is wrong");
    // A batch has an error per item, rewrap the version of the second key, a data key both forms.
    let batch = json!({ "batch_input": [{ "plaintext": base64("a") }, { "plaintext": "!" }] });
    let batch = server.post("t/encrypt/k", ROOT, batch).await.is(400);
    let results = &batch.body["data"]["batch_results"];
    assert!(results[0]["ciphertext"].as_str().unwrap().starts_with("vault:v2:") && results[1]["error"].is_string());
    let first = server.post("t/encrypt/k", ROOT, json!({ "plaintext": base64("a"), "key_version": 1 })).await.ok();
    let rewrap = json!({ "ciphertext": first.data()["ciphertext"] });
    let rewrapped = server.post("t/rewrap/k", ROOT, rewrap).await.ok();
    assert!(rewrapped.data()["ciphertext"].as_str().unwrap().starts_with("vault:v2:"));
    let data_key = server.post("t/datakey/plaintext/k", ROOT, json!({})).await.ok();
    let opened = server.post("t/decrypt/k", ROOT, json!({ "ciphertext": data_key.data()["ciphertext"] })).await.ok();
    assert_eq!(opened.data()["plaintext"], data_key.data()["plaintext"]);
    let signed =
        server.post("t/sign/k", ROOT, json!({ "input": base64("x"), "hash_algorithm": "sha2-512" })).await.ok();
    let signature = &signed.data()["signature"];
    for (input, hash, valid) in [("x", "sha2-512", true), ("y", "sha2-512", false), ("x", "sha2-256", false)] {
        let verify = json!({ "input": base64(input), "signature": signature, "hash_algorithm": hash });
        assert_eq!(server.post("t/verify/k", ROOT, verify).await.ok().data()["valid"], valid, "{input} {hash}");
    }
    let mac = server.post("t/hmac/k", ROOT, json!({ "input": base64("x") })).await.ok();
    let verify = json!({ "input": base64("x"), "hmac": mac.data()["hmac"] });
    assert_eq!(server.post("t/verify/k", ROOT, verify).await.ok().data()["valid"], true);
}

// The texts are those of OpenBao 2.7, some with another status.
#[tokio::test]
async fn what_an_external_key_of_transit_cannot_do_is_refused() {
    let (server, _) = server().await;
    let reference = json!({ "type": "external-key", "external_key_ref": "c:a" });
    for (change, text) in [
        (json!({ "external_key_ref": "" }), "must provide external_key_ref to create policy of type external-key"),
        (json!({ "type": "aes256-gcm96" }), "must provide type=external-key to use external_key_ref"),
        (json!({ "auto_rotate_period": "24h" }), "cannot enable auto-rotation with external keys"),
        (
            json!({ "derived": true }),
            "key derivation and convergent encryption not supported for keys of type external-key",
        ),
    ] {
        let mut body = reference.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(server.post("t/keys/k", ROOT, body).await.is(400).error(), text);
    }
    server.post("t/keys/k", ROOT, reference).await.ok();
    server.post("t/keys/aes", ROOT, json!({})).await.ok();
    server.post("t/keys/k/config", ROOT, json!({ "exportable": true, "allow_plaintext_backup": true })).await.ok();
    let too_many = vec![json!({ "plaintext": "" }); 257];
    for (method, path, body, text) in [
        ("POST", "keys/k/rotate", json!({}), "must provide external_key_ref to rotate policy of type external-key"),
        (
            "POST",
            "keys/aes/rotate",
            json!({ "external_key_ref": "c:a" }),
            "cannot use external_key_ref on key of type aes256-gcm96",
        ),
        (
            "POST",
            "keys/k/config",
            json!({ "auto_rotate_period": "24h" }),
            "auto rotate period must be disabled on external keys",
        ),
        ("POST", "keys/i/import", json!({ "type": "external-key" }), "unknown key type: external-key"),
        ("POST", "encrypt/new", json!({ "type": "external-key", "plaintext": "" }), "unknown key type external-key"),
        ("POST", "keys/k/csr", json!({}), "key type 'external-key' does not support signing"),
        ("GET", "export/public-key/k", json!({}), "unknown key type external-key for export type public-key"),
        ("GET", "export/signing-key/k", json!({}), "the key version does not have a private part"),
        ("GET", "backup/k", json!({}), "a key of type external-key has no backup: its material is in another system"),
        (
            "POST",
            "encrypt/k",
            json!({ "batch_input": too_many }),
            "batch_input of an external key has at most 256 items",
        ),
        (
            "POST",
            "sign/k",
            json!({ "input": "", "signature_algorithm": "bad" }),
            "unsupported rsa signature algorithm bad",
        ),
    ] {
        let refused = server.call(method, &format!("t/{path}"), ROOT, body).await.is(400);
        assert_eq!(refused.error(), text, "{path}");
    }
}

#[tokio::test]
async fn a_system_that_is_not_available_is_503_with_its_class() {
    let (server, memory) = server().await;
    server.post("t/keys/k", ROOT, json!({ "type": "external-key", "external_key_ref": "c:a" })).await.ok();
    for class in [SealErrorClass::Unreachable, SealErrorClass::Denied, SealErrorClass::Throttled(None)] {
        *memory.fails.lock() = Some(class);
        let calls = memory.calls.load(Ordering::SeqCst);
        let items: Vec<Value> = (0..5).map(|_| json!({ "plaintext": "" })).collect();
        let failed = server.post("t/encrypt/k", ROOT, json!({ "batch_input": items })).await.is(503);
        assert_eq!(failed.error(), format!("external key \"c:a\" is not available: {}", class.name()));
        assert_eq!(memory.calls.load(Ordering::SeqCst), calls + 1, "the first failure ends the batch");
    }
    // Creation calls nothing, and other keys work.
    let calls = memory.calls.load(Ordering::SeqCst);
    server.post("t/keys/k2", ROOT, json!({ "type": "external-key", "external_key_ref": "c:a" })).await.ok();
    server.post("t/encrypt/aes", ROOT, json!({ "plaintext": "" })).await.ok();
    assert_eq!(memory.calls.load(Ordering::SeqCst), calls);
    *memory.fails.lock() = None;
    server.post("t/encrypt/k", ROOT, json!({ "plaintext": "" })).await.ok();
}

#[tokio::test]
async fn a_config_that_changes_or_goes_closes_its_connection() {
    let (server, memory) = server().await;
    let open = || memory.connections.load(Ordering::SeqCst);
    assert_eq!(open(), 0, "a check keeps no connection");
    server.post("t/keys/k", ROOT, json!({ "type": "external-key", "external_key_ref": "c:a" })).await.ok();
    let sign = async || server.post("t/sign/k", ROOT, json!({ "input": "" })).await.ok();
    sign().await;
    sign().await;
    assert_eq!(open(), 1);
    write(&server, "c", json!({ "plugin": "transit", "token": "another" })).await.is(204);
    assert_eq!(open(), 0);
    sign().await;
    assert_eq!(open(), 1);
    // A key with other parameters is another key.
    let before = sign().await;
    write(&server, "c/keys/a", json!({ "name": "a", "version": 9 })).await.is(204);
    assert_ne!(sign().await.data()["signature"], before.data()["signature"]);
    delete(&server, "c/keys/a/grants/t").await.is(204);
    delete(&server, "c").await.is(204);
    assert_eq!(open(), 0);
}

#[tokio::test]
async fn sec_the_numbers_of_configs_keys_and_grants_are_bound() {
    let (server, _) = server().await;
    let config = || json!({ "plugin": "transit", "token": "t", "verify": false });
    let key = || json!({ "name": "k", "version": 1, "verify": false });
    // With the config `c`.
    for number in 0..255 {
        write(&server, &format!("c{number}"), config()).await.is(204);
    }
    let refused = write(&server, "more", config()).await.is(400);
    assert_eq!(refused.error(), "there are 256 configs of external keys, the most; delete one");
    write(&server, "c0", config()).await.is(204);
    for number in 0..1024 {
        write(&server, &format!("c0/keys/k{number}"), key()).await.is(204);
    }
    let refused = write(&server, "c0/keys/more", key()).await.is(400);
    assert_eq!(refused.error(), "the config has 1024 keys, the most; delete one");
    write(&server, "c0/keys/k0", key()).await.is(204);
    write(&server, "c1/keys/k0", key()).await.is(204);
    for number in 0..1024 {
        write(&server, &format!("c0/keys/k0/grants/m{number}"), Value::Null).await.is(204);
    }
    let refused = write(&server, "c0/keys/k0/grants/more", Value::Null).await.is(400);
    assert_eq!(refused.error(), "a key is granted to at most 1024 mounts");
    delete(&server, "c5").await.is(204);
    write(&server, "more", config()).await.is(204);
}
