//! A server in memory with a clock that tests move, a file audit device, and short methods for requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::DevMount;
use crate::SealSet;
use crate::seal::SealShape;
use crate::settings::AuditSettings;
use crate::unsealed::Unsealed;
use crate::{Node, Settings};
use bytes::Bytes;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::clock::TestClock;
use keepfast_framework::engine::Registry;
use keepfast_framework::{
    Authorization, Body, CanonicalPath, Clock, Incoming, Operation, TlsSession, UnauthedEndpoints,
};
use keepfast_storage::Backend;
use serde_json::{Value, json};

use crate::tests::gate::Gated;

/// The id of the first token.
pub(crate) const ROOT: &str = "root-token-server";

/// The mount at `secret/` of every test server.
const DEV_MOUNT: DevMount =
    DevMount { path: "secret/", engine: "kv", version: "2", description: "key/value secret storage" };

/// A test server with its storage, clock and directory.
pub(crate) struct TestServer {
    pub(crate) node: Arc<Node>,
    pub(crate) clock: TestClock,
    pub(crate) backend: Arc<Gated>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) shares: Vec<SecretBytes>,
    pub(crate) settings: Settings,
}

/// The optional parts of a request.
#[derive(Default, Clone)]
pub(crate) struct RequestOptions {
    pub(crate) token: Option<String>,
    pub(crate) authorization: Authorization,
    pub(crate) body: Option<String>,
    pub(crate) wrap: Option<u64>,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) tls: Option<Arc<TlsSession>>,
    pub(crate) namespace: String,
    /// The values of `X-Vault-MFA`.
    pub(crate) mfa: Vec<String>,
    /// The edge did not receive the body.
    pub(crate) withheld: bool,
    /// The `Accept` header has a format of Prometheus.
    pub(crate) accepts_prometheus: bool,
}

/// A response.
#[derive(Debug)]
pub(crate) struct TestResponse {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl TestResponse {
    /// The only error text, empty if there is none.
    pub(crate) fn error(&self) -> &str {
        self.body["errors"][0].as_str().unwrap_or_default()
    }

    pub(crate) fn data(&self) -> &Value {
        &self.body["data"]
    }

    /// The token in the response.
    pub(crate) fn token(&self) -> String {
        self.body["auth"]["client_token"].as_str().unwrap_or_else(|| panic!("no token in {self:?}")).to_owned()
    }

    pub(crate) fn accessor(&self) -> String {
        self.body["auth"]["accessor"].as_str().unwrap_or_else(|| panic!("no accessor in {self:?}")).to_owned()
    }

    pub(crate) fn wrapping(&self) -> String {
        self.body["wrap_info"]["token"].as_str().unwrap_or_else(|| panic!("not wrapped: {self:?}")).to_owned()
    }

    /// Fails the test unless the status is 2xx.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!((200..300).contains(&self.status), "{self:?}");
        self
    }

