//! One connection: its phases, how long each may take, and its orderly end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::config::Limits;
use crate::http::{Edge, Kernel};

/// The longest head of a request, in bytes.
const HEAD: usize = 64 << 10;

/// Serves the requests of one connection until it ends, goes silent for too long, or `stop` becomes true and the
/// requests in flight are answered.
pub(crate) async fn serve<K: Kernel>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Option<SocketAddr>,
    edge: Arc<Edge<K>>,
    builder: Arc<Builder<TokioExecutor>>,
    mut stop: watch::Receiver<bool>,
) {
    let activity = Arc::new(Activity::default());
    let mut patience = Patience::new(edge.limits());
    let io = TokioIo::new(Watched { stream, activity: activity.clone() });
    let service = service_fn({
        let activity = activity.clone();
        move |request: http::Request<hyper::body::Incoming>| {
            let edge = edge.clone();
            let open = Open::new(activity.clone(), request.version());
            async move {
                let response = edge.serve(request, peer).await;
                drop(open);
                Ok::<_, Infallible>(response)
            }
        }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut tick = tokio::time::interval(patience.tick);
    // Ticks missed while the machine was busy must not count as the client's silence.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            // How a connection ends is its client's affair: resets and garbage are no events of ours.
            _ = connection.as_mut() => return,
            _ = tick.tick() => {
                if patience.is_over(&activity) {
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

/// HTTP/1.1 and HTTP/2 with their caps, for all connections of a listener.
pub(crate) fn protocols() -> Arc<Builder<TokioExecutor>> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Heads are timed by `Patience`: hyper's own timer would run between requests too and cut idle connections off.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD).keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256)
        .max_send_buf_size(256 << 10)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    Arc::new(builder)
}

/// What the connection is doing, told by its stream and its requests. The low two bits are the phase, the rest counts
/// changes, so that one load tells whether anything happened since the last look.
#[derive(Default)]
struct Activity {
    state: AtomicU64,
    open: AtomicU32,
}

/// Bytes of a head are awaited or came in part: where every connection starts.
const HEAD_AWAITED: u64 = 0;
/// Between requests.
const IDLE: u64 = 1;
/// A request is being answered; it has times of its own.
const BUSY: u64 = 2;
/// Between requests of HTTP/2, where bytes need not be the start of one.
const IDLE_H2: u64 = 3;
const PHASE: u64 = 3;

impl Activity {
    fn enter(&self, phase: u64) {
        let state = self.state.load(Ordering::Relaxed);
        self.state.store((state | PHASE).wrapping_add(1) | phase, Ordering::Relaxed);
    }

    fn phase(&self) -> u64 {
        self.state.load(Ordering::Relaxed) & PHASE
    }
}

/// A request between its head and its answer.
struct Open {
    activity: Arc<Activity>,
    after: u64,
}

impl Open {
    fn new(activity: Arc<Activity>, version: Version) -> Self {
        activity.open.fetch_add(1, Ordering::Relaxed);
        activity.enter(BUSY);
        Open { activity, after: if version == Version::HTTP_2 { IDLE_H2 } else { IDLE } }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.activity.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.activity.enter(self.after);
        }
    }
}

/// How long each phase may last, measured in ticks.
struct Patience {
    tick: Duration,
    head: u32,
    idle: u32,
    seen: u64,
    ticks: u32,
}

impl Patience {
    fn new(limits: &Limits) -> Self {
        let shortest = limits.header_timeout.min(limits.idle_timeout);
        let tick = (shortest / 4).clamp(Duration::from_millis(5), Duration::from_millis(2500));
        let ticks = |span: Duration| u32::try_from(span.as_nanos().div_ceil(tick.as_nanos())).unwrap_or(u32::MAX);
        Patience {
            tick,
            head: ticks(limits.header_timeout),
            idle: ticks(limits.idle_timeout),
            seen: u64::MAX,
            ticks: 0,
        }
    }

    /// Whether the present phase has lasted too long. To be asked once a tick.
    fn is_over(&mut self, activity: &Activity) -> bool {
        let state = activity.state.load(Ordering::Relaxed);
        if state != self.seen {
            (self.seen, self.ticks) = (state, 0);
            return false;
        }
        self.ticks += 1;
        match state & PHASE {
            HEAD_AWAITED => self.ticks >= self.head,
            BUSY => false,
            _ => self.ticks >= self.idle,
        }
    }
}

/// A stream that tells when the first bytes of a next request come.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before && self.activity.phase() == IDLE {
            self.activity.enter(HEAD_AWAITED);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience() -> Patience {
        Patience::new(&Limits {
            header_timeout: Duration::from_secs(4),
            idle_timeout: Duration::from_secs(8),
            ..Limits::default()
        })
    }

    /// How many ticks pass until the connection is closed; `None` if it outlives a hundred.
    fn ticks(patience: &mut Patience, activity: &Activity) -> Option<usize> {
        (1..=100).find(|_| patience.is_over(activity))
    }

    #[test]
    fn sec_ds04_each_phase_has_its_own_patience_and_a_request_has_none() {
        let (mut patience, activity) = (patience(), Arc::new(Activity::default()));
        assert_eq!(patience.tick, Duration::from_secs(1));
        // The first look only notes the phase.
        assert_eq!(ticks(&mut patience, &activity), Some(5));
        let open = Open::new(activity.clone(), Version::HTTP_11);
        assert_eq!(ticks(&mut patience, &activity), None);
        drop(open);
        assert_eq!((activity.phase(), ticks(&mut patience, &activity)), (IDLE, Some(9)));
        activity.enter(HEAD_AWAITED);
        assert_eq!(ticks(&mut patience, &activity), Some(5));
    }

    #[test]
    fn a_connection_of_http_2_is_idle_when_its_last_stream_is_answered() {
        let activity = Arc::new(Activity::default());
        let (first, second) =
            (Open::new(activity.clone(), Version::HTTP_2), Open::new(activity.clone(), Version::HTTP_2));
        drop(first);
        assert_eq!(activity.phase(), BUSY);
        drop(second);
        assert_eq!(activity.phase(), IDLE_H2);
    }
}
