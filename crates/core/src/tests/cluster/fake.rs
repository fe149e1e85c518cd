//! Three nodes in memory.

mod join;
mod restart;
mod versions;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::clock::TestClock;
use keepfast_framework::{Incoming, Result, Timestamp};
use keepfast_storage::{
    Addresses, Backend, Batch, Change, ClusterStatus, Consensus, Incarnation, Index, Joined, Key, Leader, Member,
    MemoryBackend, NodeId, Origin, Page, PeerStatus, RaftId, Role, SnapshotHead, SnapshotParts, StorageError,
    Transport, Watch,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cluster::fake::Parts;
use crate::cluster::port::{ClusterPort, ComingRoot, ForwardedResponse, NotForwarded, PeerService, PortIdentity};
use crate::settings::{DataDirectory, JoinSettings};
use crate::tests::fixture::{ROOT, RequestOptions, TestServer, device, incoming};
use crate::tests::gate::Gated;
use crate::{DevMount, Node, Settings};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A cluster whose first node leads at the beginning.
pub(in crate::tests) struct Cluster {
    shared: Arc<Shared>,
    nodes: [TestServer; 3],
}

/// What the nodes share: the storage, the leader, and the ports.
#[derive(Default)]
struct Shared {
    storage: Arc<Gated>,
    last: AtomicU64,
    term: AtomicU64,
    leader: Mutex<Option<&'static str>>,
    roles: BTreeMap<&'static str, watch::Sender<Role>>,
    running: Mutex<BTreeMap<&'static str, bool>>,
    ports: Mutex<BTreeMap<&'static str, OpenPort>>,
    unsettled: Mutex<BTreeMap<&'static str, StorageError>>,
    removed: Mutex<Vec<&'static str>>,
    /// A node that the list of the others lacks, while it has its own.
    departed: Mutex<Option<&'static str>>,
    /// A node, and the member that its list lacks.
    unlisted: Mutex<Option<(&'static str, &'static str)>>,
    passed_commits: AtomicUsize,
    offers: AtomicUsize,
    forwards: AtomicUsize,
    /// Whether the standby `b` finds no records until it settles.
    lags: AtomicBool,
    refuses: AtomicBool,
    loses: AtomicBool,
    /// Requests that nothing proves find no room.
    is_busy: AtomicBool,
    /// The node that missed what was committed since, and its records.
    behind: Mutex<Option<(&'static str, Arc<MemoryBackend>)>>,
    /// The nodes, for the exchange of those that join.
    servers: Mutex<BTreeMap<&'static str, Weak<Node>>>,
    /// What the nodes announce of their builds.
    versions: Mutex<BTreeMap<&'static str, String>>,
    /// The nodes that get no root keys.
    unreachable: Mutex<Vec<&'static str>>,
    /// The records of the last snapshot.
    snapshot: MemoryBackend,
    member_changes: watch::Sender<()>,
    members_changed: AtomicUsize,
    closes: AtomicUsize,
}

struct OpenPort {
    service: Arc<dyn PeerService>,
    authorities: Vec<[u8; 32]>,
}

impl Shared {
    fn elect(&self, leader: Option<&'static str>) {
        *self.leader.lock() = leader;
        self.term.fetch_add(1, Ordering::Relaxed);
        let addresses = leader.map(|name| {
            Arc::new(Leader { api_addr: format!("http://{name}"), cluster_addr: format!("https://{name}") })
        });
        for (name, role) in &self.roles {
            let following = Role::Following { leader: addresses.clone() };
            role.send_replace(if leader == Some(*name) { Role::Leading } else { following });
        }
    }

    /// Another running node leads from now on.
    fn transfer(&self, from: &'static str) -> Result<(), StorageError> {
        let next = self.running.lock().iter().find(|(name, runs)| **runs && **name != from).map(|(name, _)| *name);
        self.elect(Some(next.ok_or(StorageError::NoTarget)?));
        Ok(())
    }

    /// Whether the port of a node and that of another accept each other.
    fn reaches(&self, from: &str, to: &str) -> bool {
        let ports = self.ports.lock();
        let (from, to) = (ports.get(from), ports.get(to));
        let accepts = |by: &OpenPort, other: &OpenPort| by.authorities.contains(&other.authorities[0]);
        from.zip(to).is_none_or(|(from, to)| accepts(from, to) && accepts(to, from))
    }

    fn now(&self) -> Index {
        Index(self.last.load(Ordering::Relaxed))
    }
}

fn member(name: &str) -> Member {
    Member {
        id: RaftId(u64::from(name.as_bytes()[0])),
        node: name.to_owned(),
        incarnation: [name.as_bytes()[0]; 16],
        cluster_addr: format!("https://{name}"),
        api_addr: format!("http://{name}"),
        voter: true,
        wants_vote: true,
        election_ms: 600,
        version: "1.0.0".to_owned(),
    }
}

/// One node's part of the cluster: its storage, its consensus, its port.
struct Replica {
    shared: Arc<Shared>,
    name: &'static str,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Replica {
    fn other(&self) -> Self {
        Replica { shared: self.shared.clone(), name: self.name }
    }

    /// The records of a node that is behind.
    fn old(&self) -> Option<Arc<MemoryBackend>> {
        self.shared.behind.lock().as_ref().filter(|(name, _)| *name == self.name).map(|(_, old)| old.clone())
    }

    fn lists(&self, name: &'static str) -> bool {
        let has_departed = *self.shared.departed.lock() == Some(name) && self.name != name;
        !has_departed && *self.shared.unlisted.lock() != Some((self.name, name))
    }

    /// The leader that this node hears.
    fn heard(&self) -> Option<&'static str> {
        self.shared.leader.lock().filter(|leader| self.shared.reaches(self.name, leader))
    }
}

#[async_trait]
impl Backend for Replica {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        if self.name == "b" && self.shared.lags.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match self.old() {
            Some(old) => old.get(key).await,
            None => self.shared.storage.get(key).await,
        }
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        match self.old() {
            Some(old) => old.list(prefix, page).await,
            None => self.shared.storage.list(prefix, page).await,
        }
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        match *self.shared.leader.lock() {
            None => return Err(StorageError::NoLeader),
            Some(leader) if leader != self.name => drop(self.shared.passed_commits.fetch_add(1, Ordering::Relaxed)),
            Some(_) => {}
        }
        let index = self.shared.storage.commit(batch).await?;
        self.shared.last.fetch_max(index.0, Ordering::Relaxed);
        Ok(index)
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.shared.storage.watch(watcher);
    }

    fn roles(&self) -> Option<watch::Receiver<Role>> {
        Some(self.shared.roles[self.name].subscribe())
    }

    fn consensus(&self) -> Option<Arc<dyn Consensus>> {
        Some(Arc::new(self.other()))
    }
}

