//! A transport in memory, whose links can be cut.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    Backend, Batch, Consensus, Index, LocalBackend, Member, NodeId, Origin, SnapshotParts, StorageError, Transport,
};

/// All links.
#[derive(Clone, Default)]
pub(super) struct Links(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    nodes: HashMap<NodeId, Arc<LocalBackend>>,
    cut: HashSet<NodeId>,
}

impl Links {
    pub(super) fn enter(&self, node: Arc<LocalBackend>) {
        let name = node.consensus().unwrap().identity().node;
        self.0.lock().nodes.insert(name, node);
    }

    pub(super) fn leave(&self, name: &str) {
        self.0.lock().nodes.remove(name);
    }

    pub(super) fn isolate(&self, number: usize) {
        self.0.lock().cut.insert(format!("n{number}"));
    }

    pub(super) fn heal(&self) {
        self.0.lock().cut.clear();
    }

    pub(super) fn from(&self, origin: Origin) -> Arc<dyn Transport> {
        Arc::new(Sender { links: self.clone(), origin })
    }
}

struct Sender {
    links: Links,
    origin: Origin,
}

impl Sender {
    fn reach(&self, to: &Member) -> Option<Arc<LocalBackend>> {
        let inner = self.links.0.lock();
        let is_cut = inner.cut.contains(&self.origin.node) || inner.cut.contains(&to.node);
        inner.nodes.get(&to.node).filter(|_| !is_cut).cloned()
    }

    fn consensus(&self, to: &Member) -> Result<Arc<dyn Consensus>, StorageError> {
        self.reach(to).and_then(|node| node.consensus()).ok_or(StorageError::NoLeader)
    }
}

#[async_trait]
impl Transport for Sender {
    fn send(&self, to: &Member, message: Bytes) {
        if let Ok(node) = self.consensus(to) {
            node.deliver(self.origin.clone(), message);
        }
    }

    async fn send_snapshot(
        &self,
        to: &Member,
        head: Bytes,
        mut parts: Box<dyn SnapshotParts>,
    ) -> Result<(), StorageError> {
        self.consensus(to)?.receive_snapshot(self.origin.clone(), head, &mut *parts).await
    }

    async fn propose(&self, leader: &Member, batch: Bytes) -> Result<Index, StorageError> {
        let node = self.reach(leader).ok_or(StorageError::NoLeader)?;
        node.commit(Batch::decode(batch)?).await
    }

    async fn read_index(&self, leader: &Member) -> Result<Index, StorageError> {
        self.consensus(leader)?.read_index().await
    }
}

/// A snapshot of these parts only.
pub(super) struct Cut(pub(super) Vec<Bytes>);

#[async_trait]
impl SnapshotParts for Cut {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        Ok((!self.0.is_empty()).then(|| self.0.remove(0)))
    }
}
