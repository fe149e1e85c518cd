//! Reaching a server: TCP, TLS over TCP, or a Unix socket.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::config::{Address, Config};
use crate::{Error, tls};

/// Opens connections for hyper's pool.
#[derive(Clone)]
pub(crate) struct Connector {
    socket: Option<PathBuf>,
    tls: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

impl Connector {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let server_name = config.server_name.clone().map(ServerName::try_from).transpose();
        Ok(Self {
            socket: match &config.address {
                Address::Unix(path) => Some(path.clone()),
                Address::Http(_) => None,
            },
            tls: TlsConnector::from(Arc::new(tls::client_config(config)?)),
            server_name: server_name.map_err(|_| Error::Config("the TLS server name is not a host name".to_owned()))?,
        })
    }

    async fn open(self, uri: Uri) -> io::Result<Stream> {
        if let Some(path) = &self.socket {
            return Ok(Stream::Unix(TokioIo::new(UnixStream::connect(path).await?)));
        }
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| naming(&host, port, &error))?;
        stream.set_nodelay(true)?;
        if !secure {
            return Ok(Stream::Tcp(TokioIo::new(stream)));
        }
        let name = match self.server_name {
            Some(name) => name,
            None => ServerName::try_from(host).map_err(io::Error::other)?,
        };
        Ok(Stream::Tls(TokioIo::new(Box::new(self.tls.connect(name, stream).await.map_err(plainly)?))))
    }
}

/// Says where the dial went, as people look for it first.
fn naming(host: &str, port: u16, error: &io::Error) -> io::Error {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let reason = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("dial tcp {host}:{port}: {reason}"))
}

/// Says what the most frequent failure of a handshake means.
fn plainly(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => {
            io::Error::new(error.kind(), "server gave HTTP response to HTTPS client")
        }
        Some(rustls::Error::InvalidCertificate(reason)) => {
            io::Error::new(error.kind(), format!("tls: failed to verify certificate: {reason}"))
        }
        _ => error,
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().open(uri))
    }
}

/// An open connection of any kind.
pub(crate) enum Stream {
    Tcp(TokioIo<TcpStream>),
    Tls(TokioIo<Box<TlsStream<TcpStream>>>),
    Unix(TokioIo<UnixStream>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.inner().get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
