//! The service behind a port, with a storage that records what it gets.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_core::cluster::port::{ComingRoot, PeerService};
use keepfast_core::{Node, Response, Settings};
use keepfast_crypto::secret::SecretString;
use keepfast_framework::clock::SystemClock;
use keepfast_framework::{Incoming, Timestamp};
use keepfast_storage::{
    Addresses, Backend, Batch, Change, ClusterStatus, Consensus, Index, Joined, Key, Member, MemoryBackend, NodeId,
    Origin, Page, PeerKind, SnapshotHead, SnapshotParts, StorageError, Transport, Watch,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::DevKv;

pub(super) struct FakeService {
    pub(super) storage: Arc<FakeStorage>,
    /// The nodes that were removed.
    pub(super) strangers: Mutex<Vec<Origin>>,
    /// The nodes that no list has. All others are members.
    pub(super) unlisted: Mutex<Vec<Origin>>,
    /// The node that handles requests; none leads without it.
    pub(super) node: Mutex<Option<Arc<Node>>>,
    /// Requests wait for a permit.
    pub(super) gate: Semaphore,
    /// Gets the path of each request that arrives.
    pub(super) arrived: Mutex<Option<mpsc::UnboundedSender<String>>>,
    /// The root keys that it got; it takes two.
    pub(super) roots: Mutex<Vec<(Origin, ComingRoot)>>,
}

pub(super) struct FakeStorage {
    delivered: mpsc::UnboundedSender<(Origin, Bytes)>,
    pub(super) messages: tokio::sync::Mutex<mpsc::UnboundedReceiver<(Origin, Bytes)>>,
    pub(super) committed: Mutex<Vec<Batch>>,
    /// The error of calls, if any.
    pub(super) failure: Mutex<Option<StorageError>>,
    pub(super) snapshots: Mutex<Vec<(Origin, Bytes, Vec<Bytes>)>>,
    /// The error after the last part, or of the parts.
    pub(super) snapshot_errors: Mutex<Vec<String>>,
    /// The parts after which a snapshot is refused.
    pub(super) refuses_after: Mutex<Option<usize>>,
    /// The parts after which a snapshot is stored without its rest.
    pub(super) stores_after: Mutex<Option<usize>>,
    /// Each received part waits for a permit, and is noted first.
    pub(super) pause: Semaphore,
    pub(super) paused: Notify,
}

impl FakeService {
    pub(super) fn new() -> Arc<Self> {
        let (delivered, messages) = mpsc::unbounded_channel();
        let storage = FakeStorage {
            delivered,
            messages: tokio::sync::Mutex::new(messages),
            committed: Mutex::default(),
            failure: Mutex::default(),
            snapshots: Mutex::default(),
            snapshot_errors: Mutex::default(),
            refuses_after: Mutex::default(),
            stores_after: Mutex::default(),
            pause: Semaphore::new(Semaphore::MAX_PERMITS),
            paused: Notify::new(),
        };
        Arc::new(Self {
            storage: Arc::new(storage),
            strangers: Mutex::default(),
            unlisted: Mutex::default(),
            node: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            arrived: Mutex::default(),
            roots: Mutex::default(),
        })
    }

    /// Makes it the leader: requests are handled by a development server with the root token `root`.
    pub(super) async fn lead(&self) {
        let settings = Settings { dev: true, ..Settings::default() };
        let backend = Arc::new(MemoryBackend::new());
        let node = Node::new(backend, keepfast_engines::all(), Arc::new(SystemClock), settings);
        keepfast_core::init_dev(&node, Some(SecretString::new("root".into())), DevKv::V2.mount()).await.unwrap();
        *self.node.lock() = Some(node);
    }

    pub(super) async fn message(&self) -> (Origin, Bytes) {
        super::soon(self.storage.messages.lock().await.recv()).await.unwrap()
    }
}

#[async_trait]
impl PeerService for FakeService {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(Stored(self.storage.clone()))
    }

    fn peer_kind(&self, origin: &Origin) -> PeerKind {
        match (self.strangers.lock().contains(origin), self.unlisted.lock().contains(origin)) {
            (true, _) => PeerKind::Removed,
            (false, true) => PeerKind::Unknown,
            (false, false) => PeerKind::Member,
        }
    }

    /// The clock of this member is one second behind.
    fn exchange_clock(&self, _: &Origin, leader: Timestamp) -> Option<Timestamp> {
        Some(leader.before(Duration::from_secs(1)))
    }

    /// It has a record of ones.
    async fn open_slots(&self, _: &Origin, record: &[u8; 32]) -> Option<u64> {
        (*record == [1; 32]).then_some(1 << 63 | 5)
    }

    fn expect_root(&self, from: &Origin, coming: ComingRoot) -> bool {
        let mut roots = self.roots.lock();
        let takes = roots.len() < 2;
        if takes {
            roots.push((from.clone(), coming));
        }
        takes
    }

    async fn handle_forwarded(&self, _: &Origin, request: Box<Incoming>) -> Result<(Response, u64), Box<Incoming>> {
        if let Some(arrived) = &*self.arrived.lock() {
            arrived.send(request.path.to_string()).unwrap();
        }
        assert_ne!(request.path.as_str(), "panic", "a handler that panics");
        self.gate.acquire().await.unwrap().forget();
        let node = self.node.lock().clone();
        match node {
            Some(node) => Ok((node.handle(request).await, 42)),
            None => Err(request),
        }
    }
}

