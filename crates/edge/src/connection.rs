//! One connection: its phases, their timeouts, and its orderly end.

mod wire;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Version;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use keepfast_crypto::secret::SecretBytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use self::wire::{Verdict, Wire};
use crate::config::Limits;
use crate::connections::{Charge, Peer};
use crate::http::Edge;
use crate::kernel::Kernel;
use crate::timeouts::{OpenRequest, PhaseTimeouts};

/// The longest head of an HTTP/1 request, in bytes.
const HEAD: usize = 64 << 10;
/// The longest header list of HTTP/2 without the token, in bytes as in RFC 9113 section 6.5.2.
const HEADER_LIST: usize = 8 << 10;
/// The part of a head that the memory estimate of a connection includes, in bytes.
pub(crate) const HEAD_INCLUDED: usize = 8 << 10;
/// The memory of an HTTP/2 request until its response is sent, in bytes: its task, its stream and the head of its
/// response. More than the measured value.
const STREAM: usize = 12 << 10;
/// The memory of each field of its head, in bytes.
const FIELD: usize = 160;
/// The memory of a connection whose client does not read, in bytes: the heads of 100 responses of HTTP/2, or hyper's
/// buffer of HTTP/1, and that of TLS.
const UNSENT: usize = 128 << 10;

/// The most requests that an unauthenticated connection begins in one turn.
const PER_TURN: u32 = 4;

/// The response to an ambiguous head.
const MALFORMED: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 15\r\nconnection: close\r\n\r\n400 Bad Request";