    /// Fails the test unless the status is this one.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// A file device of this name in `dir`.
pub(crate) fn device(dir: &std::path::Path, name: &str, options: &[(&str, &str)]) -> AuditSettings {
    let mut all = BTreeMap::from([("file_path".to_owned(), dir.join(name).to_string_lossy().into_owned())]);
    all.extend(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    AuditSettings { device: "file".to_owned(), name: name.to_owned(), description: String::new(), options: all }
}

impl TestServer {
    /// An unsealed server with one audit device, `secret/` as KV version 2 and the root token [`ROOT`].
    pub(crate) async fn new() -> Self {
        Self::with(|_, _| {}, keepfast_engines::all()).await
    }

    /// The same with other settings or engines.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings, &std::path::Path), engines: Registry) -> Self {
        Self::on(Gated::default(), change, engines).await
    }

    /// The same on an existing storage.
    pub(crate) async fn on(
        backend: Gated,
        change: impl FnOnce(&mut Settings, &std::path::Path),
        engines: Registry,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings { audit: vec![device(dir.path(), "audit", &[])], ..Settings::default() };
        change(&mut settings, dir.path());
        let clock = TestClock::default();
        let backend = Arc::new(backend);
        let node = Node::new(backend.clone(), engines, Arc::new(clock.clone()), settings.clone());
        let made = crate::init_dev(&node, Some(SecretString::new(ROOT.to_owned())), Some(DEV_MOUNT)).await.unwrap();
        TestServer { node, clock, backend, dir, shares: made.shares, settings }
    }

    /// A server that is initialized with this shape and sealed.
    pub(crate) async fn sealed(shape: SealShape) -> Self {
        let server = Self::uninitialized();
        let root = Some(SecretString::new(ROOT.to_owned()));
        let made = crate::init::initialize(&server.node.lifecycle, Some(shape), root, Ok).await.unwrap();
        TestServer { shares: made.shares, ..server }
    }

    /// A server whose storage is empty.
    pub(crate) fn uninitialized() -> Self {
        Self::uninitialized_on(Gated::default(), TestClock::default(), |_| {})
    }

    /// The same on this storage with other settings.
    pub(crate) fn uninitialized_on(backend: Gated, clock: TestClock, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings { audit: vec![device(dir.path(), "audit", &[])], ..Settings::default() };
        change(&mut settings);
        let backend = Arc::new(backend);
        let node = Node::new(backend.clone(), keepfast_engines::all(), Arc::new(clock.clone()), settings.clone());
        TestServer { node, clock, backend, dir, shares: Vec::new(), settings }
    }

    /// A server with these seals whose storage is empty.
    pub(crate) fn with_seals(seals: SealSet, change: impl FnOnce(&mut Settings)) -> Self {
        let server = Self::uninitialized_on(Gated::default(), TestClock::default(), change);
        server.under(seals)
    }

    /// The same storage under a new process with these seals, which does not unseal by itself.
    pub(crate) fn under(self, seals: SealSet) -> Self {
        let (backend, clock): (Arc<dyn Backend>, _) = (self.backend.clone(), Arc::new(self.clock.clone()));
        let node = Node::new(backend, keepfast_engines::all(), clock, (self.settings.clone(), seals));
        TestServer { node, ..self }
    }

    /// The same storage under a new process.
    pub(crate) async fn restarted(&mut self) {
        self.node.lifecycle.seal().await;
        let backend: Arc<dyn Backend> = self.backend.clone();
        self.node = Node::new(backend, keepfast_engines::all(), Arc::new(self.clock.clone()), self.settings.clone());
        assert!(self.node.lifecycle.unseal(&self.shares).await.unwrap());
    }

    pub(crate) fn unsealed(&self) -> Arc<Unsealed> {
        self.node.lifecycle.unsealed().unwrap()
    }

    /// Moves the clock and runs the expirations, as the background tasks do.
    pub(crate) async fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.unsealed().leases.expiry.revoke_expired_tokens(self.clock.now()).await.unwrap();
    }

