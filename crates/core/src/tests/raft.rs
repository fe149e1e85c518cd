//! `sys/storage/raft/`: the members of a cluster, and a node that joins it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keepfast_crypto::random;
use keepfast_framework::{Clock as _, Incoming, Result as Outcome};
use keepfast_storage::{
    Change, ClusterStatus, Consensus as _, Index, Member, PeerStatus, RaftId, SnapshotParts, StorageError, Transport,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::Node;
use crate::cluster::fake::{FakeConsensus, member, status};
use crate::cluster::join::client::{JoinClient, JoinError, JoinStep, JoinTarget};
use crate::cluster::join::exchange::{Challenge, JOINING, Proof, Welcome, WelcomeDetails};
use crate::cluster::port::{ClusterPort, ComingRoot, ForwardedResponse, NotForwarded, PeerService, PortIdentity};
use crate::seal::slots::Change as SealChange;
use crate::tests::fixture::{ROOT, RequestOptions, TestResponse, TestServer, incoming};
use crate::tests::gate::Gated;

pub(super) const RAFT: &str = "sys/storage/raft";

/// A leader of a cluster with this state.
pub(super) async fn leader(status: ClusterStatus) -> (TestServer, Arc<FakeConsensus>) {
    let consensus = FakeConsensus::new(status);
    let server = TestServer::on(Gated::in_cluster(consensus.clone()), |_, _| {}, keepfast_engines::all()).await;
    (server, consensus)
}

/// Calls the leader in the same process, and changes responses as the test wants it.
#[derive(Default)]
pub(super) struct Calls {
    pub(super) leader: Mutex<Option<Arc<Node>>>,
    /// The leader that is down until the test sets it.
    pub(super) other: Mutex<Option<Arc<Node>>>,
    pub(super) sent: Mutex<Vec<(JoinStep, Vec<u8>)>>,
    forge: Mutex<Option<Forge>>,
    /// The number of calls that get no response.
    pub(super) fails: AtomicUsize,
}

/// Replaces the response to a request.
type Forge = Box<dyn Fn(JoinStep, &[u8], Bytes) -> Bytes + Send>;

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calls")
    }
}

#[async_trait]
impl JoinClient for Calls {
    async fn send(&self, to: &JoinTarget, step: JoinStep, body: Vec<u8>) -> Result<Bytes, JoinError> {
        let node = match to.api_addr.as_str() {
            "http://leader" => self.leader.lock().clone(),
            "http://down" => self.other.lock().clone(),
            _ => None,
        };
        let Some(node) = node.filter(|_| self.fails.load(Ordering::Relaxed) == 0) else {
            let _ = self.fails.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            return Err(JoinError::Call("no response".to_owned()));
        };
        self.sent.lock().push((step, body.clone()));
        let text = String::from_utf8(body.clone()).unwrap();
        let send = RequestOptions { body: Some(text), ..RequestOptions::default() };
        let response = node.handle(incoming("POST", step.path(), send)).await;
        let (status, bytes) = (response.status().0, response.into_body());
        if status != 200 {
            return Err(JoinError::Refused { status, text: String::from_utf8_lossy(&bytes).into_owned() });
        }
        Ok(self.forge.lock().as_ref().map_or(bytes.clone(), |forge| forge(step, &body, bytes)))
    }
}

/// A cluster port that only notes its identity.
#[derive(Debug, Default)]
pub(super) struct Port {
    /// The cluster and the number of authorities of each identity.
    opened: Mutex<Vec<(String, Vec<[u8; 32]>)>>,
    pub(super) closed: AtomicUsize,
}

struct Nowhere;

#[async_trait]
impl Transport for Nowhere {
    fn send(&self, _: &Member, _: Bytes) {}
    async fn send_snapshot(&self, _: &Member, _: Bytes, _: Box<dyn SnapshotParts>) -> Result<(), StorageError> {
        Err(StorageError::NoLeader)
    }
    async fn propose(&self, _: &Member, _: Bytes) -> Result<Index, StorageError> {
        Err(StorageError::NoLeader)
    }
    async fn read_index(&self, _: &Member) -> Result<Index, StorageError> {
        Err(StorageError::NoLeader)
    }
}