/// Serves the requests of one connection until it ends, exceeds a timeout, or `stop` becomes true and the requests in
/// flight are answered.
pub(crate) async fn serve<K: Kernel>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Arc<Peer>,
    edge: Arc<Edge<K>>,
    builder: Arc<Builder<TokioExecutor>>,
    mut stop: watch::Receiver<bool>,
) {
    let timeouts = PhaseTimeouts::new(edge.limits());
    let (head, unsent) = (Charge::new(&peer, 0), Charge::new(&peer, 0));
    let io = TokioIo::new(CheckedStream {
        stream,
        peer: peer.clone(),
        wire: Wire::default(),
        head,
        unsent,
        turn: Turn::default(),
        ahead: SecretBytes::new(Vec::new()),
    });
    let service = service_fn({
        let peer = peer.clone();
        move |request: http::Request<hyper::body::Incoming>| {
            let (edge, peer) = (edge.clone(), peer.clone());
            let open = OpenRequest::new(peer.clone(), request.version());
            // Counted when hyper accepts the request, not when its task first runs: hyper accepts all received requests
            // at once.
            let held = Charge::new(&peer, cost(&request));
            // Boxed, because the task of an HTTP/2 stream keeps the memory of this future until its response is read.
            Box::pin(async move {
                let response = edge.serve(request, &peer, held).await;
                drop(open);
                Ok::<_, Infallible>(response)
            })
        }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    // A connection is polled several times for each request; these futures only when one of them was woken.
    let mut events = FuturesUnordered::<Pin<Box<dyn Future<Output = Event> + Send>>>::new();
    events.push(Box::pin(async move {
        // The stop of a server that has ended counts, too.
        let _ = stop.wait_for(|stop| *stop).await;
        Event::Stop
    }));
    events.push(Box::pin(ended(peer.clone(), timeouts)));
    loop {
        tokio::select! {
            biased;
            // Resets and garbage of clients are not logged.
            _ = poll_fn(|cx| {
                peer.activity.turn_begins();
                connection.as_mut().poll(cx)
            }) => return,
            event = events.next() => match event {
                Some(Event::Stop) => connection.as_mut().graceful_shutdown(),
                Some(Event::End) | None => return,
            }
        }
    }
}

/// An event of a connection besides its bytes.
enum Event {
    /// The server stops.
    Stop,
    /// The connection ends: it exceeds a timeout, or its memory is needed.
    End,
}

/// Completes when the connection is to end.
async fn ended(peer: Arc<Peer>, mut timeouts: PhaseTimeouts) -> Event {
    let mut ticks = timeouts.ticks();
    let expired = async {
        loop {
            ticks.tick().await;
            peer.activity.ticked();
            if timeouts.is_expired(&peer.activity) {
                return;
            }
        }
    };
    tokio::select! {
        () = peer.closed() => {}
        () = expired => {}
    }
    Event::End
}

/// The memory of a request in addition to its connection, in bytes. An HTTP/1 request counts with the connection.
fn cost<B>(request: &http::Request<B>) -> usize {
    match request.version() {
        Version::HTTP_2 => STREAM + FIELD * request.headers().len(),
        _ => 0,
    }
}

/// HTTP/1.1 and HTTP/2 with their limits, for all connections of a listener.
pub(crate) fn protocols(limits: &Limits) -> Arc<Builder<TokioExecutor>> {
    let header_list = limits.token.saturating_add(HEADER_LIST).min(HEAD);
    let mut builder = Builder::new(TokioExecutor::new());
    // [`PhaseTimeouts`] limits the time of heads: hyper's timer also runs between requests and would close idle
    // connections.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD).keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256)
        .max_send_buf_size(256 << 10)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    Arc::new(builder)
}

/// A stream that checks bytes before they are parsed, and reports the first bytes of a request.
///
/// It does not read from an unauthenticated client that does not read its responses, nor from any unauthenticated
/// client while those hold too much memory: TCP makes the clients wait. That includes the frames that open windows; a
/// client that waits longer than the timeout of an idle connection, a head or a body is closed as if it had sent
/// nothing. Unauthenticated requests are read in turns of [`PER_TURN`], so that a connection that sends many at once
/// does not delay all others.
struct CheckedStream<S> {
    stream: S,
    peer: Arc<Peer>,
    wire: Wire,
    /// The memory of an incomplete head.
    head: Charge,
    /// The memory of bytes that the client has not read.
    unsent: Charge,
    turn: Turn,
    /// Bytes that were read and wait for the next turn.
    ahead: SecretBytes,
}

/// A turn of a connection: until the next poll of its task.
#[derive(Default)]
struct Turn {
    /// The number of the turn.
    number: u32,
    /// The number of requests before the turn.
    before: u32,
}

impl<S> CheckedStream<S> {
    /// Whether the connection must not read now. The task is woken when that changes.
    fn must_wait(&mut self, cx: &Context<'_>) -> bool {
        if self.peer.is_authenticated() {
            return false;
        }
        if self.left_of_turn() == 0 {
            cx.waker().wake_by_ref();
            return true;
        }
        if !self.unsent.is_empty() {
            self.peer.wake_later(cx);
            return !self.peer.is_authenticated();
        }
        self.peer.must_wait(cx, !self.wire.is_http2())
    }

    /// The number of requests that this turn can still begin.
    fn left_of_turn(&mut self) -> u32 {
        let (number, requests) = (self.peer.activity.turn(), self.wire.requests());
        if number != self.turn.number {
            self.turn = Turn { number, before: requests };
        }
        PER_TURN.saturating_sub(requests.wrapping_sub(self.turn.before))
    }

    /// Tracks whether the client reads the sent bytes.
    fn track_unsent<T>(&mut self, cx: &Context<'_>, outcome: &Poll<io::Result<T>>) {
        if outcome.is_pending() {
            self.unsent.set(UNSENT);
        } else if !self.unsent.is_empty() {
            self.unsent.set(0);
            cx.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncRead + Unpin> CheckedStream<S> {
    /// Reads; from an unauthenticated client at most the bytes that may wait for the next turn.
    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ahead = self.ahead.expose();
        if !ahead.is_empty() {
            let (now, later) = ahead.split_at(ahead.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.ahead = SecretBytes::new(later.to_vec());
            return Poll::Ready(Ok(()));
        }
        let most = if self.peer.is_authenticated() { usize::MAX } else { self.wire.longest_read() };
        let stream = Pin::new(&mut self.stream);
        if buffer.remaining() <= most {
            return stream.poll_read(cx, buffer);
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        let outcome = stream.poll_read(cx, &mut part);
        let read = part.filled().len();
        buffer.advance(read);
        outcome
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for CheckedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.must_wait(cx) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let outcome = self.read(cx, buffer);
        let most = if self.peer.is_authenticated() { u32::MAX } else { self.left_of_turn() };
        if let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            let CheckedStream { peer, wire, head, stream, ahead, .. } = &mut *self;
            peer.received(bytes.len());
            let (verdict, checked) = wire.received(bytes, peer.activity.ticks(), most);
            match verdict {
                Verdict::Pass => {
                    head.set(wire.pending_head().saturating_sub(HEAD_INCLUDED));
                    if let Some(later) = bytes.get(checked..).filter(|later| !later.is_empty()) {
                        *ahead = SecretBytes::new([later, ahead.expose().as_slice()].concat());
                        buffer.set_filled(before + checked);
                    }
                }
                Verdict::Flood => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                Verdict::Malformed => {
                    // The response to a request in progress is the last one. Bytes that are unsent here are lost.
                    if !peer.activity.is_busy() {
                        let _ = Pin::new(stream).poll_write(cx, MALFORMED);
                    }
                    // For hyper the connection ends before these bytes.
                    buffer.set_filled(before);
                }
            }
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> CheckedStream<S> {
    fn sent(&mut self, cx: &Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.track_unsent(cx, &outcome);
        if let Poll::Ready(Ok(bytes)) = outcome {
            self.wire.sent(bytes);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CheckedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.track_unsent(cx, &outcome);
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.sent(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
