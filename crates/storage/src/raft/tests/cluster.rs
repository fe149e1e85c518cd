//! A cluster on directories that live as long as it.

use std::{
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::time::timeout;

use super::{PATIENCE, key, transport::Links};
use crate::{
    Addresses, Backend, Batch, Change, ClusterStatus, Consensus, Digest, Index, Joined, LocalBackend, LocalOptions,
    Member, RaftId, Read, Role, StorageError, Transport, Watch, Write, local::sim_disk::SimDisk,
};

const PEERS: &str = "raft/peers.json";

pub(super) struct Cluster {
    pub(super) nodes: Vec<TestNode>,
    pub(super) transport: Links,
    is_simulated: bool,
    _directory: TempDir,
}

pub(super) struct TestNode {
    path: PathBuf,
    pub(super) disk: Option<SimDisk>,
    name: String,
    pub(super) election: Duration,
    backend: Option<Arc<LocalBackend>>,
    watcher: Arc<Replacements>,
    transport: Links,
}

/// Counts the snapshots that have replaced all records, and those of them during which the node was joining; lets entries
/// wait.
#[derive(Default)]
pub(super) struct Replacements {
    count: AtomicUsize,
    while_joining: AtomicUsize,
    node: Mutex<Weak<LocalBackend>>,
    gate: Mutex<()>,
    panics: AtomicBool,
}

impl Watch for Replacements {
    fn applied(&self, _: Index, _: &[Write]) {
        drop(self.gate.lock());
        assert!(!self.panics.load(Ordering::SeqCst), "a planted panic");
    }

    fn replaced(&self, _: Index) {
        self.count.fetch_add(1, Ordering::SeqCst);
        let node = self.node.lock().upgrade();
        let is_joining = node.and_then(|node| node.consensus()).is_some_and(|node| node.status().is_joining);
        self.while_joining.fetch_add(usize::from(is_joining), Ordering::SeqCst);
    }
}

pub(super) fn put(path: &str, value: &str) -> Batch {
    Batch::put(key(path), value.to_owned())
}

/// A batch that writes when the record has a value.
pub(super) fn swap(path: &str, seen: &str, value: &str) -> Batch {
    let seen = Some(Digest::of(seen.as_bytes()));
    Batch { reads: vec![Read::Value { key: key(path), seen }], ..put(path, value) }
}

pub(super) fn options(name: &str) -> LocalOptions {
    let (flush_interval, election) = (Duration::from_millis(50), Duration::from_secs(1));
    LocalOptions { node_id: Some(name.into()), clustered: true, flush_interval, election, ..LocalOptions::default() }
}

impl Cluster {
    /// A node that was never in a cluster.
    pub(super) fn lone() -> Self {
        Self::on(false)
    }

    /// The same, on simulated disks if wanted, as each node that is added.
    fn on(is_simulated: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = Self { nodes: vec![], transport: Links::default(), is_simulated, _directory: directory };
        cluster.new_node();
        cluster
    }

    /// So many voters.
    pub(super) async fn of(count: usize) -> Self {
        Self::lone().grown_to(count).await
    }

    /// So many voters on simulated disks.
    pub(super) async fn simulated(count: usize) -> Self {
        Self::on(true).grown_to(count).await
    }

    async fn grown_to(mut self, count: usize) -> Self {
        let cluster = &mut self;
        cluster.connect(0).await;
        for number in 1..count {
            cluster.add().await;
            cluster.nodes[number].applies(cluster.nodes[0].applied()).await;
            let promoted = Change::Promote(format!("n{number}"));
            cluster.nodes[0].consensus().change(promoted).await.unwrap();
        }
        for node in &cluster.nodes {
            node.until(|status| status.members.iter().filter(|member| member.voter).count() == count).await;
        }
        self
    }

    fn new_node(&mut self) -> usize {
        let number = self.nodes.len();
        let name = format!("n{number}");
        let path = self._directory.path().join(&name);
        let (watcher, transport) = (Arc::default(), self.transport.clone());
        let disk = self.is_simulated.then(|| SimDisk::new(number as u64 + 1));
        let election = Duration::from_secs(1);
        self.nodes.push(TestNode { path, disk, name, election, backend: None, watcher, transport });
        self.open(number);
        number
    }

    pub(super) fn open(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let options = LocalOptions { election: node.election, ..options(&node.name) };
        node.open(Arc::new(match &node.disk {
            Some(disk) => LocalBackend::open_on(Arc::new(disk.clone()), options, None).unwrap(),
            None => LocalBackend::open(&node.path, options).unwrap(),
        }));
    }

    /// Opens a node that has ended, and starts it.
    pub(super) async fn start(&mut self, number: usize) {
        self.open(number);
        self.connect(number).await;
    }

    pub(super) async fn connect(&self, number: usize) {
        self.connect_as(number, &number.to_string()).await;
    }

    pub(super) async fn connect_as(&self, number: usize, name: &str) {
        let (transport, addresses) = self.place(number, name);
        self.nodes[number].consensus().start(transport, addresses).await.unwrap();
    }

    /// The transport of a node, and addresses with this name.
    pub(super) fn place(&self, number: usize, name: &str) -> (Arc<dyn Transport>, Addresses) {
        let (api_addr, cluster_addr) = (format!("api-{name}"), format!("cluster-{name}"));
        let transport = self.transport.from(self.nodes[number].consensus().identity());
        (transport, Addresses { api_addr, cluster_addr, version: "1".into() })
    }

    /// Adds a learner, which has joined and not started.
    pub(super) async fn prepare(&mut self) -> usize {
        let added = self.new_node();
        let leader = self.leader().await;
        let member = self.nodes[added].member(added);
        let leader = self.nodes[leader].consensus();
        leader.change(Change::AddLearner(member)).await.unwrap();
        let joined = Joined { cluster_id: "c".into(), members: leader.status().members };
        self.nodes[added].consensus().join(joined).await.unwrap();
        added
    }

    /// Adds a learner.
    pub(super) async fn add(&mut self) {
        let added = self.prepare().await;
        self.connect(added).await;
    }

    pub(super) async fn leader(&self) -> usize {
        self.leader_among(&(0..self.nodes.len()).collect::<Vec<_>>()).await
    }

    /// Transfers leadership to a node.
    pub(super) async fn lead(&self, number: usize) {
        let transferred = async {
            while self.leader().await != number {
                let leader = self.nodes[self.leader().await].consensus();
                let _ = leader.transfer(Some(self.nodes[number].name.clone())).await;
            }
        };
        timeout(PATIENCE, transferred).await.expect("it does not lead");
    }

    /// Waits until one of these nodes leads.
    pub(super) async fn leader_among(&self, numbers: &[usize]) -> usize {
        let found = async {
            loop {
                let mut open = numbers.iter().filter(|number| self.nodes[**number].backend.is_some());
                if let Some(leader) = open.find(|number| self.nodes[**number].role().is_leading()) {
                    return *leader;
                }
                pause().await;
            }
        };
        timeout(PATIENCE, found).await.expect("nobody leads")
    }
}

/// Lets other tasks and threads run.
async fn pause() {
    let _ = timeout(Duration::from_millis(5), std::future::pending::<()>()).await;
}

impl TestNode {
    /// Takes an open store as this node's.
    pub(super) fn open(&mut self, backend: Arc<LocalBackend>) {
        let watcher: Arc<dyn Watch> = self.watcher.clone();
        let weak: Weak<dyn Watch> = Arc::downgrade(&watcher);
        *self.watcher.node.lock() = Arc::downgrade(&backend);
        backend.watch(weak);
        self.transport.enter(backend.clone());
        self.backend = Some(backend);
    }

    /// The end of the process: nothing is transferred.
    pub(super) fn end(&mut self) {
        self.transport.leave(&self.name);
        if let Some(backend) = self.backend.take() {
            backend.close();
            // Others may be in the middle of a call.
            let mut backend = Some(backend);
            while let Some(held) = backend.take() {
                match Arc::try_unwrap(held) {
                    Ok(last) => drop(last),
                    Err(held) => {
                        std::thread::yield_now();
                        backend = Some(held);
                    }
                }
            }
        }
    }

    /// Writes the file from which a cluster is recovered.
    pub(super) fn write_peers(&self, text: &str) {
        std::fs::create_dir_all(self.path.join("raft")).unwrap();
        std::fs::write(self.path.join(PEERS), text).unwrap();
    }

    pub(super) fn delete_peers(&self) {
        std::fs::remove_file(self.path.join(PEERS)).unwrap();
    }

    pub(super) fn has_peers(&self) -> bool {
        self.path.join(PEERS).exists()
    }

    /// Opens the directory without a cluster around it.
    pub(super) fn try_open(&self) -> Result<LocalBackend, StorageError> {
        LocalBackend::open(&self.path, options(&self.name))
    }

    pub(super) fn backend(&self) -> Arc<LocalBackend> {
        self.backend.clone().unwrap()
    }

    pub(super) fn consensus(&self) -> Arc<dyn Consensus> {
        self.backend().consensus().unwrap()
    }

    pub(super) fn status(&self) -> ClusterStatus {
        self.consensus().status()
    }

    pub(super) fn role(&self) -> Role {
        self.backend().roles().unwrap().borrow().clone()
    }

    pub(super) fn applied(&self) -> u64 {
        self.status().applied
    }

    pub(super) fn replaced(&self) -> usize {
        self.watcher.count.load(Ordering::SeqCst)
    }

    /// Waits until the disk has nothing more to do: the next operation is then that of a log.
    pub(super) async fn rests(&self) {
        let disk = self.disk.as_ref().unwrap();
        let mut before = usize::MAX;
        while std::mem::replace(&mut before, disk.operations()) != before {
            let _ = timeout(Duration::from_millis(300), std::future::pending::<()>()).await;
        }
    }

    /// Lets the watcher of this node panic at its next batch.
    pub(super) fn plant_panic(&self) {
        self.watcher.panics.store(true, Ordering::SeqCst);
    }

    pub(super) fn replaced_while_joining(&self) -> usize {
        self.watcher.while_joining.load(Ordering::SeqCst)
    }

    /// Runs something while the watcher of this node waits at its next batch.
    pub(super) async fn without_applying<T>(&self, run: impl Future<Output = T>) -> T {
        let (locked, is_locked) = tokio::sync::oneshot::channel();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let watcher = self.watcher.clone();
        let holder = std::thread::spawn(move || {
            let _gate = watcher.gate.lock();
            let _ = locked.send(());
            let _ = is_done.recv();
        });
        is_locked.await.unwrap();
        let result = run.await;
        drop(done);
        holder.join().unwrap();
        result
    }

    pub(super) fn member(&self, number: usize) -> Member {
        let origin = self.consensus().identity();
        Member {
            id: RaftId(0),
            node: origin.node,
            incarnation: origin.incarnation,
            cluster_addr: format!("cluster-{number}"),
            api_addr: format!("api-{number}"),
            voter: false,
            wants_vote: true,
            election_ms: 1000,
            version: "1".into(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Option<String> {
        let value = self.backend().get(&key(path)).await.unwrap()?;
        Some(String::from_utf8(value.into()).unwrap())
    }

    /// Commits, again as long as nothing was written.
    pub(super) async fn commit_until(&self, batch: Batch) -> Index {
        let committed = async {
            loop {
                match self.backend().commit(batch.clone()).await {
                    Ok(index) => return index,
                    Err(StorageError::NoLeader | StorageError::NotLeader | StorageError::NotCommitted) => pause().await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        timeout(PATIENCE, committed).await.expect("no commit")
    }

    pub(super) async fn applies(&self, index: u64) {
        self.consensus().applied(Index(index), PATIENCE).await.unwrap();
    }

    pub(super) async fn waits(&self, condition: impl Fn(&Role) -> bool) {
        let mut roles = self.backend().roles().unwrap();
        timeout(PATIENCE, roles.wait_for(|role| condition(role))).await.expect("the role stays").unwrap();
    }

    pub(super) async fn until(&self, condition: impl Fn(&ClusterStatus) -> bool) {
        let reached = async {
            while !condition(&self.status()) {
                pause().await;
            }
        };
        timeout(PATIENCE, reached).await.expect("the status stays");
    }
}
