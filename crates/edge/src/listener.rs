//! The accept loop. No connection can end it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::connection;
use crate::connections::{Connections, Source};
use crate::http::Edge;
use crate::kernel::Kernel;
use crate::socket::{Kind, Socket};
use crate::timeouts;
use crate::tls::Tls;

/// The most bytes that are read of an unencrypted request on a TLS listener.
const MAX_PLAIN_REQUEST: u64 = 64 << 10;

/// The most bytes of a response that TLS encrypts before the client reads them: two records.
const TLS_BUFFER: usize = 32 << 10;

/// The accept loop of one listener.
pub struct Listener<K> {
    /// The settings of the listener and the kernel.
    pub edge: Arc<Edge<K>>,
    /// Its TLS; `None` is plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// The connections of all listeners.
    pub connections: Arc<Connections>,
    /// Becomes true when the server stops.
    pub stop: watch::Receiver<bool>,
}

impl<K: Kernel> Listener<K> {
    /// Accepts until `stop` becomes true.
    pub async fn run(self, socket: Socket) {
        let mut stop = self.stop.clone();
        let protocols = connection::protocols(self.edge.limits());
        tokio::select! {
            () = self.accept(&socket, &protocols) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn accept(&self, socket: &Socket, protocols: &Arc<Builder<TokioExecutor>>) {
        loop {
            let accepted = match &socket.0 {
                Kind::Tcp(listener) => listener.accept().await.map(|(stream, peer)| self.tcp(stream, peer, protocols)),
                Kind::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| self.unix(stream, protocols)),
            };
            if let Err(error) = accepted
                && is_exhaustion(&error)
            {
                tracing::warn!(%error, "no connection can be accepted");
                timeouts::pause_accept().await;
            }
        }
    }

    fn tcp(&self, stream: TcpStream, peer: SocketAddr, protocols: &Arc<Builder<TokioExecutor>>) {
        // A client that connects by IPv4 to a socket of both families has its IPv4 address for bound CIDRs,
        // `X-Forwarded-For` and audit entries.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let most = self.edge.connections_per_source(peer.ip(), self.connections.per_source());
        let source = Source { address: Some(peer), most, encrypted: self.tls.is_some() };
        // A connection beyond the limit is closed at once, so that clients notice instead of waiting in the backlog.
        let Some(place) = self.connections.admit(source) else { return };
        let (edge, protocols, stop) = (self.edge.clone(), protocols.clone(), self.stop.clone());
        let tls = self.tls.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let Some(tls) = tls else {
                connection::serve(stream, place.peer().clone(), edge, protocols, stop).await;
                return;
            };
            let handshake = async {
                if sends_plain_http(&stream).await {
                    refuse_plain_http(stream).await;
                    return None;
                }
                let acceptor = TlsAcceptor::from(tls.current());
                acceptor.accept_with(stream, |tls| tls.set_buffer_limit(Some(TLS_BUFFER))).await.ok()
            };
            let stream = tokio::select! {
                biased;
                () = place.peer().closed() => None,
                done = tokio::time::timeout(edge.limits().handshake_timeout, handshake) => done.ok().flatten(),
            };
            if let Some(stream) = stream {
                let session = tls.session(stream.get_ref().1);
                session.into_iter().for_each(|session| place.peer().set_tls(session));
                connection::serve(stream, place.peer().clone(), edge, protocols, stop).await;
            }
        });
    }

    fn unix(&self, stream: UnixStream, protocols: &Arc<Builder<TokioExecutor>>) {
        let Some(place) = self.connections.admit(Source::default()) else { return };
        let (edge, protocols, stop) = (self.edge.clone(), protocols.clone(), self.stop.clone());
        tokio::spawn(async move {
            connection::serve(stream, place.peer().clone(), edge, protocols, stop).await;
        });
    }
}

/// Whether a client of a TLS listener sends HTTP without TLS: a request begins with a letter, a handshake never does.
async fn sends_plain_http(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0].is_ascii_alphabetic()
}

/// Sends such a client the error of Go's servers. Its bytes are read and dropped, because otherwise the reset of the
/// connection could overtake the response.
async fn refuse_plain_http(mut stream: TcpStream) {
    const RESPONSE: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    if stream.write_all(RESPONSE).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let _ = tokio::io::copy(&mut stream.take(MAX_PLAIN_REQUEST), &mut tokio::io::sink()).await;
}

/// Whether the system, not the connection, is the cause: an immediate retry would fail, too.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}
