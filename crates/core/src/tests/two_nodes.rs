//! Two nodes on one storage. One leads; the other never writes, and returns the commits of the first at the next
//! request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_framework::{Clock as _, Operation};
use keepfast_storage::{Backend, Batch, Index, Key, Leader, Page, Role, StorageError, Watch};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::tests::derived::{Route, mount_all_engines, routes};
use crate::tests::fixture::{ROOT, TestResponse, TestServer, device};
use crate::tests::gate::Gated;
use crate::{Node, metrics};

/// The storage of the leader for a node that must not write.
struct ReadOnly {
    storage: Arc<Gated>,
    /// The number of refused commits.
    refused: AtomicUsize,
    /// The role of the standby; that of the leader in tests that compare the responses of both.
    role: Option<Role>,
}

#[async_trait]
impl Backend for ReadOnly {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        self.storage.get(key).await
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.storage.list(prefix, page).await
    }

    async fn commit(&self, _: Batch) -> Result<Index, StorageError> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(StorageError::NotLeader)
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.storage.watch(watcher);
    }

    fn roles(&self) -> Option<watch::Receiver<Role>> {
        self.role.clone().map(|role| watch::channel(role).1)
    }
}

/// A leader and a standby.
pub(crate) struct Pair {
    pub(crate) leader: TestServer,
    pub(crate) standby: TestServer,
    storage: Arc<ReadOnly>,
}

impl Pair {
    pub(crate) async fn new() -> Self {
        Self::beside(TestServer::new().await).await
    }

    /// A standby beside this node, which responds as the leader does.
    async fn beside(leader: TestServer) -> Self {
        let role = leader.node.lifecycle.parts.role();
        Self::as_node(leader, role).await
    }

    /// A second node with this role.
    async fn as_node(leader: TestServer, role: Option<Role>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = leader.settings.clone();
        settings.audit = vec![device(dir.path(), "audit", &[])];
        let storage = Arc::new(ReadOnly { storage: leader.backend.clone(), refused: AtomicUsize::new(0), role });
        let clock = leader.clock.clone();
        let node = Node::new(storage.clone(), keepfast_engines::all(), Arc::new(clock.clone()), settings.clone());
        node.lifecycle.unseal_as_standby(&leader.shares).await.unwrap();
        let standby = TestServer { node, clock, backend: leader.backend.clone(), dir, shares: Vec::new(), settings };
        Pair { leader, standby, storage }
    }

    pub(crate) async fn write(&self, path: &str, body: Value) {
        self.leader.post(path, ROOT, body).await.ok();
    }

    pub(crate) async fn delete(&self, path: &str) {
        self.leader.delete(path, ROOT).await.ok();
    }

    /// The response of the standby, which must equal that of the leader.
    pub(crate) async fn read(&self, path: &str) -> TestResponse {
        self.call("GET", path).await
    }

    async fn call(&self, method: &str, path: &str) -> TestResponse {
        let there = self.leader.call(method, path, ROOT, Value::Null).await;
        let here = self.standby.call(method, path, ROOT, Value::Null).await;
        assert_eq!(plain(&here), plain(&there), "{method} {path}");
        here
    }

    pub(crate) fn check(&self) {
        assert_eq!(self.storage.refused.load(Ordering::Relaxed), 0, "the standby has tried to write");
    }
}

/// The response without the fields that differ between any two responses.
fn plain(answer: &TestResponse) -> (u16, Value) {
    let mut body = answer.body.clone();
    if let Some(body) = body.as_object_mut() {
        body.remove("request_id");
    }
    (answer.status, body)
}

