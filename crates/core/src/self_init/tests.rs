//! Self-initialization of a server in memory.

mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::clock::TestClock;
use keepfast_framework::seal::SealErrorClass;
use keepfast_storage::{Backend, Batch, Index, Key, MemoryBackend, Page, StorageError, Watch};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::gate::Phase;
use super::plan::{PlannedRequest, Recovery, RecoveryOutput, SelfInitPlan, Sources};
use super::run::{Attempt, attempt};
use super::state::SelfInitState;
use super::value::{PlannedValue, Source, SourceKind, ValueType};
use crate::layout::{SELF_INIT_RESPONSES, SYSTEM_STORAGE};
use crate::seal::test_seal::{Behaviour, TestSeal, set_of};
use crate::tests::fixture::{RequestOptions, incoming};
use crate::unseal::by_seals::{RoundOutcome, round};
use crate::{Node, Settings};

/// Variables and files of a test.
#[derive(Default)]
struct Fixed(BTreeMap<&'static str, &'static str>);

impl Sources for Fixed {
    fn variable(&self, name: &str) -> Result<Option<SecretString>, String> {
        Ok(self.0.get(name).map(|value| SecretString::new((*value).to_owned())))
    }

    fn check_file(&self, path: &str) -> Result<(), String> {
        self.file(path).map(drop)
    }

    fn file(&self, path: &str) -> Result<SecretString, String> {
        self.variable(path)?.ok_or_else(|| format!("{path}: not found"))
    }

    fn is_read_once(&self, path: &str) -> bool {
        path == "/pipe"
    }
}

/// A storage that takes a limited number of commits, as if the process was killed after them.
#[derive(Default)]
struct Limited {
    memory: Arc<MemoryBackend>,
    left: AtomicUsize,
    /// One commit that fails, after this many others.
    fault: Mutex<Option<(usize, StorageError)>>,
}

impl Limited {
    /// One that takes this many commits.
    fn on(memory: &Arc<MemoryBackend>, commits: usize) -> Arc<Self> {
        Arc::new(Limited { memory: memory.clone(), left: AtomicUsize::new(commits), ..Limited::default() })
    }

    fn failing_once(after: usize, error: StorageError) -> Arc<Self> {
        let (left, fault) = (AtomicUsize::new(usize::MAX), Mutex::new(Some((after, error))));
        Arc::new(Limited { left, fault, ..Limited::default() })
    }

    fn fault(&self) -> Option<StorageError> {
        let mut fault = self.fault.lock();
        match &mut *fault {
            Some((0, _)) => fault.take().map(|(_, error)| error),
            Some((after, _)) => {
                *after -= 1;
                None
            }
            None => None,
        }
    }
}

#[async_trait]
impl Backend for Limited {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        self.memory.get(key).await
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.memory.list(prefix, page).await
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        taken.map_err(|_| StorageError::Full)?;
        if let Some(error) = self.fault() {
            return Err(error);
        }
        self.memory.commit(batch).await
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.memory.watch(watcher);
    }
}

/// A server whose background tasks do not run.
struct Server {
    node: Arc<Node>,
    has_warned: AtomicBool,
}

impl Server {
    fn on(backend: Arc<dyn Backend>, seal: &Arc<TestSeal>, plan: SelfInitPlan) -> Self {
        let clock = Arc::new(TestClock::default());
        let settings = (Settings::default(), set_of(&[("a", seal)]), Arc::new(plan));
        Server {
            node: Node::new(backend, keepfast_engines::all(), clock, settings),
            has_warned: AtomicBool::new(false),
        }
    }

    async fn attempt(&self) -> keepfast_framework::Result<Attempt> {
        attempt(&self.node.lifecycle, &self.has_warned).await
    }

    async fn unsealed(self) -> Self {
        let outcome = round(&self.node.lifecycle).await.unwrap();
        assert!(matches!(outcome, RoundOutcome::Unsealed));
        self
    }

