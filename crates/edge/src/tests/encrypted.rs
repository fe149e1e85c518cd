//! TLS and HTTP/2 against real handshakes.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use rustls_pki_types::pem::PemObject;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config::{ClientCertificates, TlsConfig};
use crate::tls::development;

struct Encrypted {
    server: Server,
    dir: tempfile::TempDir,
}

impl Encrypted {
    async fn start(clients: ClientCertificates) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = development::write(dir.path(), vec!["localhost".into()]).unwrap();
        let tls = TlsConfig { cert_file: files.cert, key_file: files.key, tls12: true, tls13: true, clients };
        let server = Server::with(|c| {
            c.tls = Some(tls);
            c.limits.handshake_timeout = Duration::from_millis(50);
        })
        .await;
        Encrypted { server, dir }
    }

    /// A client that trusts the CA that is now in the directory.
    fn client(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.dir.path().join("vault-ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    async fn connect(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.server.connect().await).await
    }
}

#[tokio::test]
async fn tls_1_3_with_a_hybrid_key_exchange_and_tls_1_2_are_served() {
    let encrypted = Encrypted::start(ClientCertificates::Requested).await;
    let stream = encrypted.connect(encrypted.client(&[&rustls::version::TLS13])).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(exchange(stream, "GET /v1/a", &[], b"").await.json()["remote"], "127.0.0.1");
    let stream = encrypted.connect(encrypted.client(&[&rustls::version::TLS12])).await.unwrap();
    assert_eq!(exchange(stream, "GET /v1/a", &[], b"").await.status, 200);
}

