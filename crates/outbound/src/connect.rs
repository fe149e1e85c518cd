//! Connections to servers: TCP, TLS over TCP, or a Unix socket, with or without a proxy.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::error::{ConnectTimeout, SettingsError};
use crate::proxy::{Proxies, Proxy, without_brackets};
use crate::{AllowedAddresses, Settings, tls};

/// Establishes connections for hyper's pool.
#[derive(Clone)]
pub(crate) struct Connector {
    socket: Option<PathBuf>,
    timeout: Option<Duration>,
    proxies: Arc<Proxies>,
    tls: TlsConnector,
    /// The TLS settings for an `https://` proxy, which speaks HTTP/1.1.
    proxy_tls: TlsConnector,
    server_name: Option<ServerName<'static>>,
    addresses: AllowedAddresses,
}

impl Connector {
    pub(crate) fn new(settings: &Settings, proxies: Arc<Proxies>) -> Result<Self, SettingsError> {
        let server_name = settings.server_name.clone().map(ServerName::try_from).transpose();
        let tls = tls::client_config(settings)?;
        let mut proxy_tls = tls.clone();
        proxy_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            socket: settings.socket.clone(),
            timeout: settings.connect_timeout,
            proxies,
            tls: TlsConnector::from(Arc::new(tls)),
            proxy_tls: TlsConnector::from(Arc::new(proxy_tls)),
            server_name: server_name.map_err(|_| SettingsError("the TLS server name is not a host name".to_owned()))?,
            addresses: settings.addresses,
        })
    }

    async fn open_in_time(self, uri: Uri) -> io::Result<Stream> {
        let Some(limit) = self.timeout else { return self.open(uri).await };
        let opened = tokio::time::timeout(limit, self.open(uri)).await;
        opened.unwrap_or_else(|_| Err(io::Error::other(ConnectTimeout(limit))))
    }

    async fn open(self, uri: Uri) -> io::Result<Stream> {
        if let Some(path) = &self.socket {
            let stream = UnixStream::connect(path).await;
            let stream =
                stream.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            return Ok(Stream::plain(Box::new(stream)));
        }
        let secure = uri.scheme_str() == Some("https");
        let host = without_brackets(uri.host().unwrap_or_default());
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream: Plain = match self.proxies.for_address(&uri).cloned() {
            None => Box::new(dial(&host, port, self.addresses).await?),
            Some(_) if !self.addresses.allows_host(&host) => return Err(refused(&host, port)),
            Some(proxy) if secure => self.tunnel(proxy, uri).await?,
            Some(proxy) => {
                let stream = TokioIo::new(self.dial_proxy(&proxy).await?);
                return Ok(Stream::Plain { stream, proxied: true });
            }
        };
        if !secure {
            return Ok(Stream::plain(stream));
        }
        let name = match self.server_name {
            Some(name) => name,
            None => ServerName::try_from(host).map_err(io::Error::other)?,
        };
        Ok(Stream::Tls(TokioIo::new(Box::new(self.tls.connect(name, stream).await?))))
    }

    /// Opens a tunnel to an address by a proxy's `CONNECT` (RFC 9110, section 9.3.6).
    async fn tunnel(&self, proxy: Proxy, uri: Uri) -> io::Result<Plain> {
        let at = proxy.uri().ok_or_else(|| io::Error::other("the address of the proxy is invalid"))?;
        let authorization = proxy.authorization.clone();
        let mut tunnel = Tunnel::new(at, DialProxy { connector: self.clone(), proxy });
        if let Some(authorization) = authorization {
            tunnel = tunnel.with_auth(authorization);
        }
        let stream = tunnel.call(uri).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            io::Error::other(format!("proxyconnect tcp: {cause}"))
        })?;
        Ok(stream.into_inner())
    }

    async fn dial_proxy(&self, proxy: &Proxy) -> io::Result<Plain> {
        // The operator has configured the proxy.
        let stream = dial(&proxy.host, proxy.port, AllowedAddresses::All).await;
        let stream = stream.map_err(|error| io::Error::new(error.kind(), format!("proxyconnect tcp: {error}")))?;
        if !proxy.secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(proxy.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(self.proxy_tls.connect(name, stream).await?))
    }
}

/// Connects to a proxy, for the connector of the tunnel.
struct DialProxy {
    connector: Connector,
    proxy: Proxy,
}

impl Service<Uri> for DialProxy {
    type Response = TokioIo<Plain>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Plain>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (connector, proxy) = (self.connector.clone(), self.proxy.clone());
        Box::pin(async move { Ok(TokioIo::new(connector.dial_proxy(&proxy).await?)) })
    }
}

async fn dial(host: &str, port: u16, allowed: AllowedAddresses) -> io::Result<TcpStream> {
    let stream = match allowed {
        AllowedAddresses::All => TcpStream::connect((host, port)).await,
        // The address that is checked is the one that is connected: another response of DNS changes nothing.
        AllowedAddresses::NoMetadata => {
            let mut resolved: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
            resolved.retain(|address| allowed.allows(address.ip()));
            if resolved.is_empty() || !allowed.allows_host(host) {
                return Err(refused(host, port));
            }
            TcpStream::connect(&*resolved).await
        }
    };
    let stream = stream.map_err(|error| with_address(host, port, &error))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The error of an address that is not allowed.
fn refused(host: &str, port: u16) -> io::Error {
    with_address(host, port, &io::Error::other("the address is link-local or that of a metadata service"))
}

/// Adds the address to the error of a connection attempt.
fn with_address(host: &str, port: u16, error: &io::Error) -> io::Error {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let reason = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("dial tcp {host}:{port}: {reason}"))
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().open_in_time(uri))
    }
}

/// A byte stream: TCP, a Unix socket, or TLS to a proxy.
type Plain = Box<dyn Bytes>;

pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// An established connection.
pub(crate) enum Stream {
    Plain {
        stream: TokioIo<Plain>,
        /// Whether a proxy reads the requests, which then contain their whole URL.
        proxied: bool,
    },
    Tls(TokioIo<Box<TlsStream<Plain>>>),
}

impl Stream {
    fn plain(stream: Plain) -> Self {
        Self::Plain { stream: TokioIo::new(stream), proxied: false }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.inner().get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            Self::Tls(_) => Connected::new(),
            Self::Plain { proxied, .. } => Connected::new().proxy(*proxied),
        }
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { stream, .. } => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain { stream, .. } => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { stream, .. } => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { stream, .. } => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
