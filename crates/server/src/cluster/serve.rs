//! What other members send to this node.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use keepfast_core::cluster::port::PeerService;
use keepfast_framework::clock::Clock;
use keepfast_framework::{Timestamp, offload};
use keepfast_seals::{at_external_key_depth, external_key_depth};
use keepfast_storage::{Consensus, Index, MAX_SNAPSHOT_PART, Origin, SnapshotParts, StorageError};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::calls::MAX_RESPONSE;
use super::coming_root;
use super::connection::{Connection, Halves, Reader, write_all};
use super::dial::HANDSHAKE;
use super::failure;
use super::frames::{self, Frame, Kind, Outgoing, invalid, tag};
use super::open_port::OpenPort;
use super::request;

/// The responses that wait to be written.
const QUEUE: usize = 16;
/// The most time until the next part of a snapshot: only one is received at a time.
const NEXT_PART: Duration = Duration::from_secs(60);
/// The only number of hops of a request: it was received from a client by the node that sent it.
const HOPS: u8 = 1;

/// Serves a connection until it ends.
pub(super) async fn run(port: &Arc<OpenPort>, connection: Connection, kind: Kind, halves: Halves) {
    let Halves { reader, writer } = halves;
    let (ended, silence) = (connection.ended(), reader.silence(port.clock.clone()));
    let (responses, queue) = mpsc::channel(QUEUE);
    let read = async {
        match kind {
            Kind::Messages => messages(port, &connection, reader).await,
            Kind::Snapshot => snapshot(port, &connection, reader, responses).await,
            Kind::Calls | Kind::Requests => calls(port, &connection, kind, reader, responses).await,
        }
    };
    let result = tokio::select! {
        error = read => Err(error),
        done = write_all(writer, queue, &*port.clock) => done,
        () = silence => Err(io::ErrorKind::TimedOut.into()),
        () = ended => Ok(()),
    };
    if let Err(error) = result {
        tracing::debug!(node = connection.credentials().origin.node, ?kind, %error, "a connection of a member ended");
    }
}

fn service(port: &OpenPort) -> io::Result<Arc<dyn PeerService>> {
    Ok(port.session().ok_or(io::ErrorKind::NotConnected)?.service.clone())
}

fn consensus(port: &OpenPort) -> io::Result<Arc<dyn Consensus>> {
    service(port)?.backend().consensus().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

async fn messages(port: &OpenPort, connection: &Connection, mut reader: Reader) -> io::Error {
    loop {
        let frame = match frames::read(&mut reader, Kind::Messages.limit(0)).await {
            Ok(Frame { tag: tag::ALIVE, .. }) if port.keeps(&connection.credentials().origin, Kind::Messages) => {
                continue;
            }
            Ok(Frame { tag: tag::ALIVE, .. }) => return io::ErrorKind::ConnectionAborted.into(),
            Ok(Frame { tag: tag::MESSAGE, body }) => body,
            Ok(_) => return invalid("a frame that the connection does not have"),
            Err(error) => return error,
        };
        let consensus = match consensus(port) {
            Ok(consensus) => consensus,
            Err(error) => return error,
        };
        let from = Origin::clone(&connection.credentials().origin);
        port.heard(&from);
        let mut is_readable = true;
        if !connection.deliver(|| is_readable = consensus.deliver(from, frame)) {
            return io::ErrorKind::ConnectionAborted.into();
        }
        if !is_readable {
            return invalid("a message of Raft");
        }
    }
}

/// Receives one snapshot. A task of its own, which sees the end of the connection as an error of the parts, so that the
/// storage is never stopped in the middle.
async fn snapshot(
    port: &OpenPort,
    connection: &Connection,
    mut reader: Reader,
    responses: mpsc::Sender<Outgoing>,
) -> io::Error {
    let head = loop {
        match frames::read(&mut reader, Kind::Snapshot.limit(0)).await {
            Ok(Frame { tag: tag::ALIVE, .. }) => {}
            Ok(Frame { tag: tag::HEAD, body }) => break body,
            Ok(_) => return invalid("a snapshot begins with its head"),
            Err(error) => return error,
        }
    };
    let consensus = match consensus(port) {
        Ok(consensus) => consensus,
        Err(error) => return error,
    };
    let from = Origin::clone(&connection.credentials().origin);
    let (ended, clock) = (connection.ended(), port.clock.clone());
    let received = tokio::spawn(async move {
        let mut parts = ReceivedParts { reader, ended: Box::pin(ended), progress: Progress::Open, clock };
        let result = consensus.receive_snapshot(from, head, &mut parts).await;
        (result.and_then(|()| parts.is_complete()), parts.reader)
    });
    let Ok((result, reader)) = received.await else { return io::Error::other("the storage panicked") };
    let response = match result {
        Ok(()) => Outgoing::empty(tag::STORED),
        Err(error) => {
            tracing::warn!(node = connection.credentials().origin.node, %error, "a snapshot was refused");
            Outgoing::new(tag::REFUSED, &failure::encode(&error), Bytes::new())
        }
    };
    let _ = responses.send(response).await;
    timeout(HANDSHAKE, drain(reader)).await.map_or_else(io::Error::from, |()| io::ErrorKind::UnexpectedEof.into())
}

/// Reads what is still under way until the sender has the response and closes the connection. To close it with unread bytes
/// would reset it, and the response could be lost.
async fn drain(mut reader: Reader) {
    let mut rest = vec![0; 16 << 10];
    while reader.read(&mut rest).await.is_ok_and(|length| length > 0) {}
}

struct ReceivedParts<E> {
    reader: Reader,
    ended: std::pin::Pin<Box<E>>,
    progress: Progress,
    clock: Arc<dyn Clock>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Open,
    Complete,
    Failed,
}

impl<E> ReceivedParts<E> {
    fn is_complete(&self) -> Result<(), StorageError> {
        if self.progress == Progress::Complete { Ok(()) } else { Err(StorageError::Closed) }
    }
}

#[async_trait]
impl<E: Future<Output = ()> + Send> SnapshotParts for ReceivedParts<E> {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        // The frames that show that the sender is alive do not count.
        let late = self.clock.now().after(NEXT_PART);
        while self.progress == Progress::Open {
            self.progress = Progress::Failed;
            let frame = tokio::select! {
                frame = frames::read(&mut self.reader, MAX_SNAPSHOT_PART + 1) => frame,
                () = &mut self.ended => Err(io::ErrorKind::ConnectionAborted.into()),
                () = self.clock.sleep_until(late) => Err(io::ErrorKind::TimedOut.into()),
            };
            match frame.map_err(|error| StorageError::io("receive a snapshot", error))? {
                Frame { tag: tag::ALIVE, .. } => self.progress = Progress::Open,
                Frame { tag: tag::PART, body } => {
                    self.progress = Progress::Open;
                    return Ok(Some(body));
                }
                Frame { tag: tag::END, .. } => self.progress = Progress::Complete,
                _ => return Err(StorageError::corrupt("a frame that a snapshot does not have")),
            }
        }
        self.is_complete().map(|()| None)
    }
}

