//! The cluster port of a node: what it sends, and the calls that wait for responses.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::{Incarnation, Index, Member, NodeId, Origin, SnapshotParts, StorageError, Transport};

type CallResult = Result<Index, StorageError>;

/// What one node sends to another.
#[derive(Clone)]
pub(super) enum Packet {
    /// A message of Raft.
    Message(Bytes),
    /// A call.
    Call(u64, Call),
    /// Its response.
    Response(u64, CallResult),
    /// A part of a snapshot; `None` after the last one.
    Part(u64, Option<Bytes>),
}

/// What a node calls at another one.
#[derive(Clone)]
pub(super) enum Call {
    Propose(Bytes),
    ReadIndex,
    /// The head of a snapshot.
    Snapshot(Bytes),
}

/// A packet, and the directory that it is for.
pub(super) struct Outgoing {
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) packet: Packet,
}

/// The port of one process.
pub(super) struct Port {
    pub(super) origin: Origin,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    out: Vec<Outgoing>,
    next: u64,
    calls: BTreeMap<u64, (oneshot::Sender<CallResult>, StorageError)>,
    /// Snapshots that are being received, by the sender and its call.
    streams: BTreeMap<(Incarnation, u64), mpsc::UnboundedSender<Option<Bytes>>>,
}

impl Port {
    /// `run` differs for each process of a node.
    pub(super) fn new(origin: Origin, run: u32) -> Self {
        let inner = Inner { next: u64::from(run) << 32, ..Inner::default() };
        Self { origin, inner: Mutex::new(inner) }
    }

    /// What was sent since the last call.
    pub(super) fn take(&self) -> Vec<Outgoing> {
        std::mem::take(&mut self.inner.lock().out)
    }

    pub(super) fn push(&self, to: &Origin, packet: Packet) {
        let (node, incarnation) = (to.node.clone(), to.incarnation);
        self.inner.lock().out.push(Outgoing { node, incarnation, packet });
    }

    /// The response to a call has arrived.
    pub(super) fn respond(&self, call: u64, result: CallResult) {
        if let Some((sender, _)) = self.inner.lock().calls.remove(&call) {
            let _ = sender.send(result);
        }
    }

    /// The connection of a call is lost.
    pub(super) fn fail(&self, call: u64) {
        if let Some((sender, error)) = self.inner.lock().calls.remove(&call) {
            let _ = sender.send(Err(error));
        }
    }

    /// Begins to receive a snapshot.
    pub(super) fn open_stream(&self, from: Incarnation, call: u64) -> Stream {
        let (sender, parts) = mpsc::unbounded_channel();
        self.inner.lock().streams.insert((from, call), sender);
        Stream(parts)
    }

    pub(super) fn part(&self, from: Incarnation, call: u64, part: Option<Bytes>) {
        let mut inner = self.inner.lock();
        let is_end = part.is_none();
        if let Some(stream) = inner.streams.get(&(from, call)) {
            let _ = stream.send(part);
        }
        if is_end {
            inner.streams.remove(&(from, call));
        }
    }

    /// The connection of a snapshot is lost.
    pub(super) fn close_stream(&self, from: Incarnation, call: u64) {
        self.inner.lock().streams.remove(&(from, call));
    }

    /// Sends a call. `error` is its result when the connection is lost.
    fn call(&self, to: &Member, call: Call, error: StorageError) -> (u64, oneshot::Receiver<CallResult>) {
        let (sender, result) = oneshot::channel();
        let mut inner = self.inner.lock();
        inner.next += 1;
        let number = inner.next;
        inner.calls.insert(number, (sender, error));
        let (node, incarnation, packet) = (to.node.clone(), to.incarnation, Packet::Call(number, call));
        inner.out.push(Outgoing { node, incarnation, packet });
        (number, result)
    }
}

#[async_trait]
impl Transport for Port {
    fn send(&self, to: &Member, message: Bytes) {
        let to = Origin { node: to.node.clone(), incarnation: to.incarnation };
        self.push(&to, Packet::Message(message));
    }

    async fn send_snapshot(
        &self,
        to: &Member,
        head: Bytes,
        mut parts: Box<dyn SnapshotParts>,
    ) -> Result<(), StorageError> {
        let (call, result) = self.call(to, Call::Snapshot(head), StorageError::NoLeader);
        let to = Origin { node: to.node.clone(), incarnation: to.incarnation };
        loop {
            let part = parts.next().await?;
            let is_end = part.is_none();
            self.push(&to, Packet::Part(call, part));
            if is_end {
                break;
            }
        }
        result.await.unwrap_or(Err(StorageError::Closed)).map(drop)
    }

    async fn propose(&self, leader: &Member, batch: Bytes) -> Result<Index, StorageError> {
        let (_, result) = self.call(leader, Call::Propose(batch), StorageError::Unknown);
        result.await.unwrap_or(Err(StorageError::Unknown))
    }

    async fn read_index(&self, leader: &Member) -> Result<Index, StorageError> {
        let (_, result) = self.call(leader, Call::ReadIndex, StorageError::NoLeader);
        result.await.unwrap_or(Err(StorageError::NoLeader))
    }
}

/// A snapshot that is being received.
pub(super) struct Stream(mpsc::UnboundedReceiver<Option<Bytes>>);

#[async_trait]
impl SnapshotParts for Stream {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        self.0.recv().await.ok_or(StorageError::NoLeader)
    }
}