#[async_trait]
impl Consensus for Replica {
    fn identity(&self) -> Origin {
        let own = member(self.name);
        Origin { node: own.node, incarnation: own.incarnation }
    }

    fn status(&self) -> ClusterStatus {
        let leader = *self.shared.leader.lock();
        let is_leading = leader == Some(self.name);
        let peer = |name: &&str| PeerStatus {
            id: member(name).id,
            matched: self.shared.now().0,
            last_contact: Some(Duration::from_millis(100)),
        };
        let others = NAMES.iter().filter(|name| **name != self.name);
        ClusterStatus {
            id: Some(member(self.name).id),
            is_leading,
            term: self.shared.term.load(Ordering::Relaxed),
            leader: self.heard().map(member),
            members: {
                let removed = self.shared.removed.lock();
                NAMES
                    .iter()
                    .filter(|name| !removed.contains(name) && self.lists(name))
                    .map(|name| self.shared.announced(name))
                    .collect()
            },
            last: self.shared.now().0,
            committed: self.shared.now().0,
            applied: self.shared.now().0,
            peers: if is_leading { others.map(peer).collect() } else { Vec::new() },
            last_contact: self.heard().map(|_| Duration::ZERO),
            is_running: self.shared.running.lock().get(self.name).copied().unwrap_or_default(),
            is_joining: false,
            is_removed: self.shared.removed.lock().contains(&self.name),
        }
    }

    fn leader(&self) -> Option<Member> {
        self.status().leader
    }

    async fn settled(&self, _: Duration) -> Result<Index, StorageError> {
        if self.name == "b" {
            self.shared.lags.store(false, Ordering::Relaxed);
        }
        if let Some(error) = self.shared.unsettled.lock().get(self.name) {
            return Err(error.clone());
        }
        self.heard().map(|_| self.shared.now()).ok_or(StorageError::NoLeader)
    }

    async fn applied(&self, index: Index, _: Duration) -> Result<(), StorageError> {
        if index <= self.shared.now() { Ok(()) } else { Err(StorageError::Behind(index.0)) }
    }

    async fn read_index(&self) -> Result<Index, StorageError> {
        Ok(self.shared.now())
    }

