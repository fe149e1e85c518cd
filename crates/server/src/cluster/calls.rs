//! Calls to one member: many at a time on one connection, each with an id, so that none waits for another.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Buf;
use keepfast_core::cluster::port::ForwardedResponse;
use keepfast_storage::StorageError;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;

use super::back_off;
use super::connection::{Reader, Source, write_all};
use super::dial::{Dialled, dial};
use super::failure;
use super::frames::{self, Frame, Kind, Outgoing, invalid, tag};
use super::members::Recipient;
use super::open_port::OpenPort;
use super::request;

/// The longest frame of the answering node, with its type.
pub(super) const MAX_ANSWER: usize = 256 << 20;
/// The bytes of calls that are under way at one member; a longer call waits until it is the only one.
const MAX_BYTES: usize = 64 << 20;
/// The frames that wait to be written.
const QUEUE: usize = 16;
/// The unit of the permits for bytes.
const UNIT: usize = 1 << 10;

/// What the other node returned.
pub(super) enum Answer {
    Done(u64),
    Failed(StorageError),
    Response(ForwardedResponse),
    Elsewhere,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Nothing was sent.
    NotSent,
    /// Nothing was sent: the call is longer than the other node accepts.
    TooLong,
    /// Perhaps it takes effect.
    Lost,
}

/// The calls of one kind to one member.
pub(super) struct Caller {
    kind: Kind,
    calls: Semaphore,
    bytes: Semaphore,
    live: tokio::sync::Mutex<Option<Arc<Live>>>,
    failures: AtomicU32,
    /// Whether the last attempt to connect failed a short time ago.
    pauses: Arc<AtomicBool>,
}

/// An open connection.
struct Live {
    frames: mpsc::Sender<Queued>,
    next: AtomicU64,
    /// The calls without an answer; `None` after the end.
    pending: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    limit: usize,
    /// The number of the session whose certificate it has.
    session: u64,
    /// Whether a newer connection has replaced it.
    is_replaced: AtomicBool,
    /// Notified when it may have no calls any more.
    drains: Notify,
}

struct Queued {
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
        Self {
            kind,
            calls: Semaphore::new(most),
            bytes: Semaphore::new(MAX_BYTES / UNIT),
            live: tokio::sync::Mutex::default(),
            failures: AtomicU32::new(0),
            pauses: Arc::default(),
        }
    }

    /// Sends a call and returns its answer. `frame` receives the id of the call.
    ///
    /// # Errors
    /// See [`NoAnswer`].
    pub(super) async fn call(
        &self,
        port: &Arc<OpenPort>,
        to: &Arc<Recipient>,
        frame: impl FnOnce(u64) -> Outgoing,
        within: Duration,
    ) -> Result<Answer, NoAnswer> {
        let ticket = Arc::new(Ticket::default());
        let called = timeout(within, self.exchange(port, to, frame, &ticket)).await;
        match called.ok().flatten() {
            Some(outcome) => outcome,
            None if ticket.leave(Ticket::CANCELLED) => Err(NoAnswer::NotSent),
            None => Err(NoAnswer::Lost),
        }
    }

    async fn exchange(
        &self,
        port: &Arc<OpenPort>,
        to: &Arc<Recipient>,
        frame: impl FnOnce(u64) -> Outgoing,
        ticket: &Arc<Ticket>,
    ) -> Option<Result<Answer, NoAnswer>> {
        let _one = self.calls.acquire().await.ok()?;
        let live = self.live(port, to).await?;
        let id = live.next.fetch_add(1, Ordering::Relaxed);
        let frame = frame(id);
        if frame.length() > live.limit {
            tracing::warn!(node = to.origin.node, bytes = frame.length(), "a call is longer than the member accepts");
            return Some(Err(NoAnswer::TooLong));
        }
        let _bytes = self.reserve(frame.length()).await?;
        let (sender, answer) = oneshot::channel();
        live.pending.lock().as_mut()?.insert(id, sender);
        let _pending = Pending { live: &live, id };
        live.frames.send(Queued { frame, ticket: ticket.clone() }).await.ok()?;
        answer.await.ok().map(Ok)
    }

    async fn reserve(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let units = bytes.div_ceil(UNIT).min(MAX_BYTES / UNIT);
        self.bytes.acquire_many(u32::try_from(units).ok()?).await.ok()
    }

    /// The open connection, or a new one, also when the keys of this node are others than when it was opened: the other node
    /// soon ends it. Callers wait for the same attempt; `None` when there is no connection, and for a short time after that.
    async fn live(&self, port: &Arc<OpenPort>, to: &Arc<Recipient>) -> Option<Arc<Live>> {
        let mut current = self.live.lock().await;
        current.take_if(|live| live.pending.lock().is_none());
        let session = port.session_number();
        if current.as_ref().is_some_and(|live| live.session == session) || self.pauses.load(Ordering::Acquire) {
            return current.clone();
        }
        match dial(port, &to.origin, &to.address(), self.kind).await {
            Ok(dialled) => {
                self.failures.store(0, Ordering::Relaxed);
                if let Some(older) = current.replace(Live::start(port.clone(), to.clone(), dialled, session)) {
                    older.replaced();
                }
            }
            Err(error) => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                if failures == 1 {
                    tracing::warn!(node = to.origin.node, kind = ?self.kind, %error, "a member is not reached");
                }
                self.pause(port, failures);
                current.take_if(|live| live.pending.lock().is_none());
            }
        }
        current.clone()
    }

    fn pause(&self, port: &Arc<OpenPort>, failures: u32) {
        self.pauses.store(true, Ordering::Release);
        let (pauses, clock) = (self.pauses.clone(), port.clock.clone());
        tokio::spawn(async move {
            clock.sleep_until(clock.now().after(back_off::pause(failures))).await;
            pauses.store(false, Ordering::Release);
        });
    }
}

