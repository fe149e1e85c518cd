//! Calls to one member: many at a time on one connection, each with an id, so that none waits for another.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Buf;
use keepfast_core::cluster::port::ForwardedResponse;
use keepfast_storage::StorageError;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;

use super::connection::{Connection, Halves, Reader, Source, write_all};
use super::connector::Connector;
use super::failure;
use super::frames::{self, Frame, Kind, Outgoing, invalid, tag};
use super::members::Recipient;
use super::open_port::OpenPort;
use super::request;

/// The longest frame of the node that responds, with its type.
pub(super) const MAX_RESPONSE: usize = 256 << 20;
/// The bytes of calls that are under way at one member; a longer call waits until it is the only one.
const MAX_BYTES: usize = 64 << 20;
/// The frames that wait to be written.
const QUEUE: usize = 16;
/// The unit of the permits for bytes.
const UNIT: usize = 1 << 10;

/// What the other node returned.
pub(super) enum CallResponse {
    Done(u64),
    Failed(StorageError),
    Response(ForwardedResponse),
    Elsewhere,
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// Nothing was sent.
    NotSent,
    /// Nothing was sent: the call is longer than the other node accepts.
    TooLong,
    /// Perhaps it takes effect.
    Lost,
}

/// The calls of one kind to one member.
pub(super) struct Caller {
    calls: Semaphore,
    bytes: Semaphore,
    connector: Arc<Connector>,
}

/// An open connection.
pub(super) struct Live {
    frames: mpsc::Sender<Queued>,
    next: AtomicU64,
    /// The calls without a response; `None` after the end.
    pending: Mutex<Option<HashMap<u64, oneshot::Sender<CallResponse>>>>,
    limit: usize,
    /// The number of the session whose certificate it has.
    session: u64,
    /// Whether a newer connection has replaced it.
    is_replaced: AtomicBool,
    /// Notified when it may have no calls any more.
    drains: Notify,
}

pub(super) struct Queued {
    frame: Outgoing,
    ticket: Arc<Ticket>,
}

/// Whether a frame was written, perhaps in part, or is no longer wanted: only one of both.
#[derive(Default)]
struct Ticket(AtomicU8);

impl Ticket {
    const WAITS: u8 = 0;
    const STARTED: u8 = 1;
    const CANCELLED: u8 = 2;

    /// Whether the frame waited until now.
    fn leave(&self, state: u8) -> bool {
        self.0.compare_exchange(Self::WAITS, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Caller {
    pub(super) fn new(kind: Kind, most: usize) -> Self {
        let (calls, bytes) = (Semaphore::new(most), Semaphore::new(MAX_BYTES / UNIT));
        Self { calls, bytes, connector: Connector::new(kind) }
    }

    /// Sends a call and returns its response. `frame` receives the id of the call.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(super) async fn call(
        &self,
        port: &Arc<OpenPort>,
        to: &Arc<Recipient>,
        frame: impl FnOnce(u64) -> Outgoing,
        within: Duration,
    ) -> Result<CallResponse, CallError> {
        let ticket = Arc::new(Ticket::default());
        let called = timeout(within, self.exchange(port, to, frame, &ticket)).await;
        match called.ok().flatten() {
            Some(outcome) => outcome,
            None if ticket.leave(Ticket::CANCELLED) => Err(CallError::NotSent),
            None => Err(CallError::Lost),
        }
    }

    async fn exchange(
        &self,
        port: &Arc<OpenPort>,
        to: &Arc<Recipient>,
        frame: impl FnOnce(u64) -> Outgoing,
        ticket: &Arc<Ticket>,
    ) -> Option<Result<CallResponse, CallError>> {
        let _one = self.calls.acquire().await.ok()?;
        let live = self.connector.live(port, to).await?;
        let id = live.next.fetch_add(1, Ordering::Relaxed);
        let frame = frame(id);
        if frame.length() > live.limit {
            tracing::warn!(node = to.origin.node, bytes = frame.length(), "a call is longer than the member accepts");
            return Some(Err(CallError::TooLong));
        }
        let _bytes = self.reserve(frame.length()).await?;
        let (sender, response) = oneshot::channel();
        live.pending.lock().as_mut()?.insert(id, sender);
        let _pending = Pending { live: &live, id };
        live.frames.send(Queued { frame, ticket: ticket.clone() }).await.ok()?;
        response.await.ok().map(Ok)
    }

    async fn reserve(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let units = bytes.div_ceil(UNIT).min(MAX_BYTES / UNIT);
        self.bytes.acquire_many(u32::try_from(units).ok()?).await.ok()
    }
}

/// A call without a response; dropped with the call.
struct Pending<'a> {
    live: &'a Live,
    id: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.live.pending.lock().as_mut() {
            pending.remove(&self.id);
        }
        if self.live.is_replaced() {
            self.live.drains.notify_one();
        }
    }
}