    async fn start(&self, _: Arc<dyn Transport>, addresses: Addresses) -> Result<(), StorageError> {
        self.shared.versions.lock().insert(self.name, addresses.version);
        self.shared.running.lock().insert(self.name, true);
        Ok(())
    }

    async fn stop(&self) {
        self.shared.running.lock().insert(self.name, false);
        if *self.shared.leader.lock() == Some(self.name) {
            let _ = self.shared.transfer(self.name);
        }
    }

    async fn join(&self, _: Joined) -> Result<(), StorageError> {
        Err(StorageError::Layout("it is a member".into()))
    }

    async fn change(&self, change: Change) -> Result<Index, StorageError> {
        let departed = *self.shared.departed.lock();
        match (change, departed) {
            (Change::Remove(name), Some(departed)) if name == departed => Ok(self.shared.now()),
            _ => Err(StorageError::ChangeOpen),
        }
    }

    async fn departed(&self, incarnation: Incarnation) -> Result<Index, StorageError> {
        let departed = self.shared.departed.lock().map(member);
        let has_left = departed.is_some_and(|member| member.incarnation == incarnation);
        has_left.then(|| self.shared.now()).ok_or(StorageError::NoLeader)
    }

    async fn leave(&self, _: Index) -> Result<(), StorageError> {
        self.shared.removed.lock().push(self.name);
        self.shared.roles[self.name].send_modify(|_| {});
        Ok(())
    }

    async fn transfer(&self, _: Option<NodeId>) -> Result<(), StorageError> {
        self.shared.transfer(self.name)
    }

    fn deliver(&self, _: Origin, _: Bytes) -> bool {
        true
    }

    async fn receive_snapshot(&self, _: Origin, _: Bytes, _: &mut dyn SnapshotParts) -> Result<(), StorageError> {
        Err(StorageError::NotLeader)
    }

    fn member_changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.shared.member_changes.subscribe())
    }

    /// The file has no parts; the records stay in memory.
    fn snapshot(&self) -> Result<(SnapshotHead, Box<dyn SnapshotParts>), StorageError> {
        self.shared.snapshot.replace_with(self.shared.storage.memory());
        let head = SnapshotHead { term: 1, index: self.shared.now(), members: NAMES.map(member).to_vec() };
        Ok((head, Box::new(Parts(Vec::new().into_iter()))))
    }

    async fn restore(&self, _: SnapshotHead, _: &mut dyn SnapshotParts, _: Bytes) -> Result<Index, StorageError> {
        self.shared.storage.memory().replace_with(&self.shared.snapshot);
        Ok(self.shared.now())
    }
}

#[async_trait]
impl Transport for Replica {
    fn send(&self, _: &Member, _: Bytes) {}

    async fn send_snapshot(&self, _: &Member, _: Bytes, _: Box<dyn SnapshotParts>) -> Result<(), StorageError> {
        Err(StorageError::NotLeader)
    }

    async fn propose(&self, _: &Member, _: Bytes) -> Result<Index, StorageError> {
        Err(StorageError::NotLeader)
    }

    async fn read_index(&self, _: &Member) -> Result<Index, StorageError> {
        Ok(self.shared.now())
    }
}

#[async_trait]
impl ClusterPort for Replica {
    async fn open(&self, identity: PortIdentity, service: Arc<dyn PeerService>) -> Result<Arc<dyn Transport>> {
        assert_eq!(identity.node.node, self.name);
        let authorities = identity.authorities.iter().map(|key| *key.expose()).collect();
        self.shared.ports.lock().insert(self.name, OpenPort { service, authorities });
        Ok(Arc::new(self.other()))
    }

    async fn close(&self) {
        self.shared.closes.fetch_add(1, Ordering::Relaxed);
        self.shared.ports.lock().remove(self.name);
    }

    async fn forward(&self, to: &Member, request: Box<Incoming>) -> Result<ForwardedResponse, NotForwarded> {
        self.shared.offers.fetch_add(1, Ordering::Relaxed);
        let service = self.shared.ports.lock().get(to.node.as_str()).map(|port| port.service.clone());
        let is_unproven = request.cluster.as_ref().is_some_and(|part| part.is_unproven);
        if is_unproven && self.shared.is_busy.load(Ordering::Relaxed) {
            return Err(NotForwarded::Busy(request));
        }
        let service = service.filter(|_| !self.shared.refuses.load(Ordering::Relaxed));
        let Some(service) = service else { return Err(NotForwarded::Elsewhere(request)) };
        let from = self.identity();
        assert!(service.is_member(&from) && !service.is_member(&Origin { incarnation: [0; 16], ..from.clone() }));
        let sent = request.clone();
        let (response, index) = service.handle_forwarded(&from, request).await.map_err(NotForwarded::Elsewhere)?;
        self.shared.forwards.fetch_add(1, Ordering::Relaxed);
        if self.shared.loses.load(Ordering::Relaxed) {
            return Err(NotForwarded::Lost(sent));
        }
        Ok(ForwardedResponse {
            status: response.status().0,
            decided: response.decided().0,
            content_type: response.content_type().to_string(),
            body: response.into_body(),
            index,
        })
    }

