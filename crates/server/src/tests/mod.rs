//! The edge over real sockets, with a kernel that tells what arrived.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admission;
mod client_certificates;
mod connections;
mod encrypted;
mod rules;
mod strangers;
mod tls_sessions;
mod whole;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::StatusCode;
use keepfast_core::Incoming;
use keepfast_core::admission::Admission;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::TlsSession;
use keepfast_framework::clock::SystemClock;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use crate::config::ListenerConfig;
use crate::connections::Connections;
use crate::http::answer::Answer;
use crate::http::body::BodyMemory;
use crate::http::{Edge, Kernel};
use crate::listener::Listener;
use crate::socket::Socket;
use crate::tls::Tls;

/// No quotas, no origins.
fn no_rules() -> Arc<Admission> {
    Arc::new(Admission::without_rules(Arc::new(SystemClock)))
}

/// Answers with what the edge understood, and knows every token but those that begin with `dead`. `test/panic` panics, `test/wait` waits for `go`, `test/unused` is 204.
#[derive(Default)]
struct Echo {
    started: Notify,
    go: Notify,
    finished: Notify,
}

impl Kernel for Echo {
    async fn handle(&self, incoming: Box<Incoming>) -> Answer {
        match incoming.path.as_str() {
            "test/panic" => panic!("a handler's fault with a s3cr3t in it"),
            "test/wait" => {
                self.started.notify_one();
                self.go.notified().await;
                self.finished.notify_one();
            }
            "test/empty" => {
                return Answer { body: bytes::Bytes::new(), ..Answer::bare(StatusCode::NO_CONTENT) };
            }
            _ => {}
        }
        let told = json!({
            "operation": incoming.operation.name(),
            "path": incoming.path.as_str(),
            "query": incoming.input.query.iter().map(|(name, value)| (name, value.to_json())).collect::<Vec<_>>(),
            "body": String::from_utf8_lossy(incoming.input.body.raw()),
            "withheld": incoming.body_withheld,
            "token": incoming.token.map(|t| t.expose().clone()),
            "namespace": incoming.namespace,
            "wrap_ttl": incoming.wrap_ttl.map(|d| d.as_millis()),
            "remote": incoming.remote.map(|a| a.ip().to_string()),
            "tls": incoming.tls.as_ref().map(tls_json),
        });
        Answer {
            status: StatusCode::OK,
            decided: StatusCode::OK,
            content_type: Some("application/json"),
            body: told.to_string().into(),
            location: None,
        }
    }

    async fn knows(&self, token: &SecretString, _: Option<IpAddr>) -> bool {
        !token.expose().starts_with("dead")
    }
}

/// The session of a connection, and which one it is in memory.
fn tls_json(tls: &Arc<TlsSession>) -> Value {
    let chain = tls.client_chain.as_ref();
    json!({
        "session": Arc::as_ptr(tls).addr(),
        "version": format!("{:?}", tls.version),
        "cipher_suite": tls.cipher_suite,
        "alpn": tls.alpn,
        "server_name": tls.server_name,
        "chain": chain.map(|chain| std::iter::once(&chain.leaf).chain(&chain.intermediates).collect::<Vec<_>>()),
        "check": chain.map(|chain| format!("{:?}", chain.check)),
    })
}

/// A listener on a free port, or wherever its configuration says.
struct Server {
    kernel: Arc<Echo>,
    address: Option<SocketAddr>,
    connections: Arc<Connections>,
    stop: watch::Sender<bool>,
    tls: Option<Arc<Tls>>,
}

/// An answer as bytes of HTTP/1.1, taken apart.
#[derive(Debug)]
struct Told {
    status: u16,
    head: String,
    body: String,
}

impl Told {
    fn of(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Told { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Server {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ListenerConfig)) -> Self {
        let mut config = ListenerConfig::plain("127.0.0.1:0");
        change(&mut config);
        Self::of(config, 100).await
    }

    async fn of(config: ListenerConfig, most: u32) -> Self {
        let kernel = Arc::new(Echo::default());
        let connections = Connections::new(most);
        let (stop, stopped) = watch::channel(false);
        let socket = Socket::bind(&config.bind).unwrap();
        let address = socket.address();
        let tls = config.tls.as_ref().map(|files| Arc::new(Tls::load(files).unwrap()));
        let edge = Edge::new(kernel.clone(), no_rules(), BodyMemory::new(256 << 20), &config);
        let listener = Listener { edge, tls: tls.clone(), connections: connections.clone(), stop: stopped };
        tokio::spawn(listener.run(socket));
        Server { kernel, address, connections, stop, tls }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address.unwrap()).await.unwrap()
    }

    /// One request on its own connection: `GET /v1/x`, further header lines, a body.
    async fn ask(&self, line: &str, headers: &[&str], body: &[u8]) -> Told {
        exchange(self.connect().await, line, headers, body).await
    }

    async fn get(&self, path: &str) -> Told {
        self.ask(&format!("GET {path}"), &[], b"").await
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, line: &str, headers: &[&str], body: &[u8]) -> Told {
    let mut head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    if !body.is_empty()
        && !headers.iter().any(|h| h.starts_with("Content-Length") || h.starts_with("Transfer-Encoding"))
    {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut raw = head.into_bytes();
    raw.extend_from_slice(body);
    // A server that refuses a body answers and closes without reading all of it.
    let _ = stream.write_all(&raw).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    Told::of(&answer)
}
