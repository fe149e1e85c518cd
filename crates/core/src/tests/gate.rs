//! A backend that holds one commit until the test releases it, so that races run in a chosen order.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_storage::{Backend, Batch, Consensus, Index, Key, MemoryBackend, Page, Role, StorageError, Watch};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::tests::fixture::{ROOT, TestResponse, TestServer};
use crate::tests::tokens::stored;

/// Storage in memory with a gate.
#[derive(Default)]
pub(crate) struct Gated {
    memory: MemoryBackend,
    armed: Mutex<Option<Arc<Gate>>>,
    /// Sends the role of the node; `None` without a cluster.
    roles: Option<watch::Sender<Role>>,
    /// Whether the role of a cluster of one node is in `roles`, which does not change.
    is_alone: bool,
    /// The members, in a cluster that has them.
    consensus: Option<Arc<dyn Consensus>>,
    /// Refuses commits.
    refuses: Mutex<Option<Refuses>>,
    /// The prefix of the key whose read panics.
    panics_at: Mutex<Option<&'static str>>,
    /// The keys and folders that were read, while a test watches.
    reads: Mutex<Option<Vec<String>>>,
    /// The records after each commit, while a test keeps them.
    images: Mutex<Option<Vec<MemoryBackend>>>,
}

/// Returns why a commit is refused.
type Refuses = fn(&Batch) -> Option<StorageError>;

/// One commit's gate.
#[derive(Default)]
pub(crate) struct Gate {
    pub(crate) reached: Notify,
    pub(crate) open: Notify,
}

impl Gated {
    /// The storage of the node that leads a cluster.
    pub(crate) fn leading() -> Self {
        Gated { roles: Some(watch::channel(Role::Leading).0), ..Gated::default() }
    }

    /// The storage of the only node of a cluster.
    pub(crate) fn leading_alone() -> Self {
        Gated { is_alone: true, ..Gated::leading() }
    }

    /// The storage of the node that leads this cluster.
    pub(crate) fn in_cluster(consensus: Arc<dyn Consensus>) -> Self {
        Gated { consensus: Some(consensus), ..Gated::leading() }
    }

    /// The records.
    pub(crate) fn memory(&self) -> &MemoryBackend {
        &self.memory
    }

    /// Refuses from now on the commits for which `refuses` returns an error.
    pub(crate) fn refuse(&self, refuses: Refuses) {
        *self.refuses.lock() = Some(refuses);
    }

    /// The next read of a key that begins with `prefix` panics.
    pub(crate) fn panic_at(&self, prefix: &'static str) {
        *self.panics_at.lock() = Some(prefix);
    }

    /// Storage with a copy of these records.
    pub(crate) fn with_records_of(memory: &MemoryBackend) -> Self {
        let gated = Gated::default();
        gated.memory.replace_with(memory);
        gated
    }

    /// Accepts all commits again.
    pub(crate) fn accept(&self) {
        *self.refuses.lock() = None;
    }

    /// Notes the keys and folders that are read from now on.
    pub(crate) fn watch_reads(&self) {
        *self.reads.lock() = Some(Vec::new());
    }

    /// The keys and folders that were read since [`Gated::watch_reads`].
    pub(crate) fn take_reads(&self) -> Vec<String> {
        self.reads.lock().take().unwrap_or_default()
    }

    /// Keeps a copy of the records now and after each commit from now on.
    pub(crate) fn keep_images(&self) {
        *self.images.lock() = Some(vec![self.copy()]);
    }

    /// The copies since [`Gated::keep_images`].
    pub(crate) fn take_images(&self) -> Vec<MemoryBackend> {
        self.images.lock().take().unwrap_or_default()
    }

    fn copy(&self) -> MemoryBackend {
        let copy = MemoryBackend::new();
        copy.replace_with(&self.memory);
        copy
    }

    fn note_read(&self, key: &Key) {
        if let Some(reads) = self.reads.lock().as_mut() {
            reads.push(key.as_str().to_owned());
        }
    }

    /// The next commit waits at this gate.
    pub(crate) fn arm(&self) -> Arc<Gate> {
        let gate = Arc::<Gate>::default();
        *self.armed.lock() = Some(gate.clone());
        gate
    }
}