    async fn announce_root(&self, to: &Member, coming: &ComingRoot) -> bool {
        let service = self.shared.ports.lock().get(to.node.as_str()).map(|port| port.service.clone());
        let service = service.filter(|_| !self.shared.unreachable.lock().contains(&to.node.as_str()));
        let sent = ComingRoot { record: coming.record, root: coming.root.clone(), seal: coming.seal.clone() };
        service.is_some_and(|service| service.expect_root(&self.identity(), sent))
    }

    async fn exchange_clock(&self, to: &Member, own: Timestamp) -> Option<Timestamp> {
        let service = self.shared.ports.lock().get(to.node.as_str()).map(|port| port.service.clone())?;
        service.exchange_clock(&self.identity(), own)
    }

    async fn open_slots(&self, to: &Member, record: &[u8; 32]) -> Option<u64> {
        let service = self.shared.ports.lock().get(to.node.as_str()).map(|port| port.service.clone())?;
        service.open_slots(&self.identity(), record).await
    }

    fn members_changed(&self) {
        self.shared.members_changed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Cluster {
    pub(in crate::tests) async fn new() -> Self {
        let following = || watch::channel(Role::Following { leader: None }).0;
        let roles = NAMES.into_iter().map(|name| (name, following())).collect();
        let shared = Arc::new(Shared { roles, ..Shared::default() });
        shared.elect(Some("a"));
        let clock = TestClock::default();
        let mut nodes = NAMES.map(|name| node(&shared, name, &clock));
        *shared.servers.lock() = NAMES.into_iter().zip(nodes.each_ref().map(|it| Arc::downgrade(&it.node))).collect();
        let mount = DevMount { path: "secret/", engine: "kv", version: "2", description: "" };
        let root = SecretString::new(ROOT.to_owned());
        let shares = crate::init_dev(&nodes[0].node, Some(root), Some(mount)).await.unwrap().shares;
        for server in &mut nodes {
            server.shares = shares.clone();
            assert!(server.node.lifecycle.unseal(&shares).await.unwrap());
        }
        Cluster { shared, nodes }
    }

    pub(in crate::tests) fn nodes(&self) -> &[TestServer; 3] {
        &self.nodes
    }

    pub(in crate::tests) fn clock(&self) -> &TestClock {
        &self.nodes[0].clock
    }

    /// The standby `b` finds no records until it settles.
    pub(super) fn lag(&self) {
        self.shared.lags.store(true, Ordering::Relaxed);
    }

    /// Whether it has not settled since then.
    pub(super) fn lags(&self) -> bool {
        self.shared.lags.load(Ordering::Relaxed)
    }

    pub(in crate::tests) fn elect(&self, leader: Option<&'static str>) {
        self.shared.elect(leader);
    }

    pub(in crate::tests) fn leader(&self) -> Option<String> {
        self.shared.leader.lock().map(str::to_owned)
    }

    /// The number of requests that a leader has run for another node.
    pub(in crate::tests) fn forwards(&self) -> usize {
        self.shared.forwards.load(Ordering::Relaxed)
    }

    /// The number of requests that were offered to a leader.
    pub(in crate::tests) fn offers(&self) -> usize {
        self.shared.offers.load(Ordering::Relaxed)
    }

    /// The number of commits of nodes that do not lead.
    pub(in crate::tests) fn passed_commits(&self) -> usize {
        self.shared.passed_commits.load(Ordering::Relaxed)
    }

    /// From now on no leader takes a request of another node.
    pub(in crate::tests) fn refuse_forwards(&self) {
        self.shared.refuses.store(true, Ordering::Relaxed);
    }

    /// From now on only requests of callers that are proved find room.
    pub(super) fn be_busy(&self) {
        self.shared.is_busy.store(true, Ordering::Relaxed);
    }

    pub(in crate::tests) fn accept_forwards(&self) {
        self.shared.refuses.store(false, Ordering::Relaxed);
    }

    /// From now on the response of the leader is lost.
    pub(in crate::tests) fn lose_forwards(&self) {
        self.shared.loses.store(true, Ordering::Relaxed);
    }

    /// Sets the error of [`Consensus::settled`] at a node.
    pub(in crate::tests) fn fail_settled(&self, name: &'static str, error: Option<StorageError>) {
        let mut unsettled = self.shared.unsettled.lock();
        match error {
            Some(error) => drop(unsettled.insert(name, error)),
            None => drop(unsettled.remove(name)),
        }
    }

    /// Removes a node, which hears of it.
    pub(in crate::tests) fn remove(&self, name: &'static str) {
        self.shared.removed.lock().push(name);
        self.shared.member_changes.send_replace(());
        self.shared.roles[name].send_replace(Role::Following { leader: None });
    }

    /// Removes a node, which does not hear of it.
    pub(super) async fn remove_unheard(&self, name: &'static str) {
        *self.shared.departed.lock() = Some(name);
        let leader = &self.nodes[0];
        let membership = &leader.node.lifecycle.parts.membership;
        let (consensus, barrier) = (membership.consensus().unwrap(), leader.unsealed().barrier.clone());
        crate::cluster::members::remove(&**consensus, &barrier, &leader.clock, &member(name)).await.unwrap();
    }

    /// From now on the list of a node lacks a member.
    pub(super) fn hide(&self, from: &'static str, name: &'static str) {
        *self.shared.unlisted.lock() = Some((from, name));
    }

    /// Waits until a node has stored the place of its data directory, as a leader does.
    pub(in crate::tests) async fn wait_for_takeover(&self, name: &str) {
        let incarnation = hex::encode(member(name).incarnation);
        let home = format!("token/home/{name}.{incarnation}");
        while self.shared.storage.get(&Key::new(home.as_str()).unwrap()).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    }

    /// From now on these nodes get no root keys.
    pub(super) fn keep_roots_from(&self, names: &[&'static str]) {
        *self.shared.unreachable.lock() = names.to_vec();
    }

    /// The number of times that a port was notified of a change of the members.
    pub(super) fn member_changes(&self) -> usize {
        self.shared.members_changed.load(Ordering::Relaxed)
    }

    /// The number of ports that were closed.
    pub(super) fn closes(&self) -> usize {
        self.shared.closes.load(Ordering::Relaxed)
    }

    /// The number of commits.
    pub(super) fn commits(&self) -> u64 {
        self.shared.now().0
    }

    /// From now on a node has only the records of now.
    pub(super) fn fall_behind(&self, name: &'static str) {
        let old = MemoryBackend::new();
        old.replace_with(self.shared.storage.memory());
        *self.shared.behind.lock() = Some((name, Arc::new(old)));
    }

    /// All records arrive at the node that was behind.
    pub(super) fn catch_up(&self) {
        *self.shared.behind.lock() = None;
    }

    /// Whether two ports accept each other.
    pub(super) fn are_connected(&self, one: &str, other: &str) -> bool {
        self.has_port(one) && self.has_port(other) && self.shared.reaches(one, other)
    }

    pub(in crate::tests) fn has_port(&self, name: &str) -> bool {
        self.shared.ports.lock().contains_key(name)
    }

    pub(in crate::tests) fn is_running(&self, name: &str) -> bool {
        self.shared.running.lock().get(name).copied().unwrap_or_default()
    }

    /// The authorities of a port.
    pub(in crate::tests) fn authorities(&self, name: &str) -> Vec<[u8; 32]> {
        self.shared.ports.lock().get(name).map(|port| port.authorities.clone()).unwrap_or_default()
    }
}

/// A sealed node.
fn node(shared: &Arc<Shared>, name: &'static str, clock: &TestClock) -> TestServer {
    let dir = tempfile::tempdir().unwrap();
    let replica = Arc::new(Replica { shared: shared.clone(), name });
    let settings = Settings {
        audit: vec![device(dir.path(), "audit", &[])],
        api_addr: format!("http://{name}"),
        cluster_addr: format!("https://{name}"),
        cluster_port: Some(replica.clone()),
        join: JoinSettings { client: Some(replica.clone()), ..JoinSettings::default() },
        data_directory: Some(DataDirectory { node: name.to_owned(), place: format!("place of {name}") }),
        ..Settings::default()
    };
    let node = Node::new(replica, keepfast_engines::all(), Arc::new(clock.clone()), settings.clone());
    TestServer { node, clock: clock.clone(), backend: shared.storage.clone(), dir, shares: Vec::new(), settings }
}