    async fn send(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> (u16, Value) {
        let token = Some(token.to_owned()).filter(|token| !token.is_empty());
        let body = body.map(|body| body.to_string());
        let response =
            self.node.handle(incoming(method, path, RequestOptions { token, body, ..RequestOptions::default() })).await;
        (response.status().0, serde_json::from_slice(&response.into_body()).unwrap_or_default())
    }

    async fn state(&self) -> SelfInitState {
        let barrier = &self.node.lifecycle.unsealed().unwrap().barrier;
        SelfInitState::load(barrier).await.unwrap().unwrap()
    }

    /// The token of the user that the stanzas create, who may do everything.
    async fn login(&self) -> String {
        let (status, response) =
            self.send("POST", "auth/userpass/login/bob", "", Some(json!({ "password": "from-env" }))).await;
        assert_eq!(status, 200, "{response}");
        response["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// Whether a token has the policy `root`.
    async fn has_root_token(&self) -> bool {
        let unsealed = self.node.lifecycle.unsealed().unwrap();
        let tokens = &unsealed.access.tokens;
        for accessor in tokens.accessors(&crate::namespace::NamespaceId::root()).await.unwrap() {
            let found = tokens.at(&tokens.place_of(&accessor), unsealed.clock.now()).await.unwrap();
            if found.is_some_and(|token| token.record.authority.is_root()) {
                return true;
            }
        }
        false
    }
}

fn request(name: &str, operation: &str, path: &str) -> PlannedRequest {
    PlannedRequest {
        name: format!("one.{name}"),
        operation: PlannedValue::text(operation),
        path: PlannedValue::text(path),
        token: None,
        data: None,
        allow_failure: None,
    }
}

fn update(name: &str, path: &str, data: &[(&str, PlannedValue)]) -> PlannedRequest {
    let entries = data.iter().map(|(name, value)| ((*name).to_owned(), copy(value))).collect();
    PlannedRequest { data: Some(PlannedValue::Map(entries)), ..request(name, "update", path) }
}

fn copy(value: &PlannedValue) -> PlannedValue {
    match value {
        PlannedValue::Literal(json) => PlannedValue::Literal(json.clone()),
        PlannedValue::List(values) => PlannedValue::List(values.iter().map(copy).collect()),
        PlannedValue::Map(entries) => PlannedValue::Map(entries.iter().map(|(n, v)| (n.clone(), copy(v))).collect()),
        PlannedValue::Source(Source { kind, as_type }) => {
            let kind = match kind {
                SourceKind::Env { variable, required } => {
                    SourceKind::Env { variable: variable.clone(), required: *required }
                }
                SourceKind::File { path } => SourceKind::File { path: path.clone() },
                SourceKind::Request { of, field } => SourceKind::Request { of: of.clone(), field: field.clone() },
                SourceKind::Response { of, field } => SourceKind::Response { of: of.clone(), field: field.clone() },
            };
            PlannedValue::Source(Source { kind, as_type: *as_type })
        }
    }
}

fn text(value: &str) -> PlannedValue {
    PlannedValue::text(value)
}

fn from(kind: SourceKind) -> PlannedValue {
    PlannedValue::Source(Source { kind, as_type: ValueType::String })
}

fn env(variable: &str) -> PlannedValue {
    from(SourceKind::Env { variable: variable.to_owned(), required: true })
}

fn field(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn of_request(of: &str, names: &[&str]) -> PlannedValue {
    from(SourceKind::Request { of: format!("one.{of}"), field: field(names) })
}

fn of_response(of: &str, names: &[&str]) -> PlannedValue {
    from(SourceKind::Response { of: format!("one.{of}"), field: field(names) })
}

/// A user with a policy, who then writes a secret with the token of a login.
fn requests() -> Vec<PlannedRequest> {
    let policy = r#"path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }"#;
    vec![
        update("policy", "sys/policies/acl/all", &[("policy", text(policy))]),
        update("userpass", "sys/auth/userpass", &[("type", text("userpass"))]),
        update("kv", "sys/mounts/kv", &[("type", text("kv"))]),
        update(
            "user",
            "auth/userpass/users/bob",
            &[("password", env("PASSWORD")), ("token_policies", PlannedValue::List(vec![text("all")]))],
        ),
        update("login", "auth/userpass/login/bob", &[("password", of_request("user", &["data", "password"]))]),
        PlannedRequest {
            token: Some(of_response("login", &["auth", "client_token"])),
            ..update("secret", "kv/a", &[("content", from(SourceKind::File { path: "/file".to_owned() }))])
        },
    ]
}

fn plan(requests: Vec<PlannedRequest>) -> SelfInitPlan {
    let sources = Fixed(BTreeMap::from([("PASSWORD", "from-env"), ("/file", "from \"file\"\n")]));
    SelfInitPlan::new(requests, None, Arc::new(sources)).unwrap()
}

/// The requests with one that fails before the last.
fn failing() -> Vec<PlannedRequest> {
    let mut requests = requests();
    requests.insert(5, update("bad", "sys/mounts/kv", &[("type", text("kv"))]));
    requests
}

async fn assert_configured(server: &Server) {
    assert!(!server.has_root_token().await);
    let token = server.login().await;
    let (status, secret) = server.send("GET", "kv/a", &token, None).await;
    assert_eq!((status, &secret["data"]), (200, &json!({ "content": "from \"file\"\n" })));
    let state = server.state().await;
    assert!(!state.is_unfinished() && state.tokens.is_empty());
    let unsealed = server.node.lifecycle.unsealed().unwrap();
    let view = unsealed.barrier.view(SYSTEM_STORAGE);
    let kept = unsealed.barrier.begin_read().list(&view, SELF_INIT_RESPONSES, &Page::all()).await.unwrap();
    assert_eq!(kept, Vec::<String>::new(), "no response is left");
}

#[tokio::test]
async fn self_init_leaves_no_root_token() {
    let seal = TestSeal::new();
    let server = Server::on(Arc::<MemoryBackend>::default(), &seal, plan(requests()));
    let (status, refused) = server.send("POST", "sys/init", "", Some(json!({}))).await;
    assert_eq!((status, &refused["errors"][0]), (503, &json!("self-initialization is in progress")));
    assert_eq!(server.attempt().await.unwrap(), Attempt::Finished);
    assert_configured(&server).await;
    assert_eq!(server.attempt().await.unwrap(), Attempt::Idle);
    let (status, _) = server.send("POST", "sys/init", "", Some(json!({}))).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn self_init_resumes_after_a_kill_at_every_commit() {
    for commits in 0.. {
        let (seal, memory) = (TestSeal::new(), Arc::<MemoryBackend>::default());
        let limited = Limited::on(&memory, commits);
        let killed = Server::on(limited, &seal, plan(requests()));
        let is_done = matches!(killed.attempt().await, Ok(Attempt::Finished));
        let is_initialized = killed.node.is_initialized().await.unwrap();
        drop(killed);
        let server = Server::on(memory, &seal, plan(requests()));
        let server = if is_initialized { server.unsealed().await } else { server };
        assert_eq!(is_initialized, commits > 0);
        if !is_done {
            if is_initialized {
                let (status, refused) = server.send("GET", "sys/mounts", "x", None).await;
                assert_eq!((status, &refused["errors"][0]), (503, &json!("self-initialization is in progress")));
            }
            assert_eq!(server.attempt().await.unwrap(), Attempt::Finished, "killed after {commits} commits");
        }
        assert_configured(&server).await;
        if is_done {
            assert!(commits > requests().len(), "each request has a commit");
            return;
        }
    }
}

#[tokio::test]
async fn a_failed_request_stops_and_corrected_stanzas_go_on() {
    let (seal, memory) = (TestSeal::new(), Arc::<MemoryBackend>::default());
    let server = Server::on(memory.clone(), &seal, plan(failing()));
    assert_eq!(server.attempt().await.unwrap(), Attempt::Failed);
    let state = server.state().await;
    let failed = state.failed.unwrap();
    assert_eq!((failed.name.as_str(), failed.status, state.done.len()), ("one.bad", 400, 5));
    assert!(state.tokens.is_empty() && !server.has_root_token().await);
    let (status, _) = server.send("POST", "auth/userpass/login/bob", "", Some(json!({ "password": "from-env" }))).await;
    assert_eq!(status, 503, "nobody logs in before the end");
    let (status, health) = server.send("GET", "sys/health", "", None).await;
    assert_eq!((status, &health["self_initialization"], &health["sealed"]), (503, &json!("failed"), &json!(false)));
    // The same stanzas fail again, also in a new process, and the requests before are not sent again.
    assert_eq!(server.attempt().await.unwrap(), Attempt::Failed);
    drop(server);
    let server = Server::on(memory, &seal, plan(failing())).unsealed().await;
    assert_eq!(server.attempt().await.unwrap(), Attempt::Failed);
    server.node.reload(None, Some(Arc::new(plan(requests()))));
    assert_eq!(server.attempt().await.unwrap(), Attempt::Finished);
    assert_configured(&server).await;
}

#[tokio::test]
async fn corrected_stanzas_resume_after_a_kill_at_every_commit() {
    let corrected = || {
        let mut requests = failing();
        requests[5].path = text("sys/mounts/other");
        plan(requests)
    };
    for commits in 0.. {
        let (seal, memory) = (TestSeal::new(), Arc::<MemoryBackend>::default());
        assert_eq!(Server::on(memory.clone(), &seal, plan(failing())).attempt().await.unwrap(), Attempt::Failed);
        let limited = Limited::on(&memory, usize::MAX);
        let killed = Server::on(limited.clone(), &seal, corrected()).unsealed().await;
        limited.left.store(commits, Ordering::SeqCst);
        let is_done = matches!(killed.attempt().await, Ok(Attempt::Finished));
        drop(killed);
        let server = Server::on(memory, &seal, corrected()).unsealed().await;
        let expected = if is_done { Attempt::Idle } else { Attempt::Finished };
        assert_eq!(server.attempt().await.unwrap(), expected, "killed after {commits} commits");
        assert_configured(&server).await;
        if is_done {
            return;
        }
    }
}

#[tokio::test]
async fn a_node_lets_requests_through_when_another_one_has_finished() {
    let (seal, memory) = (TestSeal::new(), Arc::<MemoryBackend>::default());
    let standby = Server::on(memory.clone(), &seal, plan(failing()));
    assert_eq!(standby.attempt().await.unwrap(), Attempt::Failed);
    assert_eq!(standby.send("GET", "sys/mounts", "x", None).await.0, 503);
    let leader = Server::on(memory, &seal, plan(requests())).unsealed().await;
    assert_eq!(leader.attempt().await.unwrap(), Attempt::Finished);
    assert_configured(&standby).await;
    assert_eq!(standby.node.lifecycle.self_init.phase(), Phase::Off);
}

#[tokio::test]
async fn an_allowed_failure_does_not_stop_and_has_no_response() {
    let seal = TestSeal::new();
    let mut requests = failing();
    requests[5].allow_failure = Some(PlannedValue::Literal("true".to_owned().into()));
    let server = Server::on(Arc::<MemoryBackend>::default(), &seal, plan(requests));
    assert_eq!(server.attempt().await.unwrap(), Attempt::Finished);
    assert_configured(&server).await;
    let mut requests = failing();
    requests[5].allow_failure = Some(PlannedValue::Literal("true".to_owned().into()));
    requests.push(update("use", "kv/b", &[("x", of_response("bad", &["data"]))]));
    let server = Server::on(Arc::<MemoryBackend>::default(), &seal, plan(requests));
    assert_eq!(server.attempt().await.unwrap(), Attempt::Failed);
    assert_eq!(server.state().await.failed.unwrap().name, "one.use");
}

#[tokio::test]
async fn what_does_not_exist_is_read_without_failure() {
    let seal = TestSeal::new();
    let mut requests = requests();
    requests.push(request("read", "read", "kv/none"));
    requests.push(request("list", "list", "kv"));
    let server = Server::on(Arc::<MemoryBackend>::default(), &seal, plan(requests));
    assert_eq!(server.attempt().await.unwrap(), Attempt::Finished);
}

#[tokio::test]
async fn nothing_is_initialized_without_the_sources_or_a_seal() {
    let (seal, memory) = (TestSeal::new(), Arc::<MemoryBackend>::default());
    let mut requests = requests();
    requests.push(update("more", "kv/b", &[("x", env("MISSING"))]));
    let missing = plan(requests);
    assert_eq!(missing.missing(), ["one.more: the environment variable MISSING is not set"]);
    let server = Server::on(memory.clone(), &seal, missing);
    assert_eq!(server.attempt().await.unwrap(), Attempt::Failed);
    assert!(!server.node.is_initialized().await.unwrap());
    server.node.reload(None, Some(Arc::new(plan(super::tests::requests()))));
    seal.fails(SealErrorClass::Unreachable);
    assert_eq!(server.attempt().await.unwrap_err().status().0, 503);
    assert!(!server.node.is_initialized().await.unwrap());
    seal.set(Behaviour::Well);
    assert_eq!(server.attempt().await.unwrap(), Attempt::Finished);
}

#[tokio::test]
async fn later_stanzas_have_no_effect() {
    let (seal, memory) = (TestSeal::new(), Arc::<MemoryBackend>::default());
    let server = Server::on(memory.clone(), &seal, plan(requests()));
    server.attempt().await.unwrap();
    drop(server);
    let server = Server::on(memory.clone(), &seal, plan(failing())).unsealed().await;
    assert_eq!(server.attempt().await.unwrap(), Attempt::Idle);
    assert!(server.has_warned.load(Ordering::Relaxed));
    assert_configured(&server).await;
    drop(server);
    let same = Server::on(memory, &seal, plan(requests())).unsealed().await;
    assert_eq!(same.attempt().await.unwrap(), Attempt::Idle);
    assert!(!same.has_warned.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_server_without_stanzas_stays_as_it_is() {
    let seal = TestSeal::new();
    let server = Server::on(Arc::<MemoryBackend>::default(), &seal, SelfInitPlan::default());
    assert_eq!(server.attempt().await.unwrap(), Attempt::Idle);
    let (status, _) = server.send("POST", "sys/init", "", Some(json!({}))).await;
    assert_eq!(status, 200);
    assert_eq!(server.node.lifecycle.self_init.phase(), Phase::Off);
    server.node.reload(None, Some(Arc::new(plan(requests()))));
    assert_eq!(server.attempt().await.unwrap(), Attempt::Idle);
    assert!(server.has_warned.load(Ordering::Relaxed));
}

#[tokio::test]
async fn an_unfinished_server_without_stanzas_handles_no_requests() {
    let (seal, memory) = (TestSeal::new(), Arc::<MemoryBackend>::default());
    Server::on(memory.clone(), &seal, plan(failing())).attempt().await.unwrap();
    let server = Server::on(memory, &seal, SelfInitPlan::default()).unsealed().await;
    assert_eq!(server.attempt().await.unwrap(), Attempt::Failed);
    assert_eq!(server.send("GET", "sys/mounts", "x", None).await.0, 503);
    // Nor is the root token of an attempt left that was killed.
    let memory = Arc::<MemoryBackend>::default();
    let limited = Limited::on(&memory, 3);
    assert!(Server::on(limited, &seal, plan(requests())).attempt().await.is_err());
    let server = Server::on(memory, &seal, SelfInitPlan::default()).unsealed().await;
    assert!(server.has_root_token().await);
    assert_eq!(server.attempt().await.unwrap(), Attempt::Failed);
    assert!(!server.has_root_token().await && server.state().await.tokens.is_empty());
}

/// The file of the recovery keys in memory.
#[derive(Default)]
struct Output {
    written: Mutex<Vec<Vec<SecretBytes>>>,
    published: Mutex<Vec<String>>,
    /// Whether the file does not get its name.
    fails: AtomicBool,
}

impl RecoveryOutput for Output {
    fn path(&self) -> &Path {
        Path::new("/keys")
    }

    fn check(&self, _: u8) -> Result<(), String> {
        Ok(())
    }

    fn write(&self, keys: &[SecretBytes], _: u8) -> Result<String, String> {
        let mut written = self.written.lock();
        written.push(keys.to_vec());
        Ok(format!("attempt {}", written.len()))
    }

    fn publish(&self, digest: &str) -> Result<bool, String> {
        if self.fails.load(Ordering::SeqCst) {
            return Err("the directory is not writable".to_owned());
        }
        self.published.lock().push(digest.to_owned());
        Ok(true)
    }
}

/// The stanzas with recovery keys.
fn with_recovery(output: &Arc<Output>) -> SelfInitPlan {
    let sources = Fixed(BTreeMap::from([("PASSWORD", "from-env"), ("/file", "x")]));
    let recovery = Recovery::new(3, 2, output.clone()).unwrap();
    SelfInitPlan::new(requests(), Some(recovery), Arc::new(sources)).unwrap()
}

#[tokio::test]
async fn recovery_keys_are_written_before_they_count() {
    let (seal, memory, output) = (TestSeal::new(), Arc::<MemoryBackend>::default(), Arc::<Output>::default());
    let with_recovery = || with_recovery(&output);
    // The first commit fails: its keys never count.
    let limited = Limited::on(&memory, 0);
    assert!(Server::on(limited, &seal, with_recovery()).attempt().await.is_err());
    assert_eq!((output.written.lock().len(), output.published.lock().len()), (1, 0));
    // The process is killed after the first commit, so that the file has not its name.
    let limited = Limited::on(&memory, 1);
    assert!(Server::on(limited, &seal, with_recovery()).attempt().await.is_err());
    output.published.lock().clear();
    let server = Server::on(memory, &seal, with_recovery()).unsealed().await;
    assert_eq!(server.attempt().await.unwrap(), Attempt::Finished);
    assert_eq!(*output.published.lock(), ["attempt 2"]);
    let (_, status) = server.send("GET", "sys/seal-status", "", None).await;
    assert_eq!((&status["n"], &status["t"]), (&json!(3), &json!(2)));
    let keys = output.written.lock()[1].clone();
    let config = server.node.lifecycle.parts.seal_config().await.unwrap().unwrap();
    assert!(config.quorum(&keys[..2]).is_some() && config.quorum(&output.written.lock()[0][..2]).is_none());
}

#[test]
fn requests_that_are_done_are_evaluated_only_when_others_refer_to_them() {
    let plan = plan(requests());
    let done = |names: &[&str]| names.iter().map(|name| format!("one.{name}")).collect::<BTreeSet<_>>();
    assert_eq!(plan.needed(&BTreeSet::new()).len(), 6);
    let needed = plan.needed(&done(&["policy", "userpass", "kv", "user"]));
    assert_eq!(needed, BTreeSet::from(["one.user", "one.login", "one.secret"]));
    let needed = plan.needed(&done(&["policy", "userpass", "kv", "user", "login"]));
    assert_eq!(needed, BTreeSet::from(["one.secret"]), "the response is kept");
    assert!(plan.keeps_response("one.login") && !plan.keeps_response("one.user"));
}

#[test]
fn what_was_revoked_with_the_root_token_is_sent_again_when_it_is_needed() {
    let plan = plan(requests());
    let done = |names: &[&str]| names.iter().map(|name| format!("one.{name}")).collect::<BTreeSet<_>>();
    let all = ["policy", "userpass", "kv", "user", "login", "secret"];
    let mut left = done(&all[..5]);
    assert_eq!(plan.undo(&mut left, |name| name == "one.login" || name == "one.user"), done(&["login"]));
    assert_eq!(left, done(&all[..4]));
    // Also after another kill before it was sent again.
    assert_eq!(plan.undo(&mut left, |name| name == "one.login"), done(&["login"]));
    assert!(plan.undo(&mut done(&all), |_| true).is_empty(), "no request refers to it any more");
    assert!(plan.undo(&mut done(&all[..5]), |_| false).is_empty());
}

#[test]
fn a_pipe_is_read_once_in_all_attempts() {
    let with = |content: Option<&'static str>| {
        let request = update("a", "kv/a", &[("x", from(SourceKind::File { path: "/pipe".to_owned() }))]);
        let sources = Fixed(content.map(|content| ("/pipe", content)).into_iter().collect());
        SelfInitPlan::new(vec![request], None, Arc::new(sources)).unwrap()
    };
    let (needed, mut once) = (BTreeSet::from(["one.a"]), BTreeMap::new());
    assert!(with(None).read_sources(&needed, &mut once).is_err() && once.is_empty());
    for plan in [with(Some("value")), with(None)] {
        let values = plan.read_sources(&needed, &mut once).unwrap();
        assert_eq!(values.file("/pipe"), Some("value"));
    }
}

#[test]
fn every_part_of_the_stanzas_changes_the_digest() {
    let digest = plan(requests()).digest();
    assert_eq!(plan(requests()).digest(), digest);
    let changes: [fn(&mut Vec<PlannedRequest>); 7] = [
        |requests| drop(requests.pop()),
        |requests| requests.swap(0, 1),
        |requests| requests[0].name = "one.other".to_owned(),
        |requests| requests[0].path = text("sys/policies/acl/other"),
        |requests| requests[0].operation = text("create"),
        |requests| requests[0].allow_failure = Some(PlannedValue::Literal("true".to_owned().into())),
        |requests| requests[0].token = Some(env("TOKEN")),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut requests = requests();
        change(&mut requests);
        assert_ne!(plan(requests).digest(), digest, "change {at}");
    }
}

#[test]
fn references_are_to_earlier_requests_and_names_are_unique() {
    let sources = || Arc::new(Fixed::default());
    let mut forward = requests();
    forward.swap(3, 4);
    let error = SelfInitPlan::new(forward, None, sources()).err().unwrap();
    assert_eq!((error.request, error.reason.as_str()), (3, "one.user is not an earlier request"));
    let itself = vec![update("a", "kv/a", &[("x", of_request("a", &["path"]))])];
    assert!(SelfInitPlan::new(itself, None, sources()).is_err());
    let twice = vec![request("a", "read", "x"), request("a", "read", "y")];
    assert_eq!(SelfInitPlan::new(twice, None, sources()).err().unwrap().reason, "two requests are named one.a");
    let many = (0..=super::plan::MAX_REQUESTS).map(|at| request(&format!("r{at}"), "read", "x")).collect();
    assert!(SelfInitPlan::new(many, None, sources()).err().unwrap().reason.contains("more than 1000"));
}