#[async_trait]
impl Backend for Gated {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        let panics = self.panics_at.lock().take_if(|prefix| key.as_str().starts_with(*prefix)).is_some();
        assert!(!panics, "as the test wants it");
        self.note_read(key);
        self.memory.get(key).await
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.note_read(prefix);
        self.memory.list(prefix, page).await
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        let gate = self.armed.lock().take();
        if let Some(gate) = gate {
            gate.reached.notify_one();
            gate.open.notified().await;
        }
        let refuses = *self.refuses.lock();
        if let Some(error) = refuses.and_then(|refuses| refuses(&batch)) {
            return Err(error);
        }
        let committed = self.memory.commit(batch).await?;
        if let Some(images) = self.images.lock().as_mut() {
            images.push(self.copy());
        }
        Ok(committed)
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.memory.watch(watcher);
    }

    fn roles(&self) -> Option<watch::Receiver<Role>> {
        let roles = self.roles.as_ref()?;
        Some(if self.is_alone { watch::channel(Role::Leading).1 } else { roles.subscribe() })
    }

    fn consensus(&self) -> Option<Arc<dyn Consensus>> {
        self.consensus.clone()
    }
}

/// Runs `first` up to its commit, then `second` to its end, then resumes `first`.
async fn overtaken(
    server: &Arc<TestServer>,
    first: (&'static str, String, Value),
    second: (&'static str, String, Value),
) -> (TestResponse, TestResponse) {
    let gate = server.backend.arm();
    let held = {
        let server = server.clone();
        tokio::spawn(async move { server.post(first.0, &first.1, first.2).await })
    };
    gate.reached.notified().await;
    let second = server.post(second.0, &second.1, second.2).await;
    gate.open.notify_one();
    (held.await.unwrap(), second)
}

async fn family() -> (Arc<TestServer>, String) {
    let server = Arc::new(TestServer::new().await);
    server.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] } path "cubbyhole/*" { capabilities = ["update"] }"#).await;
    let parent = server.token(json!({ "policies": ["maker"] })).await;
    (server, parent)
}

/// The stored token records except that of the root token.
async fn left(server: &TestServer) -> Vec<String> {
    let mut all = stored(server, "token/").await;
    all.retain(|k| !k.starts_with("token/secrets"));
    all.extend(stored(server, "logical/").await.into_iter().filter(|k| k.ends_with("/canary")));
    assert!(all.iter().any(|k| k.starts_with("token/id/")), "the root token");
    all
}

#[tokio::test]
async fn a_child_whose_parent_is_revoked_before_its_commit_is_not_created() {
    let (server, parent) = family().await;
    let (made, revoked) = overtaken(
        &server,
        ("auth/token/create", parent.clone(), json!({})),
        ("auth/token/revoke", ROOT.to_owned(), json!({ "token": parent })),
    )
    .await;
    revoked.is(204);
    made.is(403);
    assert_eq!(left(&server).await.len(), 1);
}

#[tokio::test]
async fn a_child_created_before_its_parent_is_revoked_is_revoked_with_it() {
    let (server, parent) = family().await;
    let (revoked, made) = overtaken(
        &server,
        ("auth/token/revoke", ROOT.to_owned(), json!({ "token": parent })),
        ("auth/token/create", parent.clone(), json!({})),
    )
    .await;
    revoked.is(204);
    assert!(!server.accepts(&made.ok().token()).await);
    assert_eq!(left(&server).await.len(), 1);
}

#[tokio::test]
async fn a_child_created_during_revoke_orphan_becomes_an_orphan() {
    let (server, parent) = family().await;
    let (revoked, made) = overtaken(
        &server,
        ("auth/token/revoke-orphan", ROOT.to_owned(), json!({ "token": parent })),
        ("auth/token/create", parent.clone(), json!({})),
    )
    .await;
    revoked.is(204);
    let child = made.ok().token();
    assert_eq!(server.post("auth/token/lookup", ROOT, json!({ "token": child })).await.ok().data()["orphan"], true);
}

#[tokio::test]
async fn sec_tl07_records_of_a_token_written_during_revocation_are_deleted() {
    let (server, parent) = family().await;
    let (stored, revoked) = overtaken(
        &server,
        ("cubbyhole/canary", parent.clone(), json!({ "k": 1 })),
        ("auth/token/revoke", ROOT.to_owned(), json!({ "token": parent })),
    )
    .await;
    revoked.is(204);
    stored.is(403);
    assert_eq!(left(&server).await.len(), 1);
    // The reverse order.
    let (server, parent) = family().await;
    let (revoked, stored) = overtaken(
        &server,
        ("auth/token/revoke", ROOT.to_owned(), json!({ "token": parent })),
        ("cubbyhole/canary", parent.clone(), json!({ "k": 1 })),
    )
    .await;
    revoked.is(204);
    stored.is(204);
    assert_eq!(left(&server).await.len(), 1, "{:?}", left(&server).await);
}

