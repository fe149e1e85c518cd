//! The interface of a member for the rest of the server.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_consensus::Message;

use super::{
    boot, clock,
    event::Event,
    node::Node,
    published::{Network, since},
    receive::{self, Received, Turn},
    restore,
    snapshot::damaged,
};
use crate::local::layout::Layout;
use crate::{
    Addresses, Batch, Change, ClusterStatus, Consensus, Incarnation, Index, Joined, Member, NodeId, Origin, PeerKind,
    SnapshotHead, SnapshotParts, StorageError, Transport,
};

#[async_trait]
impl Consensus for Node {
    fn identity(&self) -> Origin {
        self.origin()
    }

    fn member_changes(&self) -> Option<tokio::sync::watch::Receiver<()>> {
        Some(self.published.members.subscribe())
    }

    fn is_alone(&self) -> bool {
        self.published.is_alone()
    }

    fn is_removed(&self) -> bool {
        self.layout.read(|layout| is_removed(layout, &self.published.view.borrow().members))
    }

    fn peer_kind(&self, origin: &Origin) -> PeerKind {
        self.published.peer_kind(origin)
    }

    fn leader(&self) -> Option<Member> {
        self.published.view.borrow().leader.clone()
    }

    fn status(&self) -> ClusterStatus {
        let (view, numbers) = (self.published.view(), self.published.numbers.lock().clone());
        let (is_lone, now, applied) = (self.published.is_lone(), clock::now(), self.applier.applied.borrow().0);
        let (is_joining, is_removed) = self.layout.read(|layout| (layout.joining, is_removed(layout, &view.members)));
        ClusterStatus {
            id: view.id,
            is_leading: view.is_leading,
            term: view.term,
            leader: view.leader.clone(),
            last: if is_lone { applied } else { numbers.last.max(applied) },
            committed: if is_lone { applied } else { numbers.committed.max(applied) },
            applied,
            peers: numbers.peer_status(now),
            last_contact: match view.is_leading {
                true => Some(Duration::ZERO),
                false => numbers.contact.map(|at| since(now, at)),
            },
            is_running: self.published.has_network(),
            is_joining,
            is_removed,
            members: view.members.to_vec(),
        }
    }

    async fn settled(&self, within: Duration) -> Result<Index, StorageError> {
        self.settle(within).await
    }

    async fn applied(&self, index: Index, within: Duration) -> Result<(), StorageError> {
        self.catches_up(index, within).await
    }

    async fn read_index(&self) -> Result<Index, StorageError> {
        let index = match self.leased() {
            Some(index) => index,
            None if self.published.view.borrow().accepts => self.call(Event::Read).await?,
            None => return Err(StorageError::NotLeader),
        };
        self.send_commit(index);
        Ok(index)
    }

    async fn propose(&self, batch: Bytes) -> Result<Index, StorageError> {
        let index = self.commit_here(Batch::decode(batch)?).await?;
        self.send_commit(index);
        Ok(index)
    }

    async fn start(&self, transport: Arc<dyn Transport>, addresses: Addresses) -> Result<(), StorageError> {
        let runtime = tokio::runtime::Handle::current();
        *self.published.network.lock() = Some(Arc::new(Network { transport, addresses, runtime }));
        let started = self.call(Event::Start).await;
        if started.is_err() {
            *self.published.network.lock() = None;
        }
        started
    }

    async fn stop(&self) {
        let _ = self.call(Event::Stop).await;
        *self.published.network.lock() = None;
    }

    async fn join(&self, cluster: Joined) -> Result<(), StorageError> {
        self.call(|reply| Event::Join(Box::new(cluster), reply)).await
    }

    async fn change(&self, change: Change) -> Result<Index, StorageError> {
        self.call(|reply| Event::Change(Box::new(change), reply)).await
    }

    async fn departed(&self, incarnation: Incarnation) -> Result<Index, StorageError> {
        self.call(|reply| Event::Departed(incarnation, reply)).await
    }

    async fn leave(&self, removed_at: Index) -> Result<(), StorageError> {
        self.call(|reply| Event::Leave(removed_at, reply)).await
    }

    async fn transfer(&self, to: Option<NodeId>) -> Result<(), StorageError> {
        self.call(|reply| Event::Transfer(to, reply)).await
    }

    fn deliver(&self, from: Origin, message: Bytes) -> bool {
        if self.published.is_lone() {
            return true;
        }
        match Message::decode(message) {
            Ok(message) if self.inbox.take(&message) => {
                let _ = self.send(Event::Message(from, message));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(node = from.node, %error, "a message cannot be read");
                return false;
            }
        }
        true
    }

    async fn receive_snapshot(
        &self,
        from: Origin,
        head: Bytes,
        parts: &mut dyn SnapshotParts,
    ) -> Result<(), StorageError> {
        let message = Message::decode(head).map_err(|_| damaged())?;
        receive::head(&message).ok_or_else(damaged)?;
        // Any member could hold the only place.
        if !self.published.view.borrow().takes_snapshot_of(&from, &message) {
            return Err(StorageError::NoLeader);
        }
        // Another one that is under way has the file.
        let turn = Turn::take(&self.is_receiving).ok_or(StorageError::InProgress)?;
        if self.published.is_lone() || !self.published.has_network() {
            return Err(StorageError::NoLeader);
        }
        let (reserve, cache) = (self.options.reserve_bytes, self.options.cache_bytes);
        let state = receive::store(&turn, self.disk.clone(), &message, parts, reserve, cache).await?;
        self.call(|result| {
            let state = Some(state);
            Event::Snapshot(Box::new(Received { origin: from, message, state, result, turn }))
        })
        .await
    }

    fn snapshot(&self) -> Result<(SnapshotHead, Box<dyn SnapshotParts>), StorageError> {
        self.image()
    }

    async fn restore(
        &self,
        head: SnapshotHead,
        parts: &mut dyn SnapshotParts,
        mark: Bytes,
    ) -> Result<Index, StorageError> {
        restore::run(self, &head, parts, &mark).await
    }
}

/// Whether the member list no longer has the node of this directory.
fn is_removed(layout: &Layout, members: &[Member]) -> bool {
    let is_unlisted = || !members.is_empty() && boot::find(members, &layout.origin()).is_none();
    layout.removed || (!layout.joining && is_unlisted())
}
