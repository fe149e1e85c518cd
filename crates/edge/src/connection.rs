//! One connection: its phases, how long each may take, and its orderly end.

mod wire;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

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
use crate::patience::{Open, Patience};

/// The longest head of a request of HTTP/1, in bytes.
const HEAD: usize = 64 << 10;
/// The longest header list of HTTP/2 beside the token, in bytes as RFC 9113 section 6.5.2 counts them.
const HEADER_LIST: usize = 8 << 10;
/// The part of a head that the estimate of a connection's memory includes, in bytes.
pub(crate) const HEAD_INCLUDED: usize = 8 << 10;
/// What a request of HTTP/2 holds until its answer is sent, in bytes: its task, its stream and its answer's head, with room
/// over what was measured.
const STREAM: usize = 12 << 10;
/// What each field of its head adds.
const FIELD: usize = 160;
/// What a connection may hold whose client does not take what is sent, in bytes: the heads of 100 answers of HTTP/2, or
/// hyper's buffer of HTTP/1, and that of TLS.
const UNSENT: usize = 128 << 10;

/// How many requests a stranger's connection may begin before others have their turn.
const PER_TURN: u32 = 4;

/// The answer to a head that has two readings.
const MALFORMED: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 15\r\nconnection: close\r\n\r\n400 Bad Request";

/// Serves the requests of one connection until it ends, goes silent for too long, or `stop` becomes true and the
/// requests in flight are answered.
pub(crate) async fn serve<K: Kernel>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Arc<Peer>,
    edge: Arc<Edge<K>>,
    builder: Arc<Builder<TokioExecutor>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut patience = Patience::new(edge.limits());
    let (head, unsent) = (Charge::new(&peer, 0), Charge::new(&peer, 0));
    let io = TokioIo::new(Watched {
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
            let open = Open::new(peer.clone(), request.version());
            // Counted here, where hyper takes the request, and not when its task first runs: hyper takes all that came at once.
            let held = Charge::new(&peer, cost(&request));
            // Boxed, because the task of a stream of HTTP/2 keeps the room of this future until its answer is taken.
            Box::pin(async move {
                let response = edge.serve(request, &peer, held).await;
                drop(open);
                Ok::<_, Infallible>(response)
            })
        }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut ticks = patience.ticks();
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            // How a connection ends is its client's affair: resets and garbage are no events of ours.
            _ = poll_fn(|cx| {
                peer.activity.turn_begins();
                connection.as_mut().poll(cx)
            }) => return,
            _ = ticks.tick() => {
                peer.activity.ticked();
                if patience.is_over(&peer.activity) {
                    return;
                }
            }
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// What a request holds beside its connection, in bytes. That of HTTP/1 counts with the connection.
fn cost<B>(request: &http::Request<B>) -> usize {
    match request.version() {
        Version::HTTP_2 => STREAM + FIELD * request.headers().len(),
        _ => 0,
    }
}

/// HTTP/1.1 and HTTP/2 with their caps, for all connections of a listener.
pub(crate) fn protocols(limits: &Limits) -> Arc<Builder<TokioExecutor>> {
    let header_list = limits.token.saturating_add(HEADER_LIST).min(HEAD);
    let mut builder = Builder::new(TokioExecutor::new());
    // Heads are timed by `Patience`: hyper's own timer would run between requests too and cut idle connections off.
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

/// A stream whose bytes are checked before they are parsed, and that tells when the first of a next request come.
///
/// Nothing is read from a stranger that does not take what is sent, and from none while strangers hold too much: TCP makes
/// their clients wait. That includes the frames that open windows; a client that waits for longer than an idle connection,
/// a head or a body may take is closed as if it had sent nothing. Requests of strangers come in turns of [`PER_TURN`], so
/// that a connection that sends many at once does not make those of others wait for all of them.
struct Watched<S> {
    stream: S,
    peer: Arc<Peer>,
    wire: Wire,
    /// What a head that is not complete yet holds.
    head: Charge,
    /// What waits until the client takes it.
    unsent: Charge,
    turn: Turn,
    /// What was read and waits for the next turn.
    ahead: SecretBytes,
}

/// A turn of a connection lasts until its task is polled again.
#[derive(Default)]
struct Turn {
    /// Which of the connection's turns it is.
    number: u32,
    /// How many requests had come before it.
    before: u32,
}

impl<S> Watched<S> {
    /// Whether nothing is to be read now. The task is woken when that changes.
    fn must_wait(&mut self, cx: &Context<'_>) -> bool {
        if self.peer.is_known() {
            return false;
        }
        if self.left_of_turn() == 0 {
            cx.waker().wake_by_ref();
            return true;
        }
        if !self.unsent.is_empty() {
            self.peer.wake_later(cx);
            return !self.peer.is_known();
        }
        self.peer.must_wait(cx, !self.wire.is_http2())
    }

    /// How many requests may still come in this turn.
    fn left_of_turn(&mut self) -> u32 {
        let (number, requests) = (self.peer.activity.turn(), self.wire.requests());
        if number != self.turn.number {
            self.turn = Turn { number, before: requests };
        }
        PER_TURN.saturating_sub(requests.wrapping_sub(self.turn.before))
    }

    /// Follows whether the client takes what is sent.
    fn sends<T>(&mut self, cx: &Context<'_>, outcome: &Poll<io::Result<T>>) {
        if outcome.is_pending() {
            self.unsent.set(UNSENT);
        } else if !self.unsent.is_empty() {
            self.unsent.set(0);
            cx.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Reads; of a stranger no more at once than may wait for its next turn.
    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ahead = self.ahead.expose();
        if !ahead.is_empty() {
            let (now, later) = ahead.split_at(ahead.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.ahead = SecretBytes::new(later.to_vec());
            return Poll::Ready(Ok(()));
        }
        let most = if self.peer.is_known() { usize::MAX } else { self.wire.longest_read() };
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.must_wait(cx) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let outcome = self.read(cx, buffer);
        let most = if self.peer.is_known() { u32::MAX } else { self.left_of_turn() };
        if let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            let Watched { peer, wire, head, stream, ahead, .. } = &mut *self;
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
                    // While a request is answered its answer is the last. What is left unsent here the client misses.
                    if !peer.activity.is_busy() {
                        let _ = Pin::new(stream).poll_write(cx, MALFORMED);
                    }
                    // For hyper the connection ends before what came with it.
                    buffer.set_filled(before);
                }
            }
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn sent(&mut self, cx: &Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.sends(cx, &outcome);
        if let Poll::Ready(Ok(bytes)) = outcome {
            self.wire.sent(bytes);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.sends(cx, &outcome);
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
