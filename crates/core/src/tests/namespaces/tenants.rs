//! Servers with namespaces, requests in them, and dumps of what storage has of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::engine::{Registered, Registry};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Engine, Error, HeldLease, Kind, LeaseOffer, LeaseTerms, Leased, Result, Routes};
use keepfast_storage::Backend;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::Node;
use crate::namespace::background;
use crate::tests::fixture::{ROOT, RequestOptions, TestResponse, TestServer};
use crate::tests::tokens::stored;

/// All capabilities on every path.
pub(super) const EVERYTHING: &str =
    r#"path "*" { capabilities = ["create", "read", "update", "patch", "delete", "list", "scan", "sudo"] }"#;

/// The most times that a test lets other tasks run before it fails.
const PATIENCE: usize = 200_000;

/// The users of an external system, which an engine creates with a lease each.
pub(super) type ExternalUsers = Arc<Mutex<BTreeSet<String>>>;

/// The engine `users`: each credential is a user that the revocation of its lease deletes.
struct Users(ExternalUsers);

impl Engine for Users {
    const TYPE: &'static str = "users";
    const KIND: Kind = Kind::Secrets;

    fn routes(r: &mut Routes<Self>) {
        r.path("creds/{name}", Help { synopsis: "A user.", description: "" }).read(creds).once();
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        Err(Error::internal("opened by the test"))
    }

    async fn renew_lease(&self, _: &mut Cx, _: &HeldLease) -> Result<LeaseTerms> {
        Ok(LeaseTerms { ttl: Duration::from_secs(600), max_ttl: Duration::from_secs(36_000) })
    }

    async fn revoke_lease(&self, _: &mut Cx, lease: &HeldLease) -> Result<()> {
        self.0.lock().remove(lease.internal["user"].as_str().unwrap_or_default());
        Ok(())
    }
}

async fn creds(users: &Users, cx: &mut Cx, _: Nothing) -> Result<Leased<Value>> {
    let user = format!("{}-{}", cx.mount().path, keepfast_crypto::random::base62(12));
    users.0.lock().insert(user.clone());
    let (ttl, internal) = (Duration::from_secs(600), json!({ "user": user }));
    let max_ttl = Duration::from_secs(36_000);
    Ok(Leased {
        data: json!({ "user": user }),
        offer: LeaseOffer { ttl, max_ttl, renewable: true, internal, ..LeaseOffer::default() },
    })
}

/// All engines and the engine `users`.
pub(super) fn engines(external: &ExternalUsers) -> Registry {
    let external = external.clone();
    let users = Registered::with(move |_| {
        let external = external.clone();
        Box::pin(async move { Ok(Users(external)) })
    });
    keepfast_engines::all().preceded_by(vec![users])
}

/// A namespace with a token of all rights in it.
pub(super) struct Tenant {
    /// Its path without a final slash.
    pub(super) path: String,
    /// Its id.
    pub(super) id: String,
    /// Its token.
    pub(super) token: String,
}

/// What storage has, by key.
pub(super) type Dump = BTreeMap<String, String>;

/// A server with the engine `users`.
pub(super) async fn with_users() -> (TestServer, ExternalUsers) {
    let external = ExternalUsers::default();
    (TestServer::with(|_, _| {}, engines(&external)).await, external)
}

/// The request of a namespace: the header, unless it is empty.
pub(super) async fn within(
    server: &TestServer,
    namespace: &str,
    (method, path): (&str, &str),
    token: &str,
    body: Value,
) -> TestResponse {
    let options = RequestOptions {
        token: (!token.is_empty()).then(|| token.to_owned()),
        body: (!body.is_null()).then(|| body.to_string()),
        namespace: namespace.to_owned(),
        ..RequestOptions::default()
    };
    server.send(method, path, options).await
}

/// A wrapped request of a namespace.
pub(super) async fn wrapped_within(
    server: &TestServer,
    namespace: &str,
    (method, path): (&str, &str),
    token: &str,
    body: Value,
) -> TestResponse {
    let options = RequestOptions {
        token: Some(token.to_owned()),
        body: (!body.is_null()).then(|| body.to_string()),
        namespace: namespace.to_owned(),
        wrap: Some(60),
        ..RequestOptions::default()
    };
    server.send(method, path, options).await
}

/// A write of the root token in a namespace, which must succeed.
#[track_caller]
pub(super) fn set(server: &TestServer, namespace: &str, path: &str, body: Value) -> impl Future<Output = TestResponse> {
    let at = format!("{namespace}: {path}");
    async move {
        let response = within(server, namespace, ("POST", path), ROOT, body).await;
        assert!(response.status < 300, "{at}: {response:?}");
        response
    }
}

/// Creates a namespace. Returns its id.
pub(super) async fn create(server: &TestServer, path: &str) -> String {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let made = set(server, parent, &format!("sys/namespaces/{name}"), json!({})).await;
    made.data()["id"].as_str().unwrap().to_owned()
}

/// A fresh token of a namespace with the policy `everything`.
pub(super) async fn chief(server: &TestServer, path: &str) -> String {
    set(server, path, "sys/policies/acl/everything", json!({ "policy": EVERYTHING })).await;
    token_of(server, path, json!({ "policies": ["everything"] })).await
}