async fn calls(
    port: &Arc<OpenPort>,
    connection: &Connection,
    kind: Kind,
    mut reader: Reader,
    responses: mpsc::Sender<Outgoing>,
) -> io::Error {
    let running = if kind == Kind::Calls { &port.running.calls } else { &port.running.requests };
    loop {
        let mut frame = match frames::read(&mut reader, kind.limit(port.largest)).await {
            Ok(Frame { tag: tag::ALIVE, .. }) => continue,
            Ok(frame) => frame,
            Err(error) => return error,
        };
        let is_of_kind = match frame.tag {
            tag::COMMIT | tag::READ_INDEX | tag::ROOT | tag::CLOCK | tag::SLOTS => kind == Kind::Calls,
            tag::REQUEST => kind == Kind::Requests,
            _ => false,
        };
        let (Ok(id), true) = (frame.body.try_get_u64_le(), is_of_kind) else {
            return invalid("a frame that the connection does not have");
        };
        let Ok(permit) = running.clone().try_acquire_owned() else {
            let _ = responses.send(busy(kind, id)).await;
            continue;
        };
        let service = match service(port) {
            Ok(service) => service,
            Err(error) => return error,
        };
        let from = connection.credentials().origin.clone();
        if !service.is_member(&from) {
            return io::ErrorKind::ConnectionAborted.into();
        }
        let call = Call { id, responses: responses.clone(), has_responded: false };
        // The call runs to its end when the connection ends: a commit or a handler must not stop in the middle.
        tokio::spawn(async move {
            let response = match frame.tag {
                tag::COMMIT => done(id, commit(&*service, frame.body).await),
                tag::READ_INDEX => done(id, read_index(&*service).await),
                tag::CLOCK => done(id, exchange_clock(&*service, &from, frame.body)),
                tag::SLOTS => done(id, open_slots(&*service, &from, &frame.body).await),
                tag::ROOT => done(id, expect_root(&*service, &from, frame.body)),
                _ => handle(id, &*service, &from, frame.body).await,
            };
            call.send(response).await;
            drop(permit);
        });
    }
}

/// A call that gets its response, also when its handler panics.
struct Call {
    id: u64,
    responses: mpsc::Sender<Outgoing>,
    has_responded: bool,
}

