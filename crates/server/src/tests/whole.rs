//! The real node with the edge: from HTTP to storage and back.

use std::net::SocketAddr;
use std::sync::Arc;

use keepfast_core::settings::AuditSettings;
use keepfast_core::{Node, Settings};
use keepfast_crypto::secret::SecretString;
use keepfast_edge::{BodyMemory, Connections, Edge, Listener, ListenerConfig, Socket};
use keepfast_framework::clock::SystemClock;
use keepfast_storage::MemoryBackend;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::exchange::{Response, exchange};
use crate::DevKv;
use crate::kernel::Served;

/// A development node with the root token `root` and a file audit device.
pub(super) struct WholeServer {
    pub(super) node: Arc<Node>,
    pub(super) address: SocketAddr,
    pub(super) audit: tempfile::NamedTempFile,
    _stop: watch::Sender<bool>,
}

impl WholeServer {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts the node with a changed listener.
    pub(super) async fn with(change: impl FnOnce(&mut ListenerConfig)) -> Self {
        let audit = tempfile::NamedTempFile::new().unwrap();
        let device = AuditSettings {
            device: "file".into(),
            name: "main".into(),
            description: String::new(),
            options: [("file_path".to_owned(), audit.path().display().to_string())].into(),
        };
        let settings = Settings { audit: vec![device], ..Settings::default() };
        let backend = Arc::new(MemoryBackend::new());
        let node = Node::new(backend, keepfast_engines::all(), Arc::new(SystemClock), settings);
        keepfast_core::init_dev(&node, Some(SecretString::new("root".into())), DevKv::V2.mount()).await.unwrap();
        let mut config = ListenerConfig::plain("127.0.0.1:0");
        change(&mut config);
        let socket = Socket::bind(&config.bind).unwrap();
        let address = socket.address().unwrap();
        let (stop, stopped) = watch::channel(false);
        let edge = Edge::new(Arc::new(Served(node.clone())), BodyMemory::new(256 << 20), &config);
        tokio::spawn(Listener { edge, tls: None, connections: Connections::new(100), stop: stopped }.run(socket));
        WholeServer { node, address, audit, _stop: stop }
    }

    pub(super) async fn send(&self, line: &str, token: &str, body: &str) -> Response {
        let header = format!("X-Vault-Token: {token}");
        let headers: &[&str] = if token.is_empty() { &[] } else { &[&header] };
        let stream = TcpStream::connect(self.address).await.unwrap();
        exchange(stream, line, headers, body.as_bytes()).await
    }
}

#[tokio::test]
async fn a_secret_is_audited_and_a_sealed_server_returns_nothing() {
    let whole = WholeServer::start().await;
    let written = whole.send("POST /v1/secret/data/app", "root", "{\"data\":{\"password\":\"c4n4ry-value\"}}").await;
    assert_eq!((written.status, &written.json()["data"]["version"]), (200, &json!(1)));
    let read = whole.send("GET /v1/secret/data/app", "root", "").await;
    assert_eq!(read.json()["data"]["data"], json!({"password": "c4n4ry-value"}));
    assert_eq!(whole.send("GET /v1/secret/data/app", "wrong", "").await.status, 403);
    let log = std::fs::read_to_string(whole.audit.path()).unwrap();
    assert!(log.lines().count() >= 6, "{log}");
    assert!(!log.contains("c4n4ry-value"), "sec_al01: a secret in the audit log");
    whole.node.shutdown().await;
    let sealed = whole.send("GET /v1/secret/data/app", "root", "").await;
    assert_eq!((sealed.status, sealed.body.as_str()), (503, "{\"errors\":[\"Vault is sealed\"]}\n"));
}

#[tokio::test]
async fn sec_ac09_mounts_are_indistinguishable_without_a_token() {
    let whole = WholeServer::start().await;
    let mut seen = Vec::new();
    for mount in ["secret", "nowhere", "cubbyhole", "cubbyhola"] {
        for token in ["", "hvs.unknown"] {
            for line in ["GET", "LIST", "POST", "DELETE"] {
                let response = whole.send(&format!("{line} /v1/{mount}/data/x"), token, "").await;
                seen.push((response.status, response.body));
            }
        }
    }
    seen.dedup();
    assert_eq!(seen, [(403, "{\"errors\":[\"permission denied\"]}\n".to_owned())]);
}

#[tokio::test]
async fn sec_ac02_encoded_paths_do_not_reach_another_stored_key() {
    let whole = WholeServer::start().await;
    assert_eq!(whole.send("POST /v1/secret/data/b/x", "root", "{\"data\":{\"k\":\"kept\"}}").await.status, 200);
    for spelling in
        ["a/%2e%2e/b/x", "a/..%2fb/x", "a/%252e%252e/b/x", "a%2f%2e%2e%2fb%2fx", "a/%c0%ae%c0%ae/b/x", "a/%2fb/x"]
    {
        let write =
            whole.send(&format!("POST /v1/secret/data/{spelling}"), "root", "{\"data\":{\"k\":\"lost\"}}").await;
        assert!(matches!(write.status, 200 | 400), "{spelling}: {write:?}");
        whole.send(&format!("DELETE /v1/secret/metadata/{spelling}"), "root", "").await;
    }
    let kept = whole.send("GET /v1/secret/data/b/x", "root", "").await.json();
    assert_eq!((&kept["data"]["data"]["k"], &kept["data"]["metadata"]["version"]), (&json!("kept"), &json!(1)));
}

