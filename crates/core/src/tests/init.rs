//! Init and unseal under failures: nothing is written before every fallible step has succeeded.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::seal::SealShape;
use crate::settings::AuditSettings;
use crate::{Node, Settings};
use async_trait::async_trait;
use bytes::Bytes;
use keepfast_framework::clock::TestClock;
use keepfast_storage::{Backend, Batch, Index, Key, MemoryBackend, Page, StorageError, Watch};
use serde_json::{Value, json};

use crate::tests::fixture::{RequestOptions, TestServer, device, incoming};

/// A backend whose operation number `at` fails without any effect; the others succeed.
#[derive(Default)]
struct Failing {
    memory: MemoryBackend,
    done: AtomicUsize,
    at: AtomicUsize,
    commits: AtomicUsize,
}

impl Failing {
    fn fail_at(&self, at: usize) {
        self.done.store(0, Ordering::SeqCst);
        self.at.store(at, Ordering::SeqCst);
    }

    fn step(&self) -> Result<(), StorageError> {
        if self.done.fetch_add(1, Ordering::SeqCst) + 1 == self.at.load(Ordering::SeqCst) {
            return Err(StorageError::Full);
        }
        Ok(())
    }

    async fn is_empty(&self) -> bool {
        self.memory.list(&Key::prefix("").unwrap(), &Page::all()).await.unwrap().is_empty()
    }
}

#[async_trait]
impl Backend for Failing {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        self.step()?;
        self.memory.get(key).await
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.step()?;
        self.memory.list(prefix, page).await
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        self.step()?;
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.memory.commit(batch).await
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.memory.watch(watcher);
    }
}

fn node(backend: Arc<dyn Backend>, audit: Vec<AuditSettings>) -> Arc<Node> {
    let settings = Settings { audit, ..Settings::default() };
    Node::new(backend, keepfast_engines::all(), Arc::new(TestClock::default()), settings)
}

async fn send(node: &Node, path: &str, body: Value) -> (u16, Value) {
    let response = node
        .handle(incoming("POST", path, RequestOptions { body: Some(body.to_string()), ..RequestOptions::default() }))
        .await;
    (response.status().0, serde_json::from_slice(&response.into_body()).unwrap_or_default())
}

async fn init(node: &Node) -> (u16, Value) {
    send(node, "sys/init", json!({ "secret_shares": 3, "secret_threshold": 2 })).await
}

/// Unseals with the first two shares of an init response; returns the last response.
async fn unseal(node: &Node, made: &Value) -> (u16, Value) {
    send(node, "sys/unseal", json!({ "key": made["keys"][0] })).await;
    send(node, "sys/unseal", json!({ "key": made["keys"][1] })).await
}

#[tokio::test]
async fn sec_kf40_init_writes_one_commit_or_nothing_whatever_fails() {
    let dir = tempfile::tempdir().unwrap();
    for at in 1.. {
        let backend = Arc::<Failing>::default();
        let node = node(backend.clone(), vec![device(dir.path(), "audit", &[])]);
        backend.fail_at(at);
        let (status, made) = init(&node).await;
        if status == 200 {
            assert_eq!(backend.commits.load(Ordering::SeqCst), 1, "init is one commit");
            assert!(at > 2, "operation {at} did not fail");
            break;
        }
        assert_eq!((status, backend.is_empty().await), (500, true), "operation {at}");
        assert!(made["errors"][0].as_str().unwrap().contains("no space left"), "{made}");
        let (status, made) = init(&node).await;
        assert_eq!(status, 200, "init again after operation {at} failed");
        assert_eq!(unseal(&node, &made).await.1["sealed"], false);
    }
}

