//! The cluster port as core and the storage use it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_core::cluster::port::{
    ClusterPort, ComingRoot, ForwardedResponse, NotForwarded, PeerService, PortIdentity,
};
use keepfast_edge::listen_tcp;
use keepfast_framework::clock::Clock;
use keepfast_framework::{Error, Incoming, Result, Timestamp};
use keepfast_storage::{Index, MAX_MESSAGE, Member, SnapshotParts, StorageError, Transport};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::accept;
use super::calls::{CallError, CallResponse};
use super::coming_root;
use super::frames::{Outgoing, tag};
use super::identity::Identity;
use super::messages;
use super::open_port::{OpenPort, Session};
use super::request;
use super::serve::{call, request_call};
use super::snapshot;

/// The most time for a commit; the storage of the leader has shorter limits.
const COMMIT: Duration = Duration::from_secs(30);
/// The most time for an index; the storage repeats the call earlier.
const READ_INDEX: Duration = Duration::from_secs(5);
/// The most time to give a coming root key to a member.
const ROOT: Duration = Duration::from_secs(2);
/// The most time for the clock of a member, and for its slots: an answer that takes long shows little.
const CLOCK: Duration = Duration::from_secs(2);
/// The bytes of a request beside its body: token, headers and certificates of the client.
const HEADS: usize = 1 << 20;
/// The longest body, also when a listener has no limit.
const MAX_BODY: usize = 1 << 30;

/// The cluster port of the process.
pub(crate) struct Port {
    addresses: Vec<String>,
    requests: RequestLimits,
    clock: Arc<dyn Clock>,
    open: Mutex<Option<Listening>>,
    /// Held by `open` and `close`.
    turn: tokio::sync::Mutex<()>,
}

/// The limits of the requests that one node passes to another: the largest ones of its listeners, which apply their own.
#[derive(Clone, Copy)]
pub(crate) struct RequestLimits {
    /// The longest body, in bytes.
    pub(crate) body: usize,
    /// The most time until the response.
    pub(crate) duration: Duration,
}

struct Listening {
    port: Arc<OpenPort>,
    listeners: Vec<JoinHandle<()>>,
    bound: Vec<SocketAddr>,
}

impl Port {
    /// A closed port.
    pub(crate) fn new(addresses: Vec<String>, requests: RequestLimits, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { addresses, requests, clock, open: Mutex::new(None), turn: tokio::sync::Mutex::new(()) })
    }

    /// Waits at most this long until the requests that run here for other members have ended. From now on their requests
    /// get the response that another node leads, until one does.
    pub(crate) async fn drain(&self, bound: Duration) -> bool {
        let Some(port) = self.current() else { return true };
        port.running.end_requests(self.clock.sleep_until(self.clock.now().after(bound))).await
    }

    pub(super) fn current(&self) -> Option<Arc<OpenPort>> {
        self.open.lock().as_ref().map(|open| open.port.clone())
    }

    /// The bound addresses, with the chosen port instead of port 0.
    #[cfg(test)]
    pub(super) fn bound(&self) -> Vec<SocketAddr> {
        self.open.lock().as_ref().map(|open| open.bound.clone()).unwrap_or_default()
    }

    fn listen(&self, session: Session) -> Result<Listening> {
        let mut sockets = Vec::new();
        for address in &self.addresses {
            let failed = |error| Error::internal(format!("the cluster port cannot listen on {address}: {error}"));
            sockets.push(listen_tcp(address).map_err(failed)?);
        }
        let bound: Vec<SocketAddr> = sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        tracing::info!(addresses = ?bound, "the cluster port listens");
        let largest = self.requests.body.min(MAX_BODY) + HEADS;
        let port = OpenPort::new(session, self.clock.clone(), largest);
        let listeners = sockets.into_iter().map(|socket| tokio::spawn(accept::run(socket, port.clone()))).collect();
        Ok(Listening { port, listeners, bound })
    }
}

#[async_trait]
impl ClusterPort for Port {
    async fn open(&self, identity: PortIdentity, service: Arc<dyn PeerService>) -> Result<Arc<dyn Transport>> {
        let _turn = self.turn.lock().await;
        let cluster_addr = identity.cluster_addr.clone();
        let session = Session { identity: Identity::new(identity, self.clock.clone())?, cluster_addr, service };
        if let Some(port) = self.current() {
            port.replace(session);
            return Ok(Arc::new(Sender(port)));
        }
        let listening = self.listen(session)?;
        let port = listening.port.clone();
        *self.open.lock() = Some(listening);
        Ok(Arc::new(Sender(port)))
    }

    async fn close(&self) {
        let _turn = self.turn.lock().await;
        let Some(Listening { port, listeners, bound }) = self.open.lock().take() else { return };
        port.close();
        for listener in listeners {
            // The socket is closed when its task has ended.
            let _ = listener.await;
        }
        tracing::info!(addresses = ?bound, "the cluster port is closed");
    }

