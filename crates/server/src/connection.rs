//! One connection: its phases, how long each may take, and its orderly end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::http::{Edge, Kernel};
use crate::patience::{Activity, Open, Patience};

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
    let mut ticks = patience.ticks();
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            // How a connection ends is its client's affair: resets and garbage are no events of ours.
            _ = connection.as_mut() => return,
            _ = ticks.tick() => {
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

/// A stream that tells when the first bytes of a next request come.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
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