/// A reason, a device that is refused for it, and its repair.
type Broken = (&'static str, AuditSettings, Box<dyn FnOnce()>);

/// The declared devices that cannot be opened, each with its repair.
fn broken(dir: &Path) -> Vec<Broken> {
    let at = |name: &str| dir.join(name);
    let (taken, folder, hard, soft) = (at("taken"), at("folder"), at("hard"), at("soft"));
    std::fs::write(&taken, "").unwrap();
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(at("first"), "").unwrap();
    std::fs::hard_link(at("first"), &hard).unwrap();
    std::os::unix::fs::symlink(at("first"), &soft).unwrap();
    let full = AuditSettings {
        options: [("file_path".to_owned(), "/dev/full".to_owned())].into(),
        ..device(dir, "full", &[])
    };
    vec![
        ("cannot be created", device(dir, "taken/log", &[]), Box::new(move || std::fs::remove_file(taken).unwrap())),
        ("Is a directory", device(dir, "folder", &[]), Box::new(move || std::fs::remove_dir(folder).unwrap())),
        ("hard link", device(dir, "hard", &[]), Box::new(move || std::fs::remove_file(hard).unwrap())),
        ("symbolic link", device(dir, "soft", &[]), Box::new(move || std::fs::remove_file(soft).unwrap())),
        ("No space left", full, Box::new(|| {})),
    ]
}

#[tokio::test]
async fn sec_kf40_init_with_a_broken_audit_device_names_it_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (reason, settings, mend) in broken(dir.path()) {
        let (name, path) = (settings.name.clone(), settings.file_path().unwrap());
        let backend = Arc::<Failing>::default();
        let broken = node(backend.clone(), vec![settings]);
        let (status, refused) = init(&broken).await;
        let text = refused["errors"][0].as_str().unwrap();
        assert_eq!(status, 500, "{reason}");
        assert!(text.contains(&name) && text.contains(&path.display().to_string()) && text.contains(reason), "{text}");
        assert!(backend.is_empty().await, "{reason}");
        mend();
        if reason == "No space left" {
            continue;
        }
        let (status, made) = init(&broken).await;
        assert_eq!((status, made["keys"].as_array().map(Vec::len)), (200, Some(3)), "{reason}: {made}");
        assert_eq!(unseal(&broken, &made).await.1["sealed"], false, "{reason}");
    }
}

#[tokio::test]
async fn sec_kf40_a_failed_unseal_keeps_the_shares_and_names_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("logs");
    let backend = Arc::<Failing>::default();
    let node = node(backend.clone(), vec![device(dir.path(), "logs/audit", &[])]);
    let made = init(&node).await.1;
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "").unwrap();
    let (status, refused) = unseal(&node, &made).await;
    let text = refused["errors"][0].as_str().unwrap();
    assert_eq!(status, 500);
    assert!(text.contains("logs/audit") && text.contains("cannot be created"), "{text}");
    let progress = async || {
        let response = node.handle(incoming("GET", "sys/seal-status", RequestOptions::default())).await;
        serde_json::from_slice::<Value>(&response.into_body()).unwrap()["progress"].clone()
    };
    assert_eq!(progress().await, 1, "the shares before the last one are kept");
    std::fs::remove_file(&folder).unwrap();
    for at in 1.. {
        backend.fail_at(at);
        let (status, answer) = send(&node, "sys/unseal", json!({ "key": made["keys"][1] })).await;
        backend.fail_at(0);
        if status == 200 {
            assert_eq!(answer["sealed"], false);
            assert!(at > 2, "operation {at} did not fail");
            break;
        }
        assert_eq!((status, progress().await), (500, json!(1)), "operation {at}: {answer}");
    }
    assert_eq!(progress().await, 0);
    // Shares from before a reset are not put back, and wrong shares are not kept.
    node.lifecycle.seal().await;
    send(&node, "sys/unseal", json!({ "key": made["keys"][0] })).await;
    send(&node, "sys/unseal", json!({ "key": format!("{}07", "ab".repeat(32)) })).await;
    assert_eq!(progress().await, 0);
}

/// The keys of all records.
async fn keys(backend: &dyn Backend) -> Vec<String> {
    let (mut folders, mut out) = (vec![String::new()], Vec::new());
    while let Some(folder) = folders.pop() {
        for name in backend.list(&Key::prefix(folder.clone()).unwrap(), &Page::all()).await.unwrap() {
            let path = format!("{folder}{name}");
            if name.ends_with('/') { folders.push(path) } else { out.push(path) }
        }
    }
    out.sort();
    out
}

#[tokio::test]
async fn sec_kf40_a_storage_that_init_left_alone_starts_like_a_new_one() {
    // One mount table, one default policy, one salt and one root token, as after init.
    let server = TestServer::sealed(SealShape { shares: 1, threshold: 1 }).await;
    let before = keys(&*server.backend).await;
    assert!(
        ["barrier/keyring", "barrier/seal", "audit/salt/audit", "sys/policy/default", "token/secrets"]
            .iter()
            .all(|key| before.iter().any(|found| found == key)),
        "{before:?}"
    );
    server.node.lifecycle.unseal(&server.shares).await.unwrap();
    assert_eq!(keys(&*server.backend).await, before, "unseal creates nothing that init has not written");
    assert!(server.accepts(crate::tests::fixture::ROOT).await);
}

