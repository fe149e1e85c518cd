//! The accept loop. Nothing that one connection does ends it.

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
use crate::patience;
use crate::socket::{Kind, Socket};
use crate::tls::Tls;

/// How much is read, in bytes, of what a client sends in clear to a TLS socket.
const MOST_IN_CLEAR: u64 = 64 << 10;

/// How much of an answer TLS may have encrypted that the client has not taken, in bytes: two records.
const TLS_BUFFER: usize = 32 << 10;

/// What the accept loop of one listener needs.
pub struct Listener<K> {
    /// The rules of the listener and the kernel.
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
                patience::rest().await;
            }
        }
    }

    fn tcp(&self, stream: TcpStream, peer: SocketAddr, protocols: &Arc<Builder<TokioExecutor>>) {
        // Who comes by IPv4 to a socket of both families is bound, forwarded and audited as what it is.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let most = self.edge.connections_per_source(peer.ip(), self.connections.per_source());
        let source = Source { address: Some(peer), most, encrypted: self.tls.is_some() };
        // Without a place a connection is closed at once, so that clients notice instead of waiting in the backlog.
        let Some(place) = self.connections.admit(source) else { return };
        let (edge, protocols, stop) = (self.edge.clone(), protocols.clone(), self.stop.clone());
        let tls = self.tls.clone();
        tokio::spawn(async move {
            let serve = async {
                let _ = stream.set_nodelay(true);
                let Some(tls) = tls else {
                    connection::serve(stream, place.peer().clone(), edge, protocols, stop).await;
                    return;
                };
                let handshake = async {
                    if speaks_in_clear(&stream).await {
                        refuse_in_clear(stream).await;
                        return None;
                    }
                    let acceptor = TlsAcceptor::from(tls.current());
                    acceptor.accept_with(stream, |tls| tls.set_buffer_limit(Some(TLS_BUFFER))).await.ok()
                };
                if let Ok(Some(stream)) = tokio::time::timeout(edge.limits().handshake_timeout, handshake).await {
                    let session = tls.session(stream.get_ref().1);
                    session.into_iter().for_each(|session| place.peer().set_tls(session));
                    connection::serve(stream, place.peer().clone(), edge, protocols, stop).await;
                }
            };
            tokio::select! {
                biased;
                () = place.peer().closed() => {}
                () = serve => {}
            }
        });
    }

    fn unix(&self, stream: UnixStream, protocols: &Arc<Builder<TokioExecutor>>) {
        let Some(place) = self.connections.admit(Source::default()) else { return };
        let (edge, protocols, stop) = (self.edge.clone(), protocols.clone(), self.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = place.peer().closed() => {}
                () = connection::serve(stream, place.peer().clone(), edge, protocols, stop) => {}
            }
        });
    }
}

/// Whether a client of a TLS socket speaks HTTP without it: a request begins with a letter, a handshake never does.
async fn speaks_in_clear(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0].is_ascii_alphabetic()
}

/// Tells such a client what is wrong, in the words that Go's servers use. What it sent is read and not looked at, for
/// else the end of the connection would overtake the answer.
async fn refuse_in_clear(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    if stream.write_all(ANSWER).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let _ = tokio::io::copy(&mut stream.take(MOST_IN_CLEAR), &mut tokio::io::sink()).await;
}

/// Whether the system, not the connection, is the reason: then it does not help to try again at once.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}
