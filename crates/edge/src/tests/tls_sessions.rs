//! The TLS session of a connection as a handler sees it.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::CertificateDer;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client_certificates::{Authority, Client, ClientAuthServer};
use super::*;
use crate::config::ClientCertificates;

/// A listener that requests client certificates and does not require them.
async fn requesting() -> ClientAuthServer {
    ClientAuthServer::with(tempfile::tempdir().unwrap(), PathBuf::new(), ClientCertificates::Requested).await
}

/// The client's certificate followed by that of its CA.
fn chain_of(authority: &Authority, (certificate, key): &Client) -> (Vec<CertificateDer<'static>>, Vec<u8>) {
    (vec![certificate.clone(), authority.certificate.der().clone()], key.clone())
}

fn as_json(chain: &[CertificateDer<'_>]) -> Value {
    json!(chain.iter().map(|certificate| certificate.as_ref()).collect::<Vec<&[u8]>>())
}

impl ClientAuthServer {
    async fn connect(&self, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(config).connect(name, self.server.connect().await).await.unwrap()
    }

    /// The session of a request on a new HTTP/1.1 connection, and the kind of its handshake.
    async fn session(&self, config: Arc<ClientConfig>) -> (HandshakeKind, Value) {
        let mut stream = self.connect(config).await;
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        (kind, exchange(&mut stream, "GET /v1/a", &[], b"").await.json()["tls"].clone())
    }

    /// The sessions of requests on one HTTP/2 connection.
    async fn sessions_of_http_2(&self, config: Arc<ClientConfig>, requests: usize) -> Vec<Value> {
        let mut config = ClientConfig::clone(&config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TokioIo::new(self.connect(Arc::new(config)).await);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        let mut sessions = Vec::new();
        for _ in 0..requests {
            let request = http::Request::get("https://localhost/v1/a").body(Empty::<bytes::Bytes>::new()).unwrap();
            let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
            sessions.push(serde_json::from_slice::<Value>(&body).unwrap()["tls"].clone());
        }
        sessions
    }
}

#[tokio::test]
async fn a_handler_receives_the_client_certificate_chain() {
    let ours = Authority::new("ours");
    let client = chain_of(&ours, &ours.issue(|_| {}));
    for (listener, check) in [(requesting().await, "KeyOnly"), (ClientAuthServer::start(&ours).await, "Authorities")] {
        for (version, name) in [(&TLS12, "Tls12"), (&TLS13, "Tls13")] {
            let (_, tls) = listener.session(listener.client_with_chain(version, Some(client.clone()))).await;
            assert_eq!((&tls["chain"], &tls["check"]), (&as_json(&client.0), &json!(check)));
            assert_eq!((&tls["version"], &tls["server_name"]), (&json!(name), &json!("localhost")));
            assert_eq!(tls["alpn"], Value::Null);
        }
        let http_2 = listener.sessions_of_http_2(listener.client_with_chain(&TLS13, Some(client.clone())), 1).await;
        assert_eq!((&http_2[0]["chain"], &http_2[0]["alpn"]), (&as_json(&client.0), &json!("h2")));
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_has_no_chain() {
    let listener = requesting().await;
    let config = listener.client_with_chain(&TLS13, None);
    let (_, tls) = listener.session(config.clone()).await;
    assert_eq!((&tls["chain"], &tls["version"]), (&Value::Null, &json!("Tls13")));
    // 0x1301 to 0x1303 are the suites of TLS 1.3 (RFC 8446 appendix B.4).
    assert!((0x1301..=0x1303).contains(&tls["cipher_suite"].as_u64().unwrap()), "{tls}");
    assert_eq!(listener.sessions_of_http_2(config, 1).await[0]["chain"], Value::Null);
    assert_eq!(Server::start().await.get("/v1/a").await.json()["tls"], Value::Null);
}

#[tokio::test]
async fn the_requests_of_a_connection_share_one_session() {
    let listener = requesting().await;
    let sessions = listener.sessions_of_http_2(listener.client_with_chain(&TLS13, None), 3).await;
    assert!(sessions[0]["session"].is_u64());
    assert!(sessions.iter().all(|session| session["session"] == sessions[0]["session"]));
}

#[tokio::test]
async fn a_resumed_session_has_the_chain_of_its_first_handshake() {
    let (ours, listener) = (Authority::new("ours"), requesting().await);
    let client = chain_of(&ours, &ours.issue(|_| {}));
    for version in [&TLS12, &TLS13] {
        let config = listener.client_with_chain(version, Some(client.clone()));
        listener.session(config.clone()).await;
        let (kind, tls) = listener.session(config).await;
        assert_eq!((kind, &tls["chain"]), (HandshakeKind::Resumed, &as_json(&client.0)));
    }
}

#[tokio::test]
async fn sec_kf03_unauthenticated_client_certificates_count_as_memory() {
    let (ours, listener) = (Authority::new("ours"), requesting().await);
    let (mut chain, key) = chain_of(&ours, &ours.issue(|_| {}));
    chain.extend(std::iter::repeat_n(chain[1].clone(), 40));
    let length: usize = chain.iter().map(|certificate| certificate.len()).sum();
    let held = || listener.server.connections.held_unauthenticated();
    let stream = listener.connect(listener.client_with_chain(&TLS13, Some((chain, key)))).await;
    let counted = async {
        while held() < (44 << 10) + 2 * length {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counted).await.expect("the chain counts");
    drop(stream);
    assert!(listener.server.connections.drained(Duration::from_secs(10)).await);
    assert_eq!(held(), 0);
}
