//! The edge over real sockets, with a kernel that returns the request.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admission;
mod client_certificates;
mod connections;
mod encrypted;
mod exchange;
mod files;
mod tls_sessions;
mod unauthenticated;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Incoming, RawBody, TlsSession};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use self::exchange::{Response, answered, exchange, repeated};
use crate::{
    Admission, BodyMemory, Connections, Edge, EdgeResponse, Kernel, Listener, ListenerConfig, OriginCheck, Socket, Tls,
    Upload, UploadTurn,
};

/// The longest body in a file.
const MAX_FILE: usize = 1_000_000;

/// Returns the request as the edge read it. Every token is live except those that begin with `dead`. `test/panic`
/// panics, `test/wait` waits for `go`, `test/unused` is 204.
#[derive(Default)]
struct Echo {
    /// Whether the rules of admission are current.
    settled: AtomicBool,
    started: Notify,
    go: Notify,
    finished: Notify,
}

impl Admission for Echo {
    fn is_served_sealed(&self, path: &str) -> bool {
        matches!(path, "sys/health" | "sys/init" | "sys/leader" | "sys/seal-status" | "sys/unseal")
    }

    fn takes_raw_body(&self, path: &str) -> bool {
        matches!(path, "test/bytes" | "test/file" | "test/file/slow")
    }

    fn audited_headers(&self) -> Arc<BTreeMap<String, bool>> {
        Arc::default()
    }

    fn check_origin(&self, _: Option<&str>) -> OriginCheck {
        if self.settled.load(Ordering::Relaxed) { OriginCheck::NoRules } else { OriginCheck::Denied }
    }
}

impl Kernel for Echo {
    async fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    async fn handle(&self, incoming: Box<Incoming>) -> EdgeResponse {
        match incoming.path.as_str() {
            "test/panic" => panic!("a handler's fault with a s3cr3t in it"),
            "test/wait" => {
                self.started.notify_one();
                self.go.notified().await;
                self.finished.notify_one();
            }
            "test/empty" => {
                return EdgeResponse { body: bytes::Bytes::new(), ..EdgeResponse::bare(StatusCode::NO_CONTENT) };
            }
            _ => {}
        }
        if let RawBody::File(file) = incoming.input.body.unparsed() {
            return EdgeResponse { file: Some(file.clone()), ..EdgeResponse::bare(StatusCode::OK) };
        }
        let response = json!({
            "operation": incoming.operation.name(),
            "path": incoming.path.as_str(),
            "query": incoming.input.query.iter().map(|(name, value)| (name, value.to_json())).collect::<Vec<_>>(),
            "body": String::from_utf8_lossy(incoming.input.body.raw()),
            "bytes": incoming.input.body.bytes().len(),
            "withheld": incoming.body_withheld,
            "token": incoming.token.map(|t| t.expose().clone()),
            "namespace": incoming.namespace,
            "wrap_ttl": incoming.wrap_ttl.map(|d| d.as_millis()),
            "remote": incoming.remote.map(|a| a.ip().to_string()),
            "tls": incoming.tls.as_ref().map(tls_json),
        });
        EdgeResponse {
            status: StatusCode::OK,
            decided: StatusCode::OK,
            content_type: Some("application/json".into()),
            body: response.to_string().into(),
            file: None,
            headers: Vec::new(),
        }
    }

    async fn upload(&self, head: &Incoming, _: bool) -> Result<Option<Upload>, EdgeResponse> {
        let place = |turn| Upload { directory: std::env::temp_dir(), longest: MAX_FILE as u64, turn };
        let is_file = head.path.as_str().starts_with("test/file");
        Ok(is_file.then(|| place(Box::new(TestTurn { is_taken: head.path.as_str() == "test/file/slow" }))))
    }

    async fn is_live_token(&self, token: &SecretString, _: Option<IpAddr>) -> bool {
        !token.expose().starts_with("dead")
    }
}

/// The turn of an upload.
struct TestTurn {
    /// Whether another caller takes it once the body has begun.
    is_taken: bool,
}

impl UploadTurn for TestTurn {
    fn received(&self, _: u64) -> bool {
        !self.is_taken
    }

    fn complete(&self) -> bool {
        !self.is_taken
    }

    fn taken(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let is_taken = self.is_taken;
        Box::pin(async move {
            if !is_taken {
                std::future::pending::<()>().await;
            }
        })
    }
}

/// The TLS session of a connection, and its address in memory as identity.
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

/// A listener on a free port, or at the configured address.
struct Server {
    kernel: Arc<Echo>,
    address: Option<SocketAddr>,
    connections: Arc<Connections>,
    stop: watch::Sender<bool>,
    tls: Option<Arc<Tls>>,
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
        let edge = Edge::new(kernel.clone(), BodyMemory::new(256 << 20), &config);
        let listener = Listener { edge, tls: tls.clone(), connections: connections.clone(), stop: stopped };
        tokio::spawn(listener.run(socket));
        Server { kernel, address, connections, stop, tls }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address.unwrap()).await.unwrap()
    }

    /// One request on its own connection: `GET /v1/x`, further header lines, a body.
    async fn send(&self, line: &str, headers: &[&str], body: &[u8]) -> Response {
        exchange(self.connect().await, line, headers, body).await
    }

    async fn get(&self, path: &str) -> Response {
        self.send(&format!("GET {path}"), &[], b"").await
    }
}