#[tokio::test]
async fn a_renewal_that_is_overtaken_by_a_revoke_renews_nothing() {
    let server = Arc::new(TestServer::new().await);
    let token = server.token(json!({ "policies": ["default"], "ttl": "1h" })).await;
    let (renewed, revoked) = overtaken(
        &server,
        ("auth/token/renew-self", token.clone(), json!({})),
        ("auth/token/revoke", ROOT.to_owned(), json!({ "token": token })),
    )
    .await;
    revoked.is(204);
    assert!(renewed.status >= 400, "{renewed:?}");
    assert_eq!(left(&server).await.len(), 1);
}

#[tokio::test]
async fn an_unwrap_that_is_overtaken_by_another_gets_nothing() {
    let server = Arc::new(TestServer::new().await);
    for path in ["sys/wrapping/unwrap", "sys/wrapping/rewrap"] {
        let token = server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": 1 }), 60).await.ok().wrapping();
        let (late, first) = overtaken(
            &server,
            (path, ROOT.to_owned(), json!({ "token": token })),
            ("sys/wrapping/unwrap", ROOT.to_owned(), json!({ "token": token })),
        )
        .await;
        assert_eq!(first.ok().data()["k"], 1);
        late.is(400);
    }
    assert_eq!(left(&server).await.len(), 1);
}

#[tokio::test]
async fn a_request_whose_caller_is_revoked_meanwhile_is_the_last_one() {
    let (server, parent) = family().await;
    let gate = server.backend.arm();
    let held = {
        let (server, parent) = (server.clone(), parent.clone());
        tokio::spawn(async move { server.post("auth/token/revoke", ROOT, json!({ "token": parent })).await })
    };
    gate.reached.notified().await;
    // Before the acknowledgement both responses are valid; after it only the denial.
    let _ = server.accepts(&parent).await;
    gate.open.notify_one();
    held.await.unwrap().is(204);
    for _ in 0..100 {
        assert!(!server.accepts(&parent).await);
    }
}

#[tokio::test]
async fn records_written_during_unmount_are_deleted() {
    let server = Arc::new(TestServer::new().await);
    server.post("sys/mounts/one", ROOT, json!({ "type": "kv", "options": { "version": "1" } })).await.ok();
    server.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await.ok();
    server.post("auth/approle/role/r", ROOT, json!({ "token_policies": ["default"] })).await.ok();
    let secret_id = server.post("auth/approle/role/r/secret-id", ROOT, json!({})).await.ok();
    let role_id = server.get("auth/approle/role/r/role-id", ROOT).await.ok();
    let login = json!({ "role_id": role_id.data()["role_id"], "secret_id": secret_id.data()["secret_id"] });
    for (path, by, body, mount) in [
        ("one/canary", ROOT, json!({ "k": 1 }), "sys/mounts/one"),
        ("auth/approle/login", "", login, "sys/auth/approle"),
    ] {
        let gate = server.backend.arm();
        let held = {
            let server = server.clone();
            tokio::spawn(async move { server.post(path, by, body).await })
        };
        gate.reached.notified().await;
        server.delete(mount, ROOT).await.is(204);
        gate.open.notify_one();
        // A login runs again after the conflict and does not find the role.
        assert!(matches!(held.await.unwrap().status, 400 | 404), "{path}");
    }
    let left = stored(&server, "").await;
    assert!(!left.iter().any(|k| k.ends_with("/canary") || k.starts_with("auth/")), "{left:?}");
    assert_eq!(left.iter().filter(|k| k.starts_with("token/id/")).count(), 1, "{left:?}");
}

#[tokio::test]
async fn sec_kf57_a_write_that_a_change_of_engine_overtakes_is_refused() {
    let server = Arc::new(TestServer::new().await);
    server.post("sys/mounts/kv", ROOT, json!({ "type": "kv", "options": { "version": "1" } })).await.ok();
    let tuned_by = |body: Value| ("sys/mounts/kv/tune", ROOT.to_owned(), body);
    let write = || ("kv/canary", ROOT.to_owned(), json!({ "k": 1 }));
    let (written, tuned) = overtaken(&server, write(), tuned_by(json!({ "description": "the engine stays" }))).await;
    tuned.ok();
    written.is(204);
    server.delete("kv/canary", ROOT).await.ok();
    let (written, tuned) = overtaken(&server, write(), tuned_by(json!({ "options": { "version": "2" } }))).await;
    tuned.ok();
    assert_eq!(written.is(503).error(), "the mount has changed, try again");
    assert!(!stored(&server, "logical/").await.iter().any(|key| key.ends_with("/canary")));
}