#[tokio::test]
async fn mounts_follow_the_node_that_changes_them() {
    let pair = Pair::new().await;
    pair.write("sys/mounts/a", json!({ "type": "kv" })).await;
    pair.write("a/x", json!({ "k": "v" })).await;
    assert_eq!(pair.read("a/x").await.ok().data()["k"], "v");
    pair.write("sys/mounts/a/tune", json!({ "default_lease_ttl": "77s", "description": "tuned" })).await;
    assert_eq!(pair.read("sys/mounts/a/tune").await.ok().data()["default_lease_ttl"], 77);
    assert_eq!(pair.read("a/x").await.ok().body["lease_duration"], 77);
    pair.write("sys/remount", json!({ "from": "a", "to": "b/c" })).await;
    pair.read("a/x").await.is(404);
    pair.read("b/c/x").await.ok();
    pair.read("sys/mounts").await.ok();
    pair.delete("sys/mounts/b/c").await;
    pair.read("b/c/x").await.is(404);
    assert!(pair.standby.unsealed().engines.mounts.leaving().is_empty());
    pair.write("sys/auth/up", json!({ "type": "userpass" })).await;
    pair.write("auth/up/users/anna", json!({ "password": "right" })).await;
    pair.read("auth/up/users/anna").await.ok();
    pair.delete("sys/auth/up").await;
    pair.read("auth/up/users/anna").await.is(404);
    pair.check();
}