impl Live {
    /// A connection of this session, and the queue of what is sent on it.
    pub(super) fn new(limit: usize, session: u64) -> (Arc<Self>, mpsc::Receiver<Queued>) {
        let (frames, queue) = mpsc::channel(QUEUE);
        let live = Live {
            frames,
            next: AtomicU64::new(0),
            pending: Mutex::new(Some(HashMap::new())),
            limit,
            session,
            is_replaced: AtomicBool::new(false),
            drains: Notify::new(),
        };
        (Arc::new(live), queue)
    }

    /// Whether it has the certificate of this session.
    pub(super) fn is_of(&self, session: u64) -> bool {
        self.session == session
    }

    /// Ends the connection after its calls: a newer one has replaced it.
    pub(super) fn replace(&self) {
        self.is_replaced.store(true, Ordering::Release);
        self.drains.notify_one();
    }

    /// Whether a newer connection has replaced it.
    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Acquire)
    }

    /// Completes when the connection was replaced, and has no calls.
    async fn drained(&self) {
        loop {
            let is_idle = self.pending.lock().as_ref().is_none_or(HashMap::is_empty);
            if is_idle && self.is_replaced() {
                return;
            }
            self.drains.notified().await;
        }
    }

    /// Whether it takes calls.
    pub(super) fn is_open(&self) -> bool {
        self.pending.lock().is_some()
    }

    /// Ends all calls, and takes no more.
    pub(super) fn close(&self) {
        // Without a sender, each call ends.
        *self.pending.lock() = None;
    }

    /// Sends and receives until the connection ends.
    pub(super) async fn run(
        &self,
        port: &OpenPort,
        to: &Recipient,
        (connection, mut halves): (Connection, Halves),
        queue: mpsc::Receiver<Queued>,
    ) -> io::Error {
        let silence = halves.reader.silence(port.clock.clone());
        tokio::select! {
            error = self.read(&mut halves.reader) => error,
            done = write_all(halves.writer, queue, &*port.clock) => done.err().unwrap_or(io::ErrorKind::BrokenPipe.into()),
            () = silence => io::ErrorKind::TimedOut.into(),
            () = connection.ended() => io::ErrorKind::ConnectionAborted.into(),
            () = to.removed() => io::ErrorKind::ConnectionAborted.into(),
            () = self.drained() => io::Error::other("a newer connection has replaced it"),
        }
    }

    async fn read(&self, reader: &mut Reader) -> io::Error {
        loop {
            let frame = match frames::read(reader, MAX_RESPONSE).await {
                Ok(frame) => frame,
                Err(error) => return error,
            };
            if frame.tag == tag::ALIVE {
                continue;
            }
            let Some((id, response)) = decode(frame) else { return invalid("the form of a response") };
            let waiting = self.pending.lock().as_mut().and_then(|pending| pending.remove(&id));
            // The caller may have stopped to wait.
            if let Some(waiting) = waiting {
                let _ = waiting.send(response);
            }
        }
    }
}

/// The id and the response of a frame; `None` for another form.
pub(super) fn decode(mut frame: Frame) -> Option<(u64, CallResponse)> {
    let (id, mut body) = (frame.body.try_get_u64_le().ok()?, frame.body);
    let response = match frame.tag {
        tag::DONE => CallResponse::Done(body.try_get_u64_le().ok().filter(|_| body.is_empty())?),
        tag::FAILED => CallResponse::Failed(failure::decode(body)?),
        tag::RESPONSE => CallResponse::Response(request::decode_response(body)?),
        tag::ELSEWHERE if body.is_empty() => CallResponse::Elsewhere,
        _ => return None,
    };
    Some((id, response))
}

impl Source for mpsc::Receiver<Queued> {
    async fn next(&mut self) -> Option<Outgoing> {
        loop {
            let queued = self.recv().await?;
            if queued.ticket.leave(Ticket::STARTED) {
                return Some(queued.frame);
            }
        }
    }

    fn waiting(&mut self) -> Option<Outgoing> {
        loop {
            let queued = self.try_recv().ok()?;
            if queued.ticket.leave(Ticket::STARTED) {
                return Some(queued.frame);
            }
        }
    }
}