#[async_trait]
impl ClusterPort for Port {
    async fn open(&self, identity: PortIdentity, _: Arc<dyn PeerService>) -> Outcome<Arc<dyn Transport>> {
        let authorities = identity.authorities.iter().map(|key| *key.expose()).collect();
        self.opened.lock().push((identity.cluster_id, authorities));
        Ok(Arc::new(Nowhere))
    }
    async fn close(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
    async fn forward(&self, _: &Member, request: Box<Incoming>) -> Result<ForwardedResponse, NotForwarded> {
        Err(NotForwarded::Elsewhere(request))
    }
    async fn announce_root(&self, _: &Member, _: &ComingRoot) -> bool {
        false
    }
    fn members_changed(&self) {}
}

/// A leader, and a node that joins it.
pub(super) struct Pair {
    pub(super) leader: TestServer,
    pub(super) cluster: Arc<FakeConsensus>,
    pub(super) node: TestServer,
    pub(super) consensus: Arc<FakeConsensus>,
    pub(super) calls: Arc<Calls>,
    pub(super) port: Arc<Port>,
}

impl Pair {
    pub(super) async fn new() -> Self {
        let (leader, cluster) = leader(status(&[1])).await;
        let alone = ClusterStatus { id: None, is_leading: false, leader: None, ..status(&[2]) };
        let consensus = FakeConsensus::new(ClusterStatus { is_running: false, ..alone });
        let (calls, port) = (Arc::<Calls>::default(), Arc::<Port>::default());
        *calls.leader.lock() = Some(leader.node.clone());
        let settings = (calls.clone(), port.clone());
        let node = TestServer::uninitialized_on(Gated::in_cluster(consensus.clone()), leader.clock.clone(), |s| {
            s.cluster_addr = "https://n2:8201".to_owned();
            s.join.client = Some(settings.0);
            s.join.retry = ["http://down", "http://leader"]
                .map(|address| JoinTarget { api_addr: address.to_owned(), ..JoinTarget::default() })
                .to_vec();
            s.cluster_port = Some(settings.1);
        });
        Pair { leader, cluster, node, consensus, calls, port }
    }

    /// A node that has joined.
    pub(super) async fn joined() -> Self {
        let pair = Self::new().await;
        pair.will_receive();
        pair.join().await;
        pair.unseal().await.ok();
        pair
    }

    /// Sends the answer again with which the node has joined.
    pub(super) async fn answer_again(&self) -> TestResponse {
        let sent = self.calls.sent.lock().iter().rfind(|(step, _)| *step == JoinStep::Answer).unwrap().1.clone();
        self.leader.post(&format!("{RAFT}/bootstrap/answer"), "", serde_json::from_slice(&sent).unwrap()).await
    }

    /// Removes the node.
    pub(super) async fn remove(&self) -> TestResponse {
        self.leader.post(&format!("{RAFT}/remove-peer"), ROOT, json!({ "server_id": "n2" })).await
    }

    /// The snapshot of the leader arrives once the node has started.
    pub(super) fn will_receive(&self) {
        let (from, to) = (self.leader.backend.clone(), self.node.backend.clone());
        let consensus = self.consensus.clone();
        *self.consensus.on_start.lock() = Some(Box::new(move || {
            to.memory().replace_with(from.memory());
            consensus.status.lock().is_joining = false;
        }));
    }

    pub(super) async fn join(&self) -> Value {
        self.node.post(&format!("{RAFT}/join"), "", json!({ "leader_api_addr": "http://leader" })).await.is(200).body
    }