#[tokio::test]
async fn sec_kf03_handshakes_that_do_not_end_count_until_they_are_cut_off() {
    let encrypted = Encrypted::start(ClientCertificates::Requested).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut stream = encrypted.server.connect().await;
        // The start of a ClientHello of 16 KiB.
        stream.write_all(&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3]).await.unwrap();
        clients.push(stream);
    }
    let all_end = async {
        while encrypted.server.connections.held_unauthenticated() < 44 << 10 {
            tokio::task::yield_now().await;
        }
        for client in &mut clients {
            let _ = client.read_to_end(&mut Vec::new()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_end).await.expect("the server closes");
    assert!(encrypted.server.connections.drained(Duration::from_secs(10)).await);
    assert_eq!(encrypted.server.connections.held_unauthenticated(), 0);
}

#[tokio::test]
async fn an_optional_client_certificate_may_be_self_signed_or_absent() {
    let encrypted = Encrypted::start(ClientCertificates::Requested).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["client".into()]).unwrap().self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(encrypted.dir.path().join("vault-ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let stream = encrypted.connect(config).await.unwrap();
    assert_eq!(exchange(stream, "GET /v1/a", &[], b"").await.status, 200);
}

#[tokio::test]
async fn a_missing_required_client_certificate_is_refused() {
    let authority = tempfile::tempdir().unwrap();
    let files = development::write(authority.path(), vec!["x".into()]).unwrap();
    let encrypted = Encrypted::start(ClientCertificates::Required(files.ca)).await;
    // In TLS 1.3 the first read of the client returns the refusal.
    let refused = match encrypted.connect(encrypted.client(&[&rustls::version::TLS13])).await {
        Err(_) => true,
        Ok(stream) => exchange(stream, "GET /v1/a", &[], b"").await.status == 0,
    };
    assert!(refused);
}

#[tokio::test]
async fn a_reload_replaces_certificates_and_ignores_invalid_ones() {
    let encrypted = Encrypted::start(ClientCertificates::Disabled).await;
    let before = encrypted.client(&[&rustls::version::TLS13]);
    let files = development::write(encrypted.dir.path(), vec!["localhost".into()]).unwrap();
    encrypted.server.tls.as_ref().unwrap().reload().unwrap();
    assert!(encrypted.connect(before).await.is_err());
    let after = encrypted.client(&[&rustls::version::TLS13]);
    assert!(encrypted.connect(after.clone()).await.is_ok());
    std::fs::write(files.cert, "broken").unwrap();
    let fault = encrypted.server.tls.as_ref().unwrap().reload().unwrap_err().to_string();
    assert!(fault.contains("vault-cert.pem"), "{fault}");
    assert!(encrypted.connect(after).await.is_ok());
}

#[tokio::test]
async fn an_expired_certificate_is_loaded_with_a_warning() {
    let encrypted = Encrypted::start(ClientCertificates::Disabled).await;
    let tls = encrypted.server.tls.as_ref().unwrap();
    let now = keepfast_framework::Timestamp::parse_rfc3339("2026-11-29T12:00:00Z").unwrap();
    assert_eq!(tls.date_warning(now), None);
    let mut expired = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    (expired.not_before, expired.not_after) = (rcgen::date_time_ymd(2024, 1, 1), rcgen::date_time_ymd(2025, 1, 1));
    let key = rcgen::KeyPair::generate().unwrap();
    let files = development::write(encrypted.dir.path(), vec!["localhost".into()]).unwrap();
    std::fs::write(&files.cert, expired.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    tls.reload().unwrap();
    assert!(tls.date_warning(now).unwrap().ends_with("vault-cert.pem expired at 2025-01-01T00:00:00Z"));
}

#[tokio::test]
async fn sec_ds04_a_handshake_that_stalls_or_is_garbage_ends() {
    let encrypted = Encrypted::start(ClientCertificates::Requested).await;
    for start in [&b""[..], b"\x16\x03\x01", b"GET /v1/a HTTP/1.1\r\n\r\n"] {
        let mut stream = encrypted.server.connect().await;
        stream.write_all(start).await.unwrap();
        let mut out = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut out))
            .await
            .expect("the server closes");
    }
    assert!(encrypted.connect(encrypted.client(&[&rustls::version::TLS13])).await.is_ok());
}

#[tokio::test]
async fn plain_http_on_a_tls_listener_is_400() {
    let encrypted = Encrypted::start(ClientCertificates::Requested).await;
    let mut stream = encrypted.server.connect().await;
    stream.write_all(b"PUT /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\ns3cr3t!").await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert_eq!(response, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
}

#[tokio::test]
async fn sec_ds09_tls_1_0_and_1_1_are_refused() {
    let encrypted = Encrypted::start(ClientCertificates::Requested).await;
    for minor in [1u8, 2] {
        // A minimal ClientHello of TLS 1.0 or 1.1 with one old cipher suite.
        let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, minor];
        hello.extend_from_slice(&[7; 32]);
        hello.extend_from_slice(&[0, 0, 2, 0, 0x2f, 1, 0]);
        let mut stream = encrypted.server.connect().await;
        stream.write_all(&hello).await.unwrap();
        let mut alert = Vec::new();
        let _ = stream.read_to_end(&mut alert).await;
        assert_eq!(alert.first(), Some(&21), "an alert, not a handshake: {alert:?}");
    }
}

#[tokio::test]
async fn alpn_selects_http_2_and_streams_run_concurrently() {
    let encrypted = Encrypted::start(ClientCertificates::Requested).await;
    let mut config = encrypted.client(&[&rustls::version::TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = encrypted.connect(config).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let responses = (0..20).map(|n| {
        let mut sender = sender.clone();
        async move {
            let request =
                http::Request::get(format!("https://localhost/v1/a/{n}")).body(Empty::<bytes::Bytes>::new()).unwrap();
            let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
            serde_json::from_slice::<Value>(&body).unwrap()["path"].as_str().unwrap().to_owned()
        }
    });
    let paths = futures_util::future::join_all(responses).await;
    assert_eq!(paths, (0..20).map(|n| format!("a/{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn sec_ds09_rapidly_reset_streams_end_only_their_connection() {
    const HEADERS: u8 = 1;
    const GOAWAY: u8 = 7;
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let mut raw = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for n in 0..5000u32 {
        let id = (2 * n + 1).to_be_bytes();
        // HEADERS of GET / over http, from the static table, END_HEADERS | END_STREAM; then RST_STREAM.
        raw.extend_from_slice(&[0, 0, 3, 1, 5]);
        raw.extend_from_slice(&id);
        raw.extend_from_slice(&[0x82, 0x84, 0x86]);
        raw.extend_from_slice(&[0, 0, 4, 3, 0]);
        raw.extend_from_slice(&id);
        raw.extend_from_slice(&[0, 0, 0, 8]);
    }
    let (mut reading, mut writing) = stream.split();
    let send = async {
        let _ = writing.write_all(&raw).await;
    };
    let receive = async {
        let mut out = Vec::new();
        let _ = reading.read_to_end(&mut out).await;
        out
    };
    let ((), out) = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(send, receive) })
        .await
        .expect("the server ends the connection");
    // The resets cost more than the credit of the connection, which ends without GOAWAY: requests are read in turns of
    // 4, so that h2, which sends ENHANCE_YOUR_CALM, never has the 20 pending resets of its limit.
    let (mut rest, mut kinds) = (out.as_slice(), Vec::new());
    while let Some((head, behind)) = rest.split_first_chunk::<9>() {
        kinds.push(head[3]);
        rest = behind.get(usize::from(head[1]) << 8 | usize::from(head[2])..).unwrap_or_default();
    }
    assert!(!kinds.contains(&GOAWAY), "{kinds:?}");
    let responses = kinds.iter().filter(|kind| **kind == HEADERS).count();
    assert!(responses < 5000 / 2, "{responses} of 5000 requests have a response");
    assert_eq!(server.get("/v1/a").await.status, 200);
}