#[tokio::test]
async fn sec_ds06_hostile_requests_give_no_5xx() {
    let whole = WholeServer::start().await;
    let methods = ["GET", "LIST", "SCAN", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"];
    let paths = [
        "",
        "sys",
        "sys/",
        "sys/mounts",
        "secret/data/",
        "secret/data/a/",
        "auth/token/create",
        "sys/wrapping/unwrap",
        "a?list=x",
        "%zz",
        "sys/health",
    ];
    let bodies = [
        "",
        "{",
        "[]",
        "{\"data\":5}",
        "{\"data\":{\"x\":null},\"options\":[]}",
        "{\"ttl\":{},\"policies\":7,\"token\":[]}",
    ];
    for method in methods {
        for path in paths {
            for body in bodies {
                let response = whole.send(&format!("{method} /v1/{path}"), "root", body).await;
                assert!((200..500).contains(&response.status), "{method} {path} {body}: {response:?}");
            }
        }
    }
}

#[tokio::test]
async fn metrics_follow_the_accept_header_and_count_by_status() {
    let whole = WholeServer::start().await;
    assert_eq!(whole.send("GET /v1/nothing/here", "root", "").await.status, 404);
    let address = whole.address;
    let scrape = |path: &'static str, accept: &'static str| async move {
        let stream = TcpStream::connect(address).await.unwrap();
        exchange(stream, &format!("GET {path}"), &["X-Vault-Token: root", accept], b"").await
    };
    let text = scrape("/v1/sys/metrics", "Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1").await;
    assert_eq!((text.status, text.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    assert!(text.body.contains("\nvault_core_response_status_code{code=\"404\",type=\"4xx\"} 1\n"), "{}", text.body);
    let json = scrape("/v1/sys/metrics", "Accept: */*").await;
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert!(json.json()["Samples"].as_array().is_some_and(|samples| !samples.is_empty()));
}

#[tokio::test]
async fn sec_kf53_no_caller_creates_a_series_of_status_codes() {
    let whole = WholeServer::with(|config| config.open_metrics = true).await;
    assert_eq!(whole.send("GET /v1/sys/health?activecode=298", "", "").await.status, 298);
    let text = whole.send("GET /v1/sys/metrics?format=prometheus", "", "").await.body;
    assert!(text.contains("\nvault_core_response_status_code{code=\"200\",type=\"2xx\"} 1\n"), "{text}");
    assert!(!text.contains("code=\"298\""), "{text}");
}

#[tokio::test]
async fn sec_kf53_a_code_for_failed_batches_creates_no_series() {
    let whole = WholeServer::start().await;
    for (path, body) in [("sys/mounts/transit", "{\"type\":\"transit\"}"), ("transit/keys/k", "{}")] {
        assert!(whole.send(&format!("POST /v1/{path}"), "root", body).await.status < 300, "{path}");
    }
    let batch = |code: &str| {
        let items = "[{\"plaintext\":\"YQ==\"},{\"plaintext\":\"#\"}]";
        format!("{{\"batch_input\":{items},\"partial_failure_response_code\":{code}}}")
    };
    for (code, status) in [
        ("298", 298),
        ("\"0x1a2\"", 418),
        ("204", 204),
        ("304", 304),
        ("599", 599),
        ("100", 400),
        ("101", 400),
        ("199", 400),
        ("99", 400),
        ("600", 400),
        ("65736", 400),
        ("-1", 400),
        ("null", 400),
        ("true", 400),
        ("\"x\"", 400),
        ("4e2", 400),
    ] {
        let body = batch(code);
        let head = "HTTP/1.1\r\nHost: x\r\nX-Vault-Token: root\r\n";
        let first = format!("POST /v1/transit/encrypt/k {head}Content-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(whole.address).await.unwrap();
        stream
            .write_all(format!("{first}GET /v1/sys/mounts {head}Connection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut out = String::new();
        stream.read_to_string(&mut out).await.unwrap();
        let statuses: Vec<&str> = out.split("HTTP/1.1 ").skip(1).filter_map(|text| text.get(..3)).collect();
        assert_eq!(statuses, [status.to_string().as_str(), "200"], "{code}: {out}");
    }
    let text = whole.send("GET /v1/sys/metrics?format=prometheus", "root", "").await.body;
    let codes: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("vault_core_response_status_code{code=\"")?.get(..3))
        .collect();
    assert_eq!(codes, ["200", "204", "400"]);
}

#[tokio::test]
async fn open_metrics_need_no_token_and_no_unseal() {
    let whole = WholeServer::with(|config| config.open_metrics = true).await;
    let response = whole.send("GET /v1/sys/metrics?format=prometheus", "", "").await;
    assert!(response.status == 200 && response.body.contains("\nvault_core_unsealed{cluster=\""), "{response:?}");
    whole.node.shutdown().await;
    let sealed = whole.send("GET /v1/sys/metrics?format=prometheus", "", "").await;
    assert!(sealed.body.contains("\nvault_core_unsealed{cluster=\"\"} 0\n"), "{sealed:?}");
    assert!(sealed.body.contains("\nvault_core_seal_count 1\n"), "{sealed:?}");
}