    async fn forward(
        &self,
        to: &Member,
        request: Box<Incoming>,
    ) -> std::result::Result<ForwardedResponse, NotForwarded> {
        let Some((port, member)) = self.current().and_then(|port| Some((port.clone(), port.recipient(to)?))) else {
            return Err(NotForwarded::Elsewhere(request));
        };
        let is_unproven = request.cluster.as_ref().is_some_and(|part| part.is_unproven);
        let _unproven = match is_unproven.then(|| member.unproven.try_acquire()) {
            Some(Err(_)) => return Err(NotForwarded::Busy(request)),
            Some(Ok(permit)) => Some(permit),
            None => None,
        };
        let Some(head) = request::encode(&request) else { return Err(NotForwarded::TooLong(request)) };
        let body = request::body(&request).clone();
        let frame = move |id| request_call(id, head.expose(), body);
        match member.requests.call(&port, &member, frame, self.requests.duration).await {
            Ok(CallResponse::Response(response)) => Ok(response),
            Ok(CallResponse::Elsewhere) | Err(CallError::NotSent) => Err(NotForwarded::Elsewhere(request)),
            Err(CallError::TooLong) => Err(NotForwarded::TooLong(request)),
            Ok(CallResponse::Done(_) | CallResponse::Failed(_)) | Err(CallError::Lost) => {
                Err(NotForwarded::Lost(request))
            }
        }
    }

    async fn announce_root(&self, to: &Member, coming: &ComingRoot) -> bool {
        let Some(port) = self.current() else { return false };
        let Some(member) = port.recipient(to) else { return false };
        let frame = |id| Outgoing::new(tag::ROOT, coming_root::encode(id, coming).expose(), Bytes::new());
        matches!(member.calls.call(&port, &member, frame, ROOT).await, Ok(CallResponse::Done(_)))
    }

    async fn exchange_clock(&self, to: &Member, own: Timestamp) -> Option<Timestamp> {
        let port = self.current()?;
        let member = port.members.get(to)?;
        let frame = |id| call(tag::CLOCK, id, Bytes::copy_from_slice(&own.nanos().to_le_bytes()));
        match member.calls.call(&port, &member, frame, CLOCK).await {
            Ok(CallResponse::Done(theirs)) => Some(Timestamp::from_nanos(theirs.cast_signed())),
            _ => None,
        }
    }

    async fn open_slots(&self, to: &Member, record: &[u8; 32]) -> Option<u64> {
        let port = self.current()?;
        let member = port.members.get(to)?;
        let frame = |id| call(tag::SLOTS, id, Bytes::copy_from_slice(record));
        match member.calls.call(&port, &member, frame, CLOCK).await {
            Ok(CallResponse::Done(slots)) => Some(slots),
            _ => None,
        }
    }

    fn members_changed(&self) {
        if let Some(port) = self.current() {
            port.members_changed();
        }
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Sends through an open port; sends nothing after its end.
struct Sender(Arc<OpenPort>);

#[async_trait]
impl Transport for Sender {
    fn send(&self, to: &Member, message: Bytes) {
        if message.len() > MAX_MESSAGE {
            tracing::error!(bytes = message.len(), "a message of Raft is too long");
            return;
        }
        if let Some(member) = self.0.recipient(to) {
            messages::send(&self.0, member, message);
        }
    }

    async fn send_snapshot(
        &self,
        to: &Member,
        head: Bytes,
        parts: Box<dyn SnapshotParts>,
    ) -> std::result::Result<(), StorageError> {
        let member = self.0.recipient(to).ok_or(StorageError::Closed)?;
        snapshot::send(&self.0, &member, head, parts).await
    }

    async fn propose(&self, leader: &Member, batch: Bytes) -> std::result::Result<Index, StorageError> {
        if batch.len() > MAX_MESSAGE {
            return Err(StorageError::TooLarge { size: batch.len(), limit: MAX_MESSAGE });
        }
        let member = self.0.recipient(leader).ok_or(StorageError::NoLeader)?;
        let frame = |id| call(tag::COMMIT, id, batch);
        match member.calls.call(&self.0, &member, frame, COMMIT).await {
            Ok(CallResponse::Done(index)) => Ok(Index(index)),
            Ok(CallResponse::Failed(error)) => Err(error),
            Err(CallError::NotSent | CallError::TooLong) => Err(StorageError::NoLeader),
            Ok(CallResponse::Response(_) | CallResponse::Elsewhere) | Err(CallError::Lost) => {
                Err(StorageError::Unknown)
            }
        }
    }

    async fn read_index(&self, leader: &Member) -> std::result::Result<Index, StorageError> {
        let member = self.0.recipient(leader).ok_or(StorageError::NoLeader)?;
        let frame = |id| call(tag::READ_INDEX, id, Bytes::new());
        match member.calls.call(&self.0, &member, frame, READ_INDEX).await {
            Ok(CallResponse::Done(index)) => Ok(Index(index)),
            Ok(CallResponse::Failed(StorageError::NotLeader)) => Err(StorageError::NotLeader),
            _ => Err(StorageError::NoLeader),
        }
    }
}