/// A backend that closes the read end of the audit pipe when the seal configuration is read: the request is audited by
/// then, its response is not.
#[derive(Default)]
struct LosesAuditPipe {
    memory: MemoryBackend,
    reader: parking_lot::Mutex<Option<std::fs::File>>,
    armed: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl Backend for LosesAuditPipe {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        if key.as_str() == "barrier/seal" && self.armed.load(Ordering::SeqCst) {
            self.reader.lock().take();
        }
        self.memory.get(key).await
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.memory.list(prefix, page).await
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        self.memory.commit(batch).await
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.memory.watch(watcher);
    }
}

#[tokio::test]
async fn sec_kf40_new_shares_are_valid_only_after_their_response_is_audited() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let listen = || std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let backend = Arc::<LosesAuditPipe>::default();
    let node = node(backend.clone(), vec![device(dir.path(), "pipe", &[])]);
    *backend.reader.lock() = Some(listen());
    let made = init(&node).await.1;
    assert_eq!(unseal(&node, &made).await.1["sealed"], false);
    let token = made["root_token"].as_str().unwrap().to_owned();
    let call = async |path: &str, body: Value| {
        let send =
            RequestOptions { token: Some(token.clone()), body: Some(body.to_string()), ..RequestOptions::default() };
        let response = node.handle(incoming("POST", path, send)).await;
        (response.status().0, serde_json::from_slice::<Value>(&response.into_body()).unwrap_or_default())
    };
    let give =
        async |path: &str, n: usize, nonce: &Value| call(path, json!({ "key": made["keys"][n], "nonce": nonce })).await;
    let begin = json!({ "secret_shares": 1, "secret_threshold": 1 });
    let mut rotation = call("sys/rotate/root/init", begin.clone()).await.1["data"]["nonce"].clone();
    let root = call("sys/generate-root-token/attempt", json!({})).await.1["data"]["nonce"].clone();
    for path in ["sys/generate-root-token/update", "sys/rotate/root/update"] {
        let nonce = if path.contains("rotate") { rotation.clone() } else { root.clone() };
        let nonce = &nonce;
        let before = backend.memory.list(&Key::prefix("token/id/").unwrap(), &Page::all()).await.unwrap();
        assert_eq!(give(path, 0, nonce).await.0, 200);
        backend.armed.store(true, Ordering::SeqCst);
        assert_eq!(give(path, 1, nonce).await.0, 500, "{path}");
        backend.armed.store(false, Ordering::SeqCst);
        *backend.reader.lock() = Some(listen());
        let after = backend.memory.list(&Key::prefix("token/id/").unwrap(), &Page::all()).await.unwrap();
        assert_eq!(before, after, "{path}: no token that nobody has");
        node.lifecycle.seal().await;
        assert_eq!(unseal(&node, &made).await.1["sealed"], false, "{path}: the old shares hold");
        // The seal cancelled the operation.
        rotation = call("sys/rotate/root/init", begin.clone()).await.1["data"]["nonce"].clone();
        if path.contains("rotate") {
            let nonce = rotation.clone();
            give(path, 0, &nonce).await;
            backend.armed.store(true, Ordering::SeqCst);
            assert_eq!(give(path, 1, &nonce).await.0, 500);
            backend.armed.store(false, Ordering::SeqCst);
            *backend.reader.lock() = Some(listen());
            // Without a seal the shares are sent again.
            give(path, 0, &nonce).await;
            let (status, new) = give(path, 1, &nonce).await;
            assert_eq!((status, new["data"]["complete"].clone()), (200, json!(true)));
            node.lifecycle.seal().await;
            let (_, refused) = unseal(&node, &made).await;
            assert!(!refused["sealed"].is_boolean() || refused["sealed"] == true, "{refused}");
            let (_, opened) = send(&node, "sys/unseal", json!({ "key": new["data"]["keys"][0] })).await;
            assert_eq!(opened["sealed"], false);
        }
    }
}