/// A fresh token of a namespace, created by root.
pub(super) async fn token_of(server: &TestServer, path: &str, body: Value) -> String {
    set(server, path, "auth/token/create", body).await.token()
}

/// Creates a namespace with a token of all rights.
pub(super) async fn tenant(server: &TestServer, path: &str) -> Tenant {
    let id = create(server, path).await;
    Tenant { path: path.to_owned(), id, token: chief(server, path).await }
}

/// Mounts KV version 1 at `kv/`.
pub(super) async fn mount_kv(server: &TestServer, path: &str) {
    set(server, path, "sys/mounts/kv", json!({ "type": "kv", "options": { "version": "1" } })).await;
}

/// Mounts userpass at `auth/up/` with the user `anna`. Returns the accessor.
pub(super) async fn mount_userpass(server: &TestServer, path: &str, policies: Value) -> String {
    set(server, path, "sys/auth/up", json!({ "type": "userpass" })).await;
    let user = json!({ "password": "right", "token_policies": policies });
    set(server, path, "auth/up/users/anna", user).await;
    let read = within(server, path, ("GET", "sys/auth/up"), ROOT, Value::Null).await.ok();
    read.data()["accessor"].as_str().unwrap().to_owned()
}

/// Logs `anna` in.
pub(super) async fn log_in(server: &TestServer, path: &str, password: &str) -> TestResponse {
    within(server, path, ("POST", "auth/up/login/anna"), "", json!({ "password": password })).await
}

/// Deletes a namespace, and waits until nothing of it is found.
pub(super) async fn delete(server: &TestServer, path: &str) {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    within(server, parent, ("DELETE", &format!("sys/namespaces/{name}")), ROOT, Value::Null).await.is(200);
    gone(server, path).await;
}

/// Waits until a namespace does not exist.
pub(super) async fn gone(server: &TestServer, path: &str) {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    for _ in 0..PATIENCE {
        let read = within(server, parent, ("GET", &format!("sys/namespaces/{name}")), ROOT, Value::Null).await;
        if read.status == 404 {
            // The passes that delete what has landed since, and forget the namespace.
            work(server).await;
            work(server).await;
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{path} is not deleted");
}

/// The same storage under a new process with these engines.
pub(super) async fn restart(server: &mut TestServer, external: &ExternalUsers) {
    server.node.lifecycle.seal().await;
    open(server, external).await;
}

/// Opens a new process over the storage of a server.
pub(super) async fn open(server: &mut TestServer, external: &ExternalUsers) {
    let backend: Arc<dyn Backend> = server.backend.clone();
    server.node = Node::new(backend, engines(external), Arc::new(server.clock.clone()), server.settings.clone());
    assert!(server.node.lifecycle.unseal(&server.shares).await.unwrap());
}

/// The work of the leader in all namespaces that have some. What fails is for a later pass.
pub(super) async fn work(server: &TestServer) {
    let root = server.unsealed();
    for id in background::with_work(&root, false).await.unwrap() {
        let _ = background::run(&root, &id, false).await;
    }
}

/// All records.
pub(super) async fn dump(server: &TestServer) -> Dump {
    let unsealed = server.unsealed();
    let (view, mut tx) = (unsealed.barrier.view(""), unsealed.barrier.begin_read());
    let mut all = Dump::new();
    for key in stored(server, "").await {
        let value = tx.get(&view, &key).await.unwrap().unwrap_or_default();
        all.insert(key, String::from_utf8_lossy(&value).into_owned());
    }
    all
}

/// The keys of a namespace in a dump: those that contain its id, those of its tokens and leases, and those of their indexes.
pub(super) fn keys_of(dump: &Dump, id: &str) -> BTreeSet<String> {
    let field = format!("\"namespace\":\"{id}\"");
    let mut own: BTreeSet<String> = dump
        .iter()
        .filter(|(key, value)| key.contains(id) || value.contains(&field))
        .map(|(key, _)| key.clone())
        .collect();
    let names: Vec<&str> = own
        .iter()
        .filter(|key| key.starts_with("token/id/") || key.starts_with("token/secret/"))
        .filter_map(|key| key.rsplit('/').next())
        .collect();
    let of_index: Vec<String> =
        dump.keys().filter(|key| names.iter().any(|name| key.contains(name))).cloned().collect();
    own.extend(of_index);
    own
}

/// The records of a namespace.
pub(super) fn records_of(dump: &Dump, id: &str) -> Dump {
    keys_of(dump, id).into_iter().map(|key| (key.clone(), dump[&key].clone())).collect()
}

/// Fails unless nothing is left of a deleted namespace but its id, which is not used again.
#[track_caller]
pub(super) fn assert_gone(dump: &Dump, id: &str, when: &str) {
    let mut left = keys_of(dump, id);
    left.remove(&format!("ns/gone/{id}"));
    assert!(left.is_empty(), "{when}: {left:#?}");
}

/// The status and the body of a response without the fields that differ between any two responses, and with the given
/// texts replaced.
pub(super) fn plain(response: &TestResponse, hidden: &[&str]) -> (u16, String) {
    let mut body = response.body.clone();
    if let Some(body) = body.as_object_mut() {
        body.remove("request_id");
    }
    let text = hidden.iter().fold(body.to_string(), |text, hide| text.replace(hide, "<id>"));
    (response.status, text)
}