struct Stored(Arc<FakeStorage>);

#[async_trait]
impl Backend for Stored {
    async fn get(&self, _: &Key) -> Result<Option<Bytes>, StorageError> {
        Ok(None)
    }

    async fn list(&self, _: &Key, _: &Page) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        let mut bytes = Vec::new();
        batch.encode(&mut bytes);
        self.0.propose(bytes.into()).await
    }

    fn watch(&self, _: Weak<dyn Watch>) {}

    fn consensus(&self) -> Option<Arc<dyn Consensus>> {
        Some(self.0.clone())
    }
}

#[async_trait]
impl Consensus for FakeStorage {
    fn identity(&self) -> Origin {
        unreachable!()
    }

    fn status(&self) -> ClusterStatus {
        unreachable!()
    }

    fn leader(&self) -> Option<Member> {
        unreachable!()
    }

    async fn settled(&self, _: Duration) -> Result<Index, StorageError> {
        unreachable!()
    }

    async fn propose(&self, batch: Bytes) -> Result<Index, StorageError> {
        let batch = Batch::decode(batch)?;
        if let Some(failure) = self.failure.lock().clone() {
            return Err(failure);
        }
        let mut committed = self.committed.lock();
        committed.push(batch);
        Ok(Index(committed.len() as u64))
    }

    async fn applied(&self, _: Index, _: Duration) -> Result<(), StorageError> {
        unreachable!()
    }

    async fn read_index(&self) -> Result<Index, StorageError> {
        self.failure.lock().clone().map_or(Ok(Index(77)), Err)
    }

    async fn start(&self, _: Arc<dyn Transport>, _: Addresses) -> Result<(), StorageError> {
        unreachable!()
    }

    async fn stop(&self) {}

    async fn join(&self, _: Joined) -> Result<(), StorageError> {
        unreachable!()
    }

    async fn change(&self, _: Change) -> Result<Index, StorageError> {
        unreachable!()
    }

    async fn transfer(&self, _: Option<NodeId>) -> Result<(), StorageError> {
        unreachable!()
    }

    fn deliver(&self, from: Origin, message: Bytes) -> bool {
        let is_readable = &message[..] != b"unreadable";
        let _ = self.delivered.send((from, message));
        is_readable
    }

    async fn receive_snapshot(
        &self,
        from: Origin,
        head: Bytes,
        parts: &mut dyn SnapshotParts,
    ) -> Result<(), StorageError> {
        let mut received = Vec::new();
        loop {
            if self.refuses_after.lock().is_some_and(|most| received.len() >= most) {
                return Err(StorageError::Full);
            }
            if self.stores_after.lock().is_some_and(|most| received.len() >= most) {
                return Ok(());
            }
            match parts.next().await {
                Ok(Some(part)) => {
                    received.push(part);
                    self.paused.notify_one();
                    self.pause.acquire().await.unwrap().forget();
                }
                Ok(None) => break,
                Err(error) => {
                    self.snapshot_errors.lock().push(error.to_string());
                    return Err(error);
                }
            }
        }
        self.snapshots.lock().push((from, head, received));
        Ok(())
    }

    fn snapshot(&self) -> Result<(SnapshotHead, Box<dyn SnapshotParts>), StorageError> {
        unreachable!()
    }

    async fn restore(&self, _: SnapshotHead, _: &mut dyn SnapshotParts, _: Bytes) -> Result<Index, StorageError> {
        unreachable!()
    }
}