#[tokio::test]
async fn policies_tokens_and_entities_follow() {
    let pair = Pair::new().await;
    let (leader, standby) = (&pair.leader, &pair.standby);
    for name in ["a", "b"] {
        pair.write(&format!("secret/data/{name}"), json!({ "data": {} })).await;
    }
    let grant = |path: &str| format!("path \"{path}\" {{ capabilities = [\"read\"] }}");
    leader.policy("own", &grant("secret/data/a")).await;
    leader.policy("parent", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
    let token = leader.token(json!({ "policies": ["own", "parent"], "ttl": "1h" })).await;
    standby.get("secret/data/a", &token).await.ok();
    standby.get("secret/data/b", &token).await.is(403);
    leader.policy("own", &grant("secret/data/b")).await;
    standby.get("secret/data/a", &token).await.is(403);
    standby.get("secret/data/b", &token).await.ok();
    pair.read("sys/policies/acl/own").await.ok();
    pair.delete("sys/policies/acl/own").await;
    standby.get("secret/data/b", &token).await.is(403);

    let ttl = async || standby.get("auth/token/lookup-self", &token).await.ok().data()["ttl"].as_u64().unwrap();
    assert_eq!(ttl().await, 3600);
    leader.clock.advance(std::time::Duration::from_secs(1800));
    assert_eq!(ttl().await, 1800);
    leader.post("auth/token/renew", ROOT, json!({ "token": token, "increment": "1h" })).await.ok();
    assert_eq!(ttl().await, 3600);
    let child = leader.post("auth/token/create", &token, json!({})).await.ok().token();
    assert!(standby.accepts(&child).await);
    leader.post("auth/token/revoke", ROOT, json!({ "token": token })).await.ok();
    assert!(!standby.accepts(&token).await && !standby.accepts(&child).await);

    pair.write("sys/auth/approle", json!({ "type": "approle" })).await;
    let accessor = pair.read("sys/auth/approle").await.ok().data()["accessor"].as_str().unwrap().to_owned();
    leader
        .policy("own", &grant(&format!("secret/data/{{{{identity.entity.aliases.{accessor}.metadata.scope}}}}")))
        .await;
    let token = login(leader, "a").await;
    standby.get("secret/data/a", &token).await.ok();
    login(leader, "b").await;
    standby.get("secret/data/a", &token).await.is(403);
    standby.get("secret/data/b", &token).await.ok();
    pair.check();
}

/// Logs in by the role `one`, whose alias gets `scope` as metadata.
async fn login(server: &TestServer, scope: &str) -> String {
    server.post("auth/approle/role/one", ROOT, json!({ "token_policies": "own" })).await.ok();
    let role_id = server.get("auth/approle/role/one/role-id", ROOT).await.ok().data()["role_id"].clone();
    let metadata = json!({ "metadata": json!({ "scope": scope }).to_string() });
    let secret = server.post("auth/approle/role/one/secret-id", ROOT, metadata).await.ok();
    let body = json!({ "role_id": role_id, "secret_id": secret.data()["secret_id"] });
    server.post("auth/approle/login", "", body).await.ok().token()
}

#[tokio::test]
async fn admission_rules_follow_the_commits() {
    let pair = Pair::new().await;
    let rules = || pair.standby.node.admission().rules();
    let limit = || {
        let remote = Some("192.0.2.1".parse().unwrap());
        pair.standby
            .node
            .admission()
            .check_quota_of_root("secret/data/a", remote)
            .map(|result| (result.limit, result.with_headers))
    };
    assert_eq!(limit(), None);
    pair.write("sys/quotas/rate-limit/all", json!({ "rate": 5 })).await;
    assert_eq!(limit(), Some((5, false)));
    pair.write("sys/quotas/config", json!({ "enable_rate_limit_response_headers": true })).await;
    pair.write("sys/quotas/rate-limit/all", json!({ "rate": 7 })).await;
    assert_eq!(limit(), Some((7, true)));
    pair.delete("sys/quotas/rate-limit/all").await;
    assert_eq!(limit(), None);
    pair.write("sys/config/cors", json!({ "allowed_origins": "http://a" })).await;
    assert!(rules().cors.as_ref().unwrap().allows("http://a"));
    pair.delete("sys/config/cors").await;
    assert!(rules().cors.is_none());
    pair.write("sys/config/auditing/request-headers/X-Own", json!({})).await;
    assert!(rules().audited_headers.contains_key("x-own"));
    pair.delete("sys/config/auditing/request-headers/x-own").await;
    assert!(rules().audited_headers.is_empty());
    // A sealed server puts no rule into force.
    pair.standby.node.lifecycle.seal().await;
    pair.write("sys/quotas/rate-limit/all", json!({ "rate": 5 })).await;
    assert_eq!(limit(), None);
    pair.check();
}

/// Sends failed logins until the name is locked.
async fn guess(server: &TestServer, name: &str) {
    for _ in 0..5 {
        server.post(&format!("auth/up/login/{name}"), "", json!({ "password": "wrong" })).await;
    }
}

#[tokio::test]
async fn lockouts_and_the_quarantine_follow() {
    let leader = TestServer::new().await;
    leader.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    for name in ["anna", "ben"] {
        leader.post(&format!("auth/up/users/{name}"), ROOT, json!({ "password": "right" })).await.ok();
    }
    guess(&leader, "anna").await;
    let pair = Pair::beside(leader).await;
    let locked = async || pair.read("sys/locked-users").await.ok().data()["total"].as_u64().unwrap();
    assert_eq!(locked().await, 1, "stored before the standby was opened");
    guess(&pair.leader, "ben").await;
    guess(&pair.leader, "nobody").await;
    assert_eq!(locked().await, 2);
    let accessor = pair.read("sys/auth/up").await.ok().data()["accessor"].as_str().unwrap().to_owned();
    pair.write(&format!("sys/locked-users/{accessor}/unlock/anna"), json!({})).await;
    assert_eq!(locked().await, 1);
    // The standby counts failed logins in memory only: it followed the lock of the unknown name.
    let refused = async |name: &str| {
        let body = json!({ "password": "wrong" });
        pair.standby.post(&format!("auth/up/login/{name}"), "", body).await.status
    };
    assert_eq!((refused("ben").await, refused("nobody").await, refused("other").await), (403, 403, 400));

    for on in [true, false] {
        pair.write("sys/leases/quarantine", json!({ "enabled": on })).await;
        assert_eq!(pair.standby.unsealed().leases.store.is_quarantined(), on);
        assert_eq!(pair.read("sys/leases/quarantine").await.ok().data()["enabled"], on);
    }
    pair.check();
}

#[tokio::test]
async fn the_expiry_queue_and_the_counts_follow_the_commits() {
    let pair = Pair::new().await;
    let next = async |server: &TestServer| server.unsealed().leases.store.expiry_queue.next(true).await.unwrap();
    let count = |server: &TestServer| server.unsealed().leases.store.counts.read().map(|counts| counts.waiting);
    for server in [&pair.leader, &pair.standby] {
        server
            .unsealed()
            .leases
            .store
            .count(&mut keepfast_framework::throttle::Throttle::new(Arc::new(server.clock.clone())))
            .await
            .unwrap();
    }
    let before = count(&pair.standby).unwrap();
    assert_eq!(next(&pair.standby).await, next(&pair.leader).await);
    let token = pair.leader.token(json!({ "ttl": "60s" })).await;
    let soon = next(&pair.standby).await;
    assert!(soon.is_some() && soon == next(&pair.leader).await);
    assert_eq!(count(&pair.standby), Some(before + 1));
    pair.leader.post("auth/token/revoke", ROOT, json!({ "token": token })).await.ok();
    assert_ne!(next(&pair.standby).await, soon);
    assert_eq!(count(&pair.standby), Some(before));

    let barrier = pair.leader.unsealed().barrier.clone();
    let mounts = async || pair.standby.unsealed().leases.store.expiry_queue.mounts().await.unwrap();
    let mut tx = barrier.begin();
    tx.put(&barrier.view("token/"), "ends/gone/0000000001", Bytes::new());
    tx.commit().await.unwrap();
    assert_eq!(mounts().await, ["gone"]);
    let mut tx = barrier.begin();
    tx.delete(&barrier.view("sys/"), "mount/gone");
    tx.commit().await.unwrap();
    assert!(mounts().await.is_empty(), "forgotten with its mount");
    pair.check();
}

#[tokio::test]
async fn a_rotated_keyring_follows_and_a_changed_root_key_seals() {
    let pair = Pair::new().await;
    let term = async |server: &TestServer| server.get("sys/key-status", ROOT).await.ok().body["data"]["term"].clone();
    for expected in [2, 3] {
        pair.write("sys/rotate", json!({})).await;
        assert_eq!(term(&pair.standby).await, expected);
        pair.write("secret/data/a", json!({ "data": { "term": expected } })).await;
        assert_eq!(pair.read("secret/data/a").await.ok().data()["data"]["term"], expected);
    }
    pair.write("sys/rotate/root", Value::Null).await;
    pair.leader.get("secret/data/a", ROOT).await.ok();
    pair.standby.get("secret/data/a", ROOT).await.is(503);
    assert!(pair.standby.node.state().is_sealed && !pair.leader.node.state().is_sealed);
    pair.standby.node.lifecycle.unseal_as_standby(&pair.leader.shares).await.unwrap();
    pair.read("secret/data/a").await.ok();
    pair.check();
}

#[tokio::test]
async fn open_engines_follow() {
    let pair = Pair::new().await;
    pair.write("sys/mounts/kv", json!({ "type": "kv" })).await;
    pair.write("kv/x", json!({ "k": "v" })).await;
    pair.read("kv/x").await.ok();
    pair.write("sys/mounts/kv/tune", json!({ "options": { "version": "2" } })).await;
    assert_eq!(pair.read("kv/data/x").await.ok().data()["data"]["k"], "v", "before it is converted");
    let is_upgrading = |server: &TestServer| {
        let unsealed = server.unsealed();
        async move {
            let mounted = unsealed.engines.mounts.router().at("kv/").unwrap().clone();
            let names = unsealed.barrier.begin_read().list(&mounted.view, "", &Page::all()).await.unwrap();
            names.iter().any(|name| name == "upgrade")
        }
    };
    assert!(is_upgrading(&pair.standby).await);
    crate::background::tick(&pair.leader.unsealed(), false).await;
    crate::background::tick(&pair.leader.unsealed(), false).await;
    assert!(!is_upgrading(&pair.standby).await);
    assert_eq!(pair.read("kv/data/x").await.ok().data()["data"]["k"], "v");
    pair.write("kv/config", json!({ "max_versions": 3 })).await;
    pair.read("kv/config").await.ok();
    pair.write("kv/metadata/x", json!({ "custom_metadata": { "a": "b" } })).await;
    pair.read("kv/metadata/x").await.ok();

    pair.write("sys/mounts/transit", json!({ "type": "transit" })).await;
    pair.write("transit/keys/k", json!({ "exportable": true })).await;
    let open = async |server: &TestServer| {
        let sealed = pair.leader.post("transit/encrypt/k", ROOT, json!({ "plaintext": "AAAA" })).await.ok();
        server.post("transit/decrypt/k", ROOT, json!({ "ciphertext": sealed.data()["ciphertext"] })).await
    };
    open(&pair.standby).await.ok();
    pair.write("transit/keys/k/rotate", json!({})).await;
    assert_eq!(pair.read("transit/keys/k").await.ok().data()["latest_version"], 2);
    open(&pair.standby).await.ok();
    pair.write("transit/keys/k/config", json!({ "deletion_allowed": true, "min_decryption_version": 2 })).await;
    pair.read("transit/export/encryption-key/k").await.ok();
    pair.delete("transit/keys/k").await;
    pair.read("transit/keys/k").await.is(404);
    pair.standby.post("transit/decrypt/k", ROOT, json!({ "ciphertext": "vault:v1:AAAA" })).await.is(400);

    pair.write("sys/auth/approle", json!({ "type": "approle" })).await;
    for ttl in [60, 120] {
        pair.write("auth/approle/role/r", json!({ "token_ttl": ttl })).await;
        assert_eq!(pair.read("auth/approle/role/r").await.ok().data()["token_ttl"], ttl);
    }
    pair.read("auth/approle/role/r/role-id").await.ok();
    pair.delete("auth/approle/role/r").await;
    pair.read("auth/approle/role/r").await.is(404);

    pair.write("sys/mounts/db", json!({ "type": "database" })).await;
    let config = json!({
        "plugin_name": "postgresql-database-plugin", "verify_connection": false, "allowed_roles": "*",
        "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/x", "username": "u", "password": "p",
    });
    pair.write("db/config/c", config).await;
    pair.read("db/config/c").await.ok();
    pair.write("db/roles/r", json!({ "db_name": "c", "creation_statements": "SELECT 1" })).await;
    pair.read("db/roles/r").await.ok();
    pair.delete("db/config/c").await;
    pair.read("db/config/c").await.is(404);
    pair.check();
}

#[tokio::test]
async fn audit_devices_that_the_api_creates_follow() {
    let change = |settings: &mut crate::Settings, _: &std::path::Path| settings.allow_api_audit_creation = true;
    let pair = Pair::beside(TestServer::with(change, keepfast_engines::all()).await).await;
    let at = |name: &str| json!({ "type": "file", "options": { "file_path": pair.leader.dir.path().join(name) } });
    let has = |name: &str, token: &str| pair.leader.audit(name).contains(token);
    pair.write("sys/audit/x", at("one")).await;
    pair.standby.get("sys/mounts/to-one", ROOT).await;
    assert!(has("one", "to-one"), "both nodes write to one file here");
    let hash = async |server: &TestServer| {
        server.post("sys/audit-hash/x", ROOT, json!({ "input": "a" })).await.ok().body["data"]["hash"].clone()
    };
    assert_eq!(hash(&pair.standby).await, hash(&pair.leader).await);
    pair.delete("sys/audit/x").await;
    pair.write("sys/audit/x", at("two")).await;
    pair.standby.get("sys/mounts/to-two", ROOT).await;
    assert!(has("two", "to-two") && !has("one", "to-two"));
    assert_eq!(hash(&pair.standby).await, hash(&pair.leader).await);
    pair.delete("sys/audit/x").await;
    pair.standby.get("sys/mounts/to-none", ROOT).await;
    assert!(!has("two", "to-none"));
    pair.check();
}

/// Reads whose responses belong to one node.
const OF_ONE_NODE: &[&str] = &[
    "metrics",
    "host-info",
    "in-flight-req",
    "ha-status",
    "leader",
    "seal-status",
    "health",
    "audit",
    "key-status",
    "internal/inspect",
    "config/state/sanitized",
    "random",
];

/// All reads of all engines after each kind of write, also of mounts that were created after the standby was opened.
#[tokio::test]
async fn sec_rl17_every_read_is_equal_on_both_nodes_after_every_write() {
    let pair = Pair::beside(TestServer::new().await).await;
    mount_all_engines(&pair.leader).await;
    let all = routes(&pair.leader);
    let reads: Vec<&Route> = all.iter().filter(|route| is_compared(&pair, route)).collect();
    assert!(reads.len() > 60, "{}", reads.len());
    let mut written = 0;
    for route in &all {
        let writes = matches!(route.operation, Operation::Update | Operation::Patch | Operation::Delete);
        if !writes
            || route.path.ends_with('/')
            || ["seal", "rotate/root"].iter().any(|path| route.pattern.starts_with(path))
        {
            continue;
        }
        for body in [json!({}), likely(route)] {
            written += usize::from(pair.leader.call(route.method(), &route.path, ROOT, body).await.status < 300);
        }
        let folder = route.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for read in reads.iter().filter(|read| read.path.starts_with(folder)) {
            pair.call(read.method(), &read.path).await;
        }
    }
    assert!(written > 60, "{written}");
    for read in reads {
        pair.call(read.method(), &read.path).await;
    }
    pair.check();
}

fn is_compared(pair: &Pair, route: &Route) -> bool {
    let reads = matches!(route.operation, Operation::Read | Operation::List | Operation::Scan);
    let is_of_one_node = OF_ONE_NODE.iter().any(|path| route.pattern.contains(path));
    let unsealed = pair.leader.unsealed();
    let router = unsealed.engines.mounts.router();
    let (mounted, within) = router.find(&route.path).unwrap();
    let row = mounted.table.find(route.operation, within);
    let is_once = row.is_some_and(|row| mounted.table.rows()[row.row].once);
    reads && !is_of_one_node && !is_once
}

/// A body with a value for each parameter that fits its type.
fn likely(route: &Route) -> Value {
    let value = |schema: &Value| match schema["type"].as_str() {
        Some("integer" | "number") => Some(json!(60)),
        Some("boolean") => Some(json!(true)),
        Some("string") => Some(json!("60")),
        _ => None,
    };
    let known = [
        ("type", json!("kv")),
        ("policy", json!("path \"x\" { capabilities = [\"read\"] }")),
        ("allowed_origins", json!("http://a")),
        ("rate", json!(5)),
        ("data", json!({ "k": "v" })),
        ("password", json!("right")),
        ("plaintext", json!("AAAA")),
    ];
    let body = route.parameters.iter().filter_map(|(name, schema)| {
        let known = known.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        Some((name.clone(), known.or_else(|| value(schema))?))
    });
    Value::Object(body.filter(|(name, _)| name != "token" && name != "accessor").collect())
}

#[tokio::test]
async fn a_node_of_a_cluster_that_takes_over_quarantines_nothing() {
    use crate::settings::DataDirectory;

    let data_directory =
        |node: &str, place: &str| Some(DataDirectory { node: node.to_owned(), place: place.to_owned() });
    let in_directory =
        |settings: &mut crate::Settings, _: &std::path::Path| settings.data_directory = data_directory("one", "there");
    let mut leader = TestServer::on(Gated::leading(), in_directory, keepfast_engines::all()).await;
    for (node, place) in [("two", "elsewhere"), ("one", "there"), ("two", "elsewhere")] {
        leader.settings.data_directory = data_directory(node, place);
        leader.restarted().await;
        assert!(!leader.unsealed().leases.store.is_quarantined(), "{node}");
    }
    leader.settings.data_directory = data_directory("two", "restored");
    leader.restarted().await;
    assert!(leader.unsealed().leases.store.is_quarantined());
    leader.settings.data_directory = data_directory("one", "there");
    leader.restarted().await;
    assert!(leader.unsealed().leases.store.is_quarantined(), "until an operator ends it");
}

/// A data directory that was restored without its `meta.json`, or with an older one, gets a new name.
#[tokio::test]
async fn sec_kf59_a_lone_node_that_storage_does_not_know_is_quarantined() {
    use crate::settings::DataDirectory;

    let data_directory = |node: &str| Some(DataDirectory { node: node.to_owned(), place: "there".to_owned() });
    for storage in [Gated::default(), Gated::leading_alone()] {
        let mut server = TestServer::on(
            storage,
            |settings, _| settings.data_directory = data_directory("one"),
            keepfast_engines::all(),
        )
        .await;
        server.restarted().await;
        assert!(!server.unsealed().leases.store.is_quarantined(), "it is where it was");
        server.settings.data_directory = data_directory("two");
        for _ in 0..2 {
            server.restarted().await;
            assert!(server.unsealed().leases.store.is_quarantined(), "it lasts");
        }
        server.unsealed().leases.store.set_quarantine(false, server.clock.now()).await.unwrap();
        server.restarted().await;
        assert!(!server.unsealed().leases.store.is_quarantined(), "an operator has ended it");
    }
}

#[tokio::test]
async fn a_standby_reports_its_role_and_refuses_to_write() {
    let leader = TestServer::on(Gated::leading(), |_, _| {}, keepfast_engines::all()).await;
    let addresses = Leader { api_addr: "http://one".into(), cluster_addr: "https://one".into() };
    let role = Role::Following { leader: Some(Arc::new(addresses)) };
    let pair = Pair::as_node(leader, Some(role)).await;
    let here = async |path: &str| pair.standby.get(path, ROOT).await;
    let there = async |path: &str| pair.leader.get(path, ROOT).await;

    let health = there("sys/health").await.is(200).body;
    assert_eq!((&health["standby"], &health["replication_performance_mode"]), (&json!(false), &json!("primary")));
    assert_eq!(here("sys/health").await.is(429).body["standby"], true);
    here("sys/health?standbyok=true").await.is(200);
    here("sys/health?standbyok=false&standbycode=299").await.is(299);

    let leading = there("sys/leader").await.ok().body;
    assert_eq!((&leading["ha_enabled"], &leading["is_self"]), (&json!(true), &json!(true)));
    let following = here("sys/leader").await.ok().body;
    let expected = json!({ "ha_enabled": true, "is_self": false, "leader_address": "http://one", "leader_cluster_address": "https://one" });
    assert_eq!(following, expected);

    assert_eq!(there("sys/ha-status").await.ok().body["nodes"][0]["active_node"], true);
    assert_eq!(here("sys/ha-status").await.ok().body["nodes"][0]["active_node"], false);
    let active = |server: &TestServer| {
        let items = server.node.monitoring().gather();
        items.into_iter().find(|item| item.name == "core.active").map(|item| item.value)
    };
    assert_eq!(active(&pair.leader), Some(metrics::Value::Gauge(1.0)));
    assert_eq!(active(&pair.standby), Some(metrics::Value::Gauge(0.0)));

    pair.standby.post("sys/step-down", "", Value::Null).await.is(403);
    pair.standby.post("secret/data/a", ROOT, json!({ "data": {} })).await.is(503);
    pair.leader.post("secret/data/a", ROOT, json!({ "data": {} })).await.ok();
}

#[tokio::test]
async fn a_server_without_a_cluster_has_no_role() {
    let server = TestServer::with(|settings, _| settings.storage_type = "raft".into(), keepfast_engines::all()).await;
    assert_eq!(server.get("sys/leader", "").await.ok().body, json!({ "ha_enabled": false }));
    assert_eq!(server.get("sys/health", "").await.is(200).body["replication_performance_mode"], "disabled");
    assert!(server.get("sys/ha-status", ROOT).await.ok().body["nodes"][0].get("upgrade_version").is_none());
    server.post("sys/step-down", "", Value::Null).await.is(204);
}