    /// Sends a request with all options.
    pub(crate) async fn send(&self, method: &str, path: &str, send: RequestOptions) -> TestResponse {
        let response = self.node.handle(incoming(method, path, send)).await;
        let status = response.status().0;
        let bytes = response.into_body();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)))
        };
        TestResponse { status, body }
    }

    /// Sends a request with a token (empty for none) and a body (null for none).
    pub(crate) async fn call(&self, method: &str, path: &str, token: &str, body: Value) -> TestResponse {
        let token = (!token.is_empty()).then(|| token.to_owned());
        let body = (!body.is_null()).then(|| body.to_string());
        self.send(method, path, RequestOptions { token, body, ..RequestOptions::default() }).await
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> TestResponse {
        self.call("GET", path, token, Value::Null).await
    }

    pub(crate) async fn list(&self, path: &str, token: &str) -> TestResponse {
        self.call("LIST", path, token, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: Value) -> TestResponse {
        self.call("POST", path, token, body).await
    }

    pub(crate) async fn delete(&self, path: &str, token: &str) -> TestResponse {
        self.call("DELETE", path, token, Value::Null).await
    }

    /// Sends a request with a wrap TTL of `seconds`.
    pub(crate) async fn wrapped(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Value,
        seconds: u64,
    ) -> TestResponse {
        let body = (!body.is_null()).then(|| body.to_string());
        self.send(
            method,
            path,
            RequestOptions { token: Some(token.to_owned()), body, wrap: Some(seconds), ..RequestOptions::default() },
        )
        .await
    }

    /// Writes a policy.
    pub(crate) async fn policy(&self, name: &str, text: &str) {
        self.post(&format!("sys/policies/acl/{name}"), ROOT, json!({ "policy": text })).await.ok();
    }

    /// A fresh token, created by root with these parameters.
    pub(crate) async fn token(&self, parameters: Value) -> String {
        self.post("auth/token/create", ROOT, parameters).await.ok().token()
    }

    /// Whether a token is accepted.
    pub(crate) async fn accepts(&self, token: &str) -> bool {
        match self.get("auth/token/lookup-self", token).await.status {
            200 => true,
            403 => false,
            other => panic!("lookup-self answered {other}"),
        }
    }

    /// The whole output of a device.
    pub(crate) fn audit(&self, device: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(device)).unwrap_or_default()
    }

    /// The entries of the first device.
    pub(crate) fn entries(&self) -> Vec<Value> {
        self.audit("audit")
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .collect()
    }

    /// Clears the output of the first device.
    pub(crate) fn forget_audit(&self) {
        std::fs::File::options().write(true).open(self.dir.path().join("audit")).unwrap().set_len(0).unwrap();
    }

    /// Logs in through a fresh AppRole role with these parameters; the mount is created when it is missing.
    pub(crate) async fn approle(&self, role: &str, parameters: Value) -> TestResponse {
        self.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await;
        self.post(&format!("auth/approle/role/{role}"), ROOT, parameters).await.ok();
        let id = self.get(&format!("auth/approle/role/{role}/role-id"), ROOT).await.ok();
        let secret = self.post(&format!("auth/approle/role/{role}/secret-id"), ROOT, json!({})).await.ok();
        let body = json!({ "role_id": id.data()["role_id"], "secret_id": secret.data()["secret_id"] });
        self.post("auth/approle/login", "", body).await
    }
}

/// The [`Incoming`] of the edge for a method and a path with a query.
pub(crate) fn incoming(method: &str, path: &str, send: RequestOptions) -> Box<Incoming> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = query.split('&').filter(|p| !p.is_empty()).map(|p| {
        let (name, value) = p.split_once('=').unwrap_or((p, ""));
        (name.to_owned(), value.to_owned())
    });
    let operation = match method {
        "GET" => Operation::Read,
        "POST" | "PUT" => Operation::Update,
        "PATCH" => Operation::Patch,
        "DELETE" => Operation::Delete,
        "LIST" => Operation::List,
        "SCAN" => Operation::Scan,
        "HELP" => Operation::Help,
        "HEAD" => Operation::Head,
        other => panic!("no method: {other}"),
    };
    Box::new(Incoming {
        id: keepfast_crypto::random::request_id(),
        method: "GET",
        operation,
        path: CanonicalPath::new(path.to_owned()).unwrap(),
        input: keepfast_framework::Input {
            query: query.collect(),
            body: Body::parse(Bytes::from(send.body.unwrap_or_default())).unwrap(),
            ..keepfast_framework::Input::default()
        },
        body_withheld: send.withheld,
        token: send.token.map(SecretString::new),
        authorization: send.authorization,
        mfa: send.mfa.into_iter().map(SecretString::new).collect(),
        namespace: send.namespace,
        headers: Vec::new(),
        wrap_ttl: send.wrap.map(Duration::from_secs),
        remote: send.remote.or_else(|| "127.0.0.1:40000".parse().ok()),
        tls: send.tls,
        open: UnauthedEndpoints::default(),
        accepts_prometheus: send.accepts_prometheus,
        cluster: None,
    })
}

impl TestServer {
    /// The length of the audit output, in units of a short entry.
    pub(crate) fn entries_written(&self) -> u64 {
        std::fs::metadata(self.dir.path().join("audit")).map_or(0, |m| m.len() / 512)
    }
}
