//! Opens a connection to another member.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use keepfast_storage::Origin;
use rustls::CommonState;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::host_and_port;
use super::connection::{Connection, Credentials, Halves};
use super::frames::{ALPN, Kind, encode_address, invalid, limit_of};
use super::open_port::{OpenPort, Session};

/// The most time for a TCP connection.
const CONNECT: Duration = Duration::from_secs(3);
/// The most time for the handshake and the first bytes.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);

/// A connection that this node has opened.
pub(super) struct Dialled {
    pub(super) connection: Connection,
    pub(super) halves: Halves,
    /// The longest frame that the other node reads.
    pub(super) limit: usize,
}

/// Connects to a member. Nothing but the hello was sent.
///
/// # Errors
/// When it is not reached, or is not this member.
pub(super) async fn dial(port: &OpenPort, to: &Origin, address: &str, kind: Kind) -> io::Result<Dialled> {
    let session = port.session().ok_or(io::ErrorKind::NotConnected)?;
    let address = host_and_port(address).ok_or_else(|| invalid("the member has no cluster_addr"))?;
    let stream = timeout(CONNECT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    timeout(HANDSHAKE, greet(port, &session, to, stream, kind)).await?
}

async fn greet(port: &OpenPort, session: &Session, to: &Origin, stream: TcpStream, kind: Kind) -> io::Result<Dialled> {
    let tls = session.identity.configs().map_err(io::Error::other)?.dialling;
    // The name is not sent; members are known by the URI of their certificate.
    let name = ServerName::try_from("node").map_err(io::Error::other)?;
    let mut stream = TlsConnector::from(tls).connect(name, stream).await?;
    let certificate = certificate(stream.get_ref().1)?;
    if session.identity.origin(&certificate).as_ref() != Some(to) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another node answers at the member's address"));
    }
    let hello = port.hello(kind);
    stream.write_all(&[&hello.encode()[..], &encode_address(&session.cluster_addr)].concat()).await?;
    stream.flush().await?;
    let mut welcome = [0; 8];
    stream.read_exact(&mut welcome).await?;
    let limit = limit_of(welcome).ok_or_else(|| invalid("the first bytes of the member"))?;
    let other = Credentials { origin: Arc::new(to.clone()), certificate, verified: session.identity.now() };
    let connection = port.dialled(other, hello).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok(Dialled { connection, halves: Halves::new(stream.into()), limit })
}

/// The verified certificate of the other end.
///
/// # Errors
/// When it has none, or does not speak the protocol of the port.
pub(super) fn certificate(tls: &CommonState) -> io::Result<CertificateDer<'static>> {
    if tls.alpn_protocol() != Some(ALPN) {
        return Err(invalid("another application protocol"));
    }
    let first = tls.peer_certificates().and_then(|chain| chain.first());
    first.cloned().map(CertificateDer::into_owned).ok_or_else(|| invalid("no certificate"))
}