    /// Submits shares; returns the last response.
    pub(super) async fn unseal(&self) -> TestResponse {
        let mut last = None;
        for share in &self.leader.shares {
            last = Some(self.node.post("sys/unseal", "", json!({ "key": hex::encode(share.expose()) })).await);
        }
        last.unwrap()
    }
}

#[tokio::test]
async fn a_node_joins_with_the_shares_of_the_cluster() {
    let pair = Pair::new().await;
    pair.will_receive();
    let before = pair.node.get("sys/seal-status", "").await.ok().body;
    assert_eq!((&before["initialized"], &before["t"]), (&json!(false), &json!(0)));
    assert_eq!(pair.join().await, json!({ "joined": true }));
    let joined = pair.node.get("sys/seal-status", "").await.ok().body;
    assert_eq!((&joined["initialized"], &joined["sealed"], &joined["t"]), (&json!(true), &json!(true), &json!(1)));
    pair.node.get("sys/health", "").await.is(503);
    assert_eq!(pair.node.get("sys/init", "").await.ok().body, json!({ "initialized": true }));
    let init = json!({ "secret_shares": 1, "secret_threshold": 1 });
    assert_eq!(pair.node.post("sys/init", "", init).await.is(400).error(), "Vault is already initialized");

    let unsealed = pair.unseal().await.ok().body;
    assert_eq!(unsealed["sealed"], json!(false), "{unsealed}");
    let own = pair.cluster.status().members[1].clone();
    assert_eq!((own.node.as_str(), own.incarnation, own.voter, own.wants_vote), ("n2", [2; 16], false, true));
    let expected = pair.consensus.joined.lock().clone().unwrap();
    assert_eq!(expected.members, pair.cluster.status().members);
    let authority = pair.leader.unsealed().barrier.derive(1, "certificate authority of the cluster port").unwrap();
    // Once to receive the records, and again by the unsealed server.
    let identity = (expected.cluster_id, vec![*authority.expose()]);
    assert_eq!(*pair.port.opened.lock(), [identity.clone(), identity]);
    pair.node.get("sys/mounts", ROOT).await.ok();
    // A joined node is initialized: joining again does nothing.
    assert_eq!(pair.join().await, json!({ "joined": true }));
    assert_eq!(pair.calls.sent.lock().len(), 3);
}

#[tokio::test]
async fn wrong_shares_join_nothing_and_can_be_repeated() {
    let pair = Pair::new().await;
    pair.will_receive();
    pair.join().await;
    let wrong = pair.node.post("sys/unseal", "", json!({ "key": "07".repeat(32) })).await.is(400);
    assert_eq!(wrong.error(), "Unsealing failed, invalid key");
    assert!(pair.consensus.joined.lock().is_none() && pair.cluster.status().members.len() == 1);
    assert_eq!(pair.calls.sent.lock().len(), 1, "no answer was sent");
    assert_eq!(pair.unseal().await.ok().body["sealed"], json!(false));
}

#[tokio::test]
async fn a_leader_without_the_root_key_is_not_joined_and_gets_no_share() {
    let pair = Pair::new().await;
    pair.join().await;
    // It relays the true seal, and answers under a root key of its own.
    let forge: Forge = Box::new(|step, body, true_response| {
        if step == JoinStep::Challenge {
            return true_response;
        }
        let body: Value = serde_json::from_slice(body).unwrap();
        let challenge = STANDARD.decode(body["challenge"].as_str().unwrap()).unwrap();
        let proof = Proof::new(random::key(), b"seal", b"request", &challenge);
        let details = WelcomeDetails::new("cluster".to_owned(), 1, vec![member(1), member(2)]);
        let welcome = proof.seal(&Welcome { authority: random::key(), details }).unwrap();
        json!({ "data": { "welcome": STANDARD.encode(welcome) } }).to_string().into()
    });
    *pair.calls.forge.lock() = Some(forge);
    let refused = pair.unseal().await.is(500);
    assert!(refused.error().contains("did not prove that it has the root key"), "{}", refused.error());
    assert!(pair.consensus.joined.lock().is_none() && pair.port.opened.lock().is_empty());
    let share = pair.leader.shares[0].expose();
    let spellings = [hex::encode(share), STANDARD.encode(share)];
    for (_, body) in pair.calls.sent.lock().iter() {
        let text = String::from_utf8_lossy(body);
        assert!(spellings.iter().all(|share| !text.contains(share)), "{text}");
    }
    // The node can still join the true leader.
    *pair.calls.forge.lock() = None;
    pair.will_receive();
    assert_eq!(pair.unseal().await.ok().body["sealed"], json!(false));
}

#[tokio::test]
async fn a_leader_with_another_seal_than_at_first_gets_no_answer() {
    let pair = Pair::new().await;
    pair.join().await;
    let unsealed = pair.leader.unsealed();
    unsealed.current_seal.change(&unsealed.barrier, SealChange::NewRoot(random::key())).await.unwrap();
    let refused = pair.unseal().await.is(409);
    assert_eq!(refused.error(), "the seal of the cluster has changed; submit the shares again");
    pair.will_receive();
    assert_eq!(pair.unseal().await.ok().body["sealed"], json!(false));
}

#[tokio::test]
async fn an_answer_can_be_repeated_for_a_minute_and_changes_nothing() {
    let pair = Pair::joined().await;
    // The response opens only with the root key, and the node is a member already.
    pair.answer_again().await.is(200);
    pair.leader.post(&format!("{RAFT}/demote"), ROOT, json!({ "server_id": "n2" })).await.is(204);
    pair.answer_again().await.is(200);
    let members = pair.cluster.status().members;
    assert_eq!((members.len(), members[1].wants_vote), (2, false), "the demotion stays");
    pair.leader.clock.advance(Duration::from_secs(61));
    assert_eq!(pair.answer_again().await.is(400).error(), "invalid answer given");
}

#[tokio::test]
async fn sec_cs08_a_removed_node_does_not_come_back_by_an_old_answer() {
    let pair = Pair::joined().await;
    pair.remove().await.is(204);
    assert_eq!(pair.leader.unsealed().barrier.key_status().unwrap().term, 2, "the keyring is rotated");
    let refused = pair.answer_again().await.is(409);
    assert!(refused.error().contains("was removed from the cluster"));
    assert_eq!(pair.cluster.status().members.len(), 1);
}

/// A challenge contains what the leader needs for the answer: it responds though it can store nothing.
#[tokio::test]
async fn sec_ds01_challenges_leave_nothing_at_the_leader() {
    let pair = Pair::new().await;
    pair.join().await;
    let sent = pair.calls.sent.lock()[0].1.clone();
    pair.leader.backend.refuse(|_| Some(StorageError::Closed));
    for number in 0..200 {
        let mut body: Value = serde_json::from_slice(&sent).unwrap();
        body["server_id"] = json!(format!("n{number}"));
        pair.leader.post(&format!("{RAFT}/bootstrap/challenge"), "", body).await.ok();
    }
    assert_eq!(pair.cluster.status().members.len(), 1);
    let state = pair.leader.node.lifecycle.administration.joining.seal_config();
    assert!(state.is_none(), "only the node that joins keeps the seal of the cluster");
}

#[tokio::test]
async fn challenges_and_answers_are_refused_with_openbaos_texts() {
    let (server, _) = leader(status(&[1])).await;
    let refused = async |step: &str, body: Value| {
        let response = server.post(&format!("{RAFT}/bootstrap/{step}"), "", body).await;
        (response.status, response.error().to_owned())
    };
    let is = |text: &str| (400, text.to_owned());
    assert_eq!(refused("challenge", json!({})).await, is("no server id provided"));
    let foreign = "no request provided: only nodes of Keepfast can join this cluster";
    assert_eq!(refused("challenge", json!({ "server_id": "x" })).await, is(foreign));
    let long = json!({ "server_id": "x", "request": STANDARD.encode([b' '; 3073]) });
    assert_eq!(refused("challenge", long).await, is(foreign));
    let other = json!({ "server_id": "x", "request": "e30=" });
    assert_eq!(refused("challenge", other).await, is("the request is not one of a node of Keepfast"));
    assert_eq!(refused("answer", json!({})).await, is("no server_id provided"));
    assert_eq!(refused("answer", json!({ "server_id": "x" })).await, is("no answer provided"));
    let no_base64 = json!({ "server_id": "x", "answer": "?!" });
    assert_eq!(refused("answer", no_base64).await, is("could not base64 decode answer"));
    for challenge in ["", "AAAA", "AQAAAAAA", "?"] {
        let body = json!({ "server_id": "x", "answer": STANDARD.encode([0; 32]), "challenge": challenge });
        assert_eq!(refused("answer", body).await, is("invalid answer given"));
    }
    // A challenge that the leader has made, with an answer under another root key.
    let barrier = &server.unsealed().barrier;
    let key = barrier.derive(1, "keepfast join challenge 1").unwrap();
    let challenge = Challenge::seal(&key, 1, b"{}", server.clock.now().unix());
    let answer = Proof::new(barrier.derive(1, JOINING).unwrap(), b"seal", b"{}", &challenge).answer();
    let body = json!({ "server_id": "x", "answer": STANDARD.encode(answer), "challenge": STANDARD.encode(&challenge) });
    assert_eq!(refused("answer", body).await, is("invalid answer given"));
}

#[tokio::test]
async fn a_join_reports_what_openbao_reports() {
    let pair = Pair::new().await;
    let join = async |body: Value| {
        let response = pair.node.post(&format!("{RAFT}/join"), "", body).await;
        (response.status, response.error().to_owned(), response.body["joined"].clone())
    };
    let failed = (500, "failed to join raft cluster: failed to get raft challenge".to_owned(), Value::Null);
    assert_eq!(join(json!({})).await, failed);
    assert_eq!(join(json!({ "leader_api_addr": "http://elsewhere" })).await, failed);
    let half = json!({ "leader_api_addr": "http://leader", "leader_client_cert": "x" });
    assert_eq!(join(half).await, (400, "invalid certificate parameters".to_owned(), Value::Null));
    let cloud = join(json!({ "auto_join": "provider=aws" })).await;
    assert_eq!(cloud.1, "auto_join is not supported by this server: set leader_api_addr");
    let retried = join(json!({ "leader_api_addr": "http://elsewhere", "retry": true })).await;
    assert_eq!(retried, (200, String::new(), json!(false)));
    let plain = TestServer::new().await;
    let refused = plain.post(&format!("{RAFT}/join"), "", json!({})).await.is(500);
    assert_eq!(refused.error(), "raft backend not in use");
}

#[tokio::test]
async fn the_leaders_of_the_configuration_are_tried_until_one_responds() {
    let pair = Pair::new().await;
    pair.calls.fails.store(5, Ordering::Relaxed);
    pair.node.node.start();
    pair.node.node.start();
    while !pair.node.node.is_initialized().await.unwrap() {
        pair.node.clock.advance(Duration::from_secs(15));
        tokio::task::yield_now().await;
    }
    pair.will_receive();
    assert_eq!(pair.unseal().await.ok().body["sealed"], json!(false));
}

#[tokio::test]
async fn a_node_whose_records_do_not_arrive_leaves_the_network_again() {
    let pair = Pair::new().await;
    pair.join().await;
    let consensus = pair.consensus.clone();
    *pair.consensus.on_start.lock() = Some(Box::new(move || consensus.status.lock().last_contact = None));
    let clock = pair.node.clock.clone();
    let passing = tokio::spawn(async move {
        loop {
            clock.advance(Duration::from_secs(30));
            tokio::task::yield_now().await;
        }
    });
    // The response waits for the records for ten seconds, and the node for two minutes.
    assert_eq!(pair.unseal().await.ok().body["sealed"], json!(true));
    while pair.port.closed.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    passing.abort();
    assert!(!pair.consensus.status().is_running && pair.node.node.lifecycle.is_sealed());
    // Another attempt finds the directory prepared.
    pair.will_receive();
    assert_eq!(pair.unseal().await.ok().body["sealed"], json!(false));
}

/// The status of a leader and two voters in contact.
pub(super) fn three() -> ClusterStatus {
    let peer = |n| PeerStatus { id: RaftId(n), matched: 100, last_contact: Some(Duration::from_millis(1500)) };
    ClusterStatus { peers: vec![peer(2), peer(3)], ..status(&[1, 2, 3]) }
}

#[tokio::test]
async fn autopilot_promotes_and_its_state_is_shown() {
    let mut learner = three();
    learner.members[2].voter = false;
    learner.peers[1].matched = 0;
    let (server, consensus) = leader(ClusterStatus { last: 2000, ..learner }).await;
    let state = async || server.get(&format!("{RAFT}/autopilot/state"), ROOT).await.ok().data().clone();
    let advance = async || {
        crate::cluster::autopilot_task::advance(&server.node.lifecycle).await.unwrap();
        server.clock.advance(Duration::from_secs(10));
    };
    advance().await;
    let shown = state().await;
    assert_eq!((&shown["healthy"], &shown["leader"]), (&json!(false), &json!("n1")));
    assert_eq!((&shown["voters"], &shown["non_voters"]), (&json!(["n1", "n2"]), &json!(["n3"])));
    assert_eq!(shown["failure_tolerance"], json!(0));
    let third = &shown["servers"]["n3"];
    let expected = json!({
        "id": "n3", "name": "n3", "address": "n3:8201", "node_status": "alive", "last_contact": "1.5s", "last_term": 3,
        "last_index": 0, "healthy": false, "stable_since": "0001-01-01T00:00:00Z", "status": "non-voter",
        "version": "1.2.3", "node_type": "voter"
    });
    assert_eq!(third, &expected);
    let first = &shown["servers"]["n1"];
    assert_eq!((&first["status"], &first["last_contact"]), (&json!("leader"), &json!("0s")));
    assert_ne!(first["stable_since"], json!("0001-01-01T00:00:00Z"));
    consensus.status.lock().peers[1].matched = 1500;
    advance().await;
    assert!(!consensus.status().members[2].voter);
    advance().await;
    assert!(consensus.status().members[2].voter);
    assert_eq!(state().await["failure_tolerance"], json!(0));
    consensus.status.lock().peers[0].matched = 2000;
    assert_eq!(state().await["failure_tolerance"], json!(1));
}

#[tokio::test]
async fn the_configuration_of_autopilot_is_stored() {
    let (server, _) = leader(status(&[1])).await;
    let path = format!("{RAFT}/autopilot/configuration");
    let defaults = json!({
        "cleanup_dead_servers": false, "dead_server_last_contact_threshold": "24h0m0s", "last_contact_threshold": "10s",
        "max_trailing_logs": 1000, "min_quorum": 0, "server_stabilization_time": "10s"
    });
    assert_eq!(server.get(&path, ROOT).await.ok().data(), &defaults);
    server.post(&path, ROOT, json!({ "min_quorum": 3, "server_stabilization_time": "15s" })).await.is(204);
    let stored = server.get(&path, ROOT).await.ok();
    assert_eq!((&stored.data()["min_quorum"], &stored.data()["server_stabilization_time"]), (&json!(3), &json!("15s")));
    server.delete(&path, ROOT).await.is(405);
    let negative = server.post(&path, ROOT, json!({ "last_contact_threshold": "-1s" })).await.is(400);
    assert!(negative.error().contains("cannot provide negative value '-1'"), "{}", negative.error());
}

#[tokio::test]
async fn a_storage_without_a_cluster_has_no_members() {
    let server = TestServer::new().await;
    let (framed, plain) = ("1 error occurred:\n\t* unsupported path\n\n", "unsupported path");
    for (method, path, text) in [
        ("GET", "configuration", framed),
        ("POST", "remove-peer", framed),
        ("POST", "promote", framed),
        ("POST", "demote", framed),
        ("GET", "autopilot/configuration", framed),
        ("POST", "autopilot/configuration", framed),
        ("GET", "autopilot/state", framed),
        ("GET", "snapshot", framed),
        ("POST", "snapshot", framed),
        ("POST", "snapshot-force", framed),
        ("POST", "bootstrap/challenge", plain),
        ("POST", "bootstrap/answer", plain),
    ] {
        let body = if method == "GET" { Value::Null } else { json!({}) };
        let refused = server.call(method, &format!("{RAFT}/{path}"), ROOT, body).await.is(404);
        assert_eq!(refused.error(), text, "{method} {path}");
    }
}

#[tokio::test]
async fn a_change_of_a_standby_is_refused() {
    let (server, consensus) = leader(three()).await;
    consensus.status.lock().is_leading = false;
    assert!(matches!(consensus.change(Change::Remove("n2".to_owned())).await, Err(StorageError::NotLeader)));
    server.post(&format!("{RAFT}/demote"), ROOT, json!({ "server_id": "n2" })).await.is(503);
}

/// Sends a body that is no JSON.
pub(super) async fn upload(server: &TestServer, path: &str, file: &[u8]) -> (u16, String) {
    let send = RequestOptions { token: Some(ROOT.to_owned()), ..RequestOptions::default() };
    let mut request = incoming("POST", path, send);
    request.input.body = keepfast_framework::Body::of_bytes(Bytes::copy_from_slice(file));
    let response = server.node.handle(request).await;
    (response.status().0, String::from_utf8_lossy(&response.into_body()).into_owned())
}

#[tokio::test]
async fn sec_rl15_a_snapshot_is_restored_by_the_keyring_that_sealed_it() {
    let (server, consensus) = leader(status(&[1])).await;
    *consensus.parts.lock() = vec![Bytes::from(vec![1; 1000]), Bytes::from_static(b"last")];
    let saved = server.node.handle(incoming(
        "GET",
        &format!("{RAFT}/snapshot"),
        RequestOptions { token: Some(ROOT.to_owned()), ..RequestOptions::default() },
    ));
    let saved = saved.await;
    assert_eq!((saved.status().0, &**saved.content_type()), (200, "application/gzip"));
    let file = saved.into_body();
    let (snapshot, force) = (format!("{RAFT}/snapshot"), format!("{RAFT}/snapshot-force"));
    assert_eq!(upload(&server, &snapshot, &file).await, (204, String::new()));
    assert_eq!(*consensus.restored.lock(), *consensus.parts.lock());
    consensus.restored.lock().clear();

    let other = leader(status(&[1])).await;
    let refused = upload(&other.0, &snapshot, &file).await;
    assert!(refused.0 == 400 && refused.1.contains("possibly the snapshot is using a different set of unseal keys"));
    assert!(other.1.restored.lock().is_empty());
    assert_eq!(upload(&other.0, &force, &file).await.0, 204);
    assert_eq!(other.1.restored.lock().len(), 2);

    let mut damaged = file.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for (bytes, path) in
        [(&damaged[..], &force), (&file[..middle], &force), (&b""[..], &snapshot), (b"text", &snapshot)]
    {
        let refused = upload(&server, path, bytes).await;
        assert!(refused.0 == 400 && consensus.restored.lock().is_empty(), "{refused:?}");
    }
    let log = server.audit("audit");
    assert!(log.contains("sys/storage/raft/snapshot") && !log.contains("KFSNAP"));
}

#[test]
fn the_bodies_of_snapshots_are_bytes_and_no_json() {
    for (path, is_raw) in
        [("snapshot", true), ("snapshot-force", true), ("configuration", false), ("snapshot/x", false)]
    {
        assert_eq!(crate::takes_raw_body(&format!("{RAFT}/{path}")), is_raw, "{path}");
    }
    assert!(!crate::takes_raw_body("secret/storage/raft/snapshot"));
}
