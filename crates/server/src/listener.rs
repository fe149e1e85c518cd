//! Sockets and the accept loop. Nothing that one connection does ends the loop.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto::Builder;
use nix::unistd::{Group, User};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::config::Bind;
use crate::connection;
use crate::http::{Edge, Kernel};
use crate::patience;
use crate::tls::Tls;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

/// How much is read, in bytes, of what a client sends in clear to a TLS socket.
const MOST_IN_CLEAR: u64 = 64 << 10;

/// A socket that listens. Clients may connect from now on; they are served once the loop runs.
pub(crate) enum Socket {
    /// On an address.
    Tcp(TcpListener),
    /// In the file system; the file is removed in the end.
    Unix(UnixListener, PathBuf),
}

impl Socket {
    /// Opens the socket of a listener. To be called within the runtime.
    pub(crate) fn bind(bind: &Bind) -> io::Result<Self> {
        match bind {
            Bind::Tcp(address) => tcp(address).map(Socket::Tcp),
            Bind::Unix { path, mode, user, group } => {
                let listener = unix(path)?;
                let socket = Socket::Unix(listener, path.clone());
                if user.is_some() || group.is_some() {
                    std::os::unix::fs::chown(
                        path,
                        user.as_deref().map(user_id).transpose()?,
                        group.as_deref().map(group_id).transpose()?,
                    )?;
                }
                if let Some(mode) = mode {
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode))?;
                }
                Ok(socket)
            }
        }
    }

    /// The address that was bound; a port of 0 has become a real one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn tcp(address: &str) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the address has no meaning");
    for candidate in candidates(address)? {
        let open = || {
            let socket = if candidate.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(candidate)?;
            socket.listen(BACKLOG)
        };
        match open() {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What an address can stand for. `:8200` is every address of the machine: both families, or what there is of them.
pub(crate) fn candidates(address: &str) -> io::Result<Vec<SocketAddr>> {
    match address.strip_prefix(':').and_then(|port| port.parse().ok()) {
        Some(port) => Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]),
        None => Ok(address.to_socket_addrs()?.collect()),
    }
}

/// A socket file that a killed server left behind is replaced; one that answers, or is no socket, is not.
fn unix(path: &Path) -> io::Result<UnixListener> {
    let stale = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if stale {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// The number of a user that is given by number or by name.
///
/// # Errors
/// When there is no such user.
pub(crate) fn user_id(name: &str) -> io::Result<u32> {
    match name.parse() {
        Ok(id) => Ok(id),
        Err(_) => User::from_name(name)?.map(|user| user.uid.as_raw()).ok_or_else(|| unknown_name("user", name)),
    }
}

/// The number of a group that is given by number or by name.
///
/// # Errors
/// When there is no such group.
pub(crate) fn group_id(name: &str) -> io::Result<u32> {
    match name.parse() {
        Ok(id) => Ok(id),
        Err(_) => Group::from_name(name)?.map(|group| group.gid.as_raw()).ok_or_else(|| unknown_name("group", name)),
    }
}

fn unknown_name(kind: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {kind} {name:?}"))
}

/// The connections of all listeners together.
pub(crate) struct Connections {
    free: Arc<Semaphore>,
    most: u32,
}

impl Connections {
    /// At most so many at once.
    pub(crate) fn new(most: u32) -> Arc<Self> {
        Arc::new(Connections { free: Arc::new(Semaphore::new(most as usize)), most })
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        (self.most as usize).saturating_sub(self.free.available_permits())
    }

    fn admit(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_owned().ok()
    }

    /// Waits until all have ended, at most `bound`; tells whether they have.
    pub(crate) async fn drained(&self, bound: Duration) -> bool {
        tokio::time::timeout(bound, self.free.acquire_many(self.most)).await.is_ok()
    }
}

/// What the accept loop of one listener needs.
pub(crate) struct Listener<K> {
    pub(crate) edge: Arc<Edge<K>>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl<K: Kernel> Listener<K> {
    /// Accepts until `stop` becomes true.
    pub(crate) async fn run(self, socket: Socket) {
        let mut stop = self.stop.clone();
        let protocols = connection::protocols();
        tokio::select! {
            () = self.accept(&socket, &protocols) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn accept(&self, socket: &Socket, protocols: &Arc<Builder<TokioExecutor>>) {
        loop {
            let accepted = match socket {
                Socket::Tcp(listener) => {
                    listener.accept().await.map(|(stream, peer)| self.tcp(stream, peer, protocols))
                }
                Socket::Unix(listener, _) => listener.accept().await.map(|(stream, _)| self.unix(stream, protocols)),
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
        // Beyond the cap a connection is closed at once, so that clients notice instead of waiting in the backlog.
        let Some(permit) = self.connections.admit() else { return };
        // Who comes by IPv4 to a socket of both families is bound, forwarded and audited as what it is.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let (edge, protocols, stop) = (self.edge.clone(), protocols.clone(), self.stop.clone());
        let tls = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.current()));
        tokio::spawn(async move {
            let _permit = permit;
            let _ = stream.set_nodelay(true);
            let Some(tls) = tls else {
                connection::serve(stream, Some(peer), edge, protocols, stop).await;
                return;
            };
            let handshake = async {
                if speaks_in_clear(&stream).await {
                    refuse_in_clear(stream).await;
                    return None;
                }
                tls.accept(stream).await.ok()
            };
            if let Ok(Some(stream)) = tokio::time::timeout(edge.limits().handshake_timeout, handshake).await {
                connection::serve(stream, Some(peer), edge, protocols, stop).await;
            }
        });
    }

    fn unix(&self, stream: UnixStream, protocols: &Arc<Builder<TokioExecutor>>) {
        let Some(permit) = self.connections.admit() else { return };
        let (edge, protocols, stop) = (self.edge.clone(), protocols.clone(), self.stop.clone());
        tokio::spawn(async move {
            let _permit = permit;
            connection::serve(stream, None, edge, protocols, stop).await;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn an_address_without_a_host_is_every_address() {
        let texts =
            |address: &str| -> Vec<String> { candidates(address).unwrap().iter().map(ToString::to_string).collect() };
        assert_eq!(texts(":8200"), ["[::]:8200", "0.0.0.0:8200"]);
        assert_eq!(texts("127.0.0.1:1"), ["127.0.0.1:1"]);
        assert_eq!(texts("[::1]:1"), ["[::1]:1"]);
        assert!(candidates(":port").is_err());
    }
}