/// A call without an answer; dropped with the call.
struct Pending<'a> {
    live: &'a Live,
    id: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.live.pending.lock().as_mut() {
            pending.remove(&self.id);
        }
        if self.live.is_replaced.load(Ordering::Acquire) {
            self.live.drains.notify_one();
        }
    }
}

impl Live {
    fn start(port: Arc<OpenPort>, to: Arc<Recipient>, dialled: Dialled, session: u64) -> Arc<Self> {
        let (frames, queue) = mpsc::channel(QUEUE);
        let live = Arc::new(Live {
            frames,
            next: AtomicU64::new(0),
            pending: Mutex::new(Some(HashMap::new())),
            limit: dialled.limit,
            session,
            is_replaced: AtomicBool::new(false),
            drains: Notify::new(),
        });
        let started = live.clone();
        tokio::spawn(async move {
            let error = started.run(&port, &to, dialled, queue).await;
            tracing::debug!(node = to.origin.node, %error, "a connection to a member ended");
            // Without a sender, each call ends.
            *started.pending.lock() = None;
        });
        live
    }

    async fn run(&self, port: &OpenPort, to: &Recipient, dialled: Dialled, queue: mpsc::Receiver<Queued>) -> io::Error {
        let Dialled { connection, mut halves, .. } = dialled;
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

    /// Ends the connection after its calls.
    fn replaced(&self) {
        self.is_replaced.store(true, Ordering::Release);
        self.drains.notify_one();
    }

    /// Completes when the connection was replaced, and has no calls.
    async fn drained(&self) {
        loop {
            let is_idle = self.pending.lock().as_ref().is_none_or(HashMap::is_empty);
            if is_idle && self.is_replaced.load(Ordering::Acquire) {
                return;
            }
            self.drains.notified().await;
        }
    }

    async fn read(&self, reader: &mut Reader) -> io::Error {
        loop {
            let frame = match frames::read(reader, MAX_ANSWER).await {
                Ok(frame) => frame,
                Err(error) => return error,
            };
            if frame.tag == tag::ALIVE {
                continue;
            }
            let Some((id, answer)) = decode(frame) else { return invalid("the form of an answer") };
            let waiting = self.pending.lock().as_mut().and_then(|pending| pending.remove(&id));
            // The caller may have stopped to wait.
            if let Some(waiting) = waiting {
                let _ = waiting.send(answer);
            }
        }
    }
}

/// The id and the answer of a frame; `None` for another form.
pub(super) fn decode(mut frame: Frame) -> Option<(u64, Answer)> {
    let (id, mut body) = (frame.body.try_get_u64_le().ok()?, frame.body);
    let answer = match frame.tag {
        tag::DONE => Answer::Done(body.try_get_u64_le().ok().filter(|_| body.is_empty())?),
        tag::FAILED => Answer::Failed(failure::decode(body)?),
        tag::RESPONSE => Answer::Response(request::decode_response(body)?),
        tag::ELSEWHERE if body.is_empty() => Answer::Elsewhere,
        _ => return None,
    };
    Some((id, answer))
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