impl Call {
    async fn send(mut self, response: Outgoing) {
        self.has_responded = true;
        let _ = self.responses.send(response).await;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.has_responded {
            return;
        }
        // The queue may be full, and a destructor cannot wait. Without a runtime there is no connection.
        if let Ok(runtime) = Handle::try_current() {
            let (responses, id) = (self.responses.clone(), self.id);
            runtime.spawn(async move { responses.send(done(id, Err(StorageError::Unknown))).await });
        }
    }
}

async fn commit(service: &dyn PeerService, batch: Bytes) -> Result<Index, StorageError> {
    let consensus = service.backend().consensus().ok_or(StorageError::NotLeader)?;
    consensus.propose(batch).await
}

async fn read_index(service: &dyn PeerService) -> Result<Index, StorageError> {
    let consensus = service.backend().consensus().ok_or(StorageError::NotLeader)?;
    consensus.read_index().await
}

/// Nanoseconds since 1970 are sent as the bits of an index.
fn exchange_clock(service: &dyn PeerService, from: &Origin, mut frame: Bytes) -> Result<Index, StorageError> {
    let leader = frame.try_get_i64_le().map_err(|_| StorageError::Unknown)?;
    let own = service.exchange_clock(from, Timestamp::from_nanos(leader)).ok_or(StorageError::NotLeader)?;
    Ok(Index(own.nanos().cast_unsigned()))
}

/// The bits are sent as those of an index.
async fn open_slots(service: &dyn PeerService, from: &Origin, frame: &[u8]) -> Result<Index, StorageError> {
    let record = frame.try_into().map_err(|_| StorageError::Unknown)?;
    service.open_slots(from, record).await.map(Index).ok_or(StorageError::NotLeader)
}

fn expect_root(service: &dyn PeerService, from: &Origin, frame: Bytes) -> Result<Index, StorageError> {
    let coming = coming_root::decode(frame).ok_or(StorageError::Unknown)?;
    // A response has an index; that of a root key is of no use.
    service.expect_root(from, coming).then_some(Index(0)).ok_or(StorageError::NotLeader)
}

fn done(id: u64, result: Result<Index, StorageError>) -> Outgoing {
    match result {
        Ok(Index(index)) => response_frame(tag::DONE, id, &index.to_le_bytes(), Bytes::new()),
        Err(error) => response_frame(tag::FAILED, id, &failure::encode(&error), Bytes::new()),
    }
}

async fn handle(id: u64, service: &dyn PeerService, from: &Origin, mut frame: Bytes) -> Outgoing {
    let length = frame.len();
    let decoded = match frame.try_get_u8() {
        Ok(HOPS) => offload::run(length, || request::decode(frame)).await,
        _ => None,
    };
    let Some(request) = decoded else {
        tracing::warn!(node = from.node, "a member sent a request that cannot be read");
        return response_frame(tag::ELSEWHERE, id, &[], Bytes::new());
    };
    let depth = external_key_depth(&request.headers);
    let handled = at_external_key_depth(depth, service.handle_forwarded(from, request)).await;
    let Ok((response, index)) = handled else {
        return response_frame(tag::ELSEWHERE, id, &[], Bytes::new());
    };
    let (status, decided, content_type) = (response.status().0, response.decided().0, response.content_type());
    let head = request::encode_response(status, decided, index, content_type);
    let body = match response.file().cloned() {
        None => Ok(response.into_body()),
        Some(file) => offload::run(MAX_RESPONSE, || file.read_at(0, MAX_RESPONSE)).await,
    };
    match body {
        Ok(body) if head.len() + body.len() + 16 <= MAX_RESPONSE => response_frame(tag::RESPONSE, id, &head, body),
        _ => {
            tracing::error!(node = from.node, "a response is too long for the cluster port: request it at the leader");
            done(id, Err(StorageError::Unknown))
        }
    }
}

/// The response when too many calls run: nothing was done.
fn busy(kind: Kind, id: u64) -> Outgoing {
    match kind {
        Kind::Requests => response_frame(tag::ELSEWHERE, id, &[], Bytes::new()),
        _ => done(id, Err(StorageError::NoLeader)),
    }
}

fn response_frame(tag: u8, id: u64, fields: &[u8], body: Bytes) -> Outgoing {
    Outgoing::new(tag, &[&id.to_le_bytes(), fields].concat(), body)
}

/// The frame of a call with this id.
pub(super) fn call(tag: u8, id: u64, body: Bytes) -> Outgoing {
    response_frame(tag, id, &[], body)
}

/// The frame of a request with this id; `head` and `body` are those of [`request::encode`].
pub(super) fn request_call(id: u64, head: &[u8], body: Bytes) -> Outgoing {
    let fields = keepfast_crypto::secret::SecretBytes::new([&id.to_le_bytes(), &[HOPS][..], head].concat());
    Outgoing::new(tag::REQUEST, fields.expose(), body)
}
