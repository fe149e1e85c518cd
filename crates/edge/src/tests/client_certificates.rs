//! Client certificates of a listener that requires them.

use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::{ClientCertificates, TlsConfig};
use crate::tls::development;

/// A CA that issues client certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: rcgen::Certificate,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.into()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    pub(super) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Client {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["client".into()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), key.serialize_der())
    }
}

pub(super) type Client = (CertificateDer<'static>, Vec<u8>);

pub(super) struct ClientAuthServer {
    pub(super) server: Server,
    dir: tempfile::TempDir,
    ca: PathBuf,
}

impl ClientAuthServer {
    pub(super) async fn start(authority: &Authority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("clients.pem");
        std::fs::write(&ca, authority.certificate.pem()).unwrap();
        Self::with(dir, ca.clone(), ClientCertificates::Required(ca)).await
    }

    pub(super) async fn with(dir: tempfile::TempDir, ca: PathBuf, clients: ClientCertificates) -> Self {
        let server = Server::with(|c| c.tls = Some(files(dir.path(), clients))).await;
        ClientAuthServer { server, dir, ca }
    }

    fn client(&self, version: &'static SupportedProtocolVersion, client: Option<&Client>) -> Arc<ClientConfig> {
        self.client_with_chain(version, client.map(|(certificate, key)| (vec![certificate.clone()], key.clone())))
    }

    /// A client that presents a chain, its own certificate first.
    pub(super) fn client_with_chain(
        &self,
        version: &'static SupportedProtocolVersion,
        client: Option<(Vec<CertificateDer<'static>>, Vec<u8>)>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.dir.path().join("vault-ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::try_from(key).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        })
    }

    /// The kind of the handshake, and whether a request on the connection was answered.
    async fn send(&self, config: Arc<ClientConfig>) -> Option<HandshakeKind> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(config).connect(name, self.server.connect().await).await.ok()?;
        let kind = stream.get_ref().1.handshake_kind();
        // In TLS 1.3 the first read of the client returns the refusal.
        let response = exchange(&mut stream, "GET /v1/a", &[], b"").await;
        kind.filter(|_| response.status == 200)
    }
}

fn files(dir: &std::path::Path, clients: ClientCertificates) -> TlsConfig {
    let files = development::write(dir, vec!["localhost".into()]).unwrap();
    TlsConfig { cert_file: files.cert, key_file: files.key, tls12: true, tls13: true, clients }
}

#[tokio::test]
async fn sec_kf27_only_certificates_of_the_authority_that_are_valid_pass() {
    let (ours, others) = (Authority::new("ours"), Authority::new("ours"));
    let requiring = ClientAuthServer::start(&ours).await;
    let year = |year| rcgen::date_time_ymd(year, 1, 1);
    let good = ours.issue(|_| {});
    let clients = [
        ("good", Some(good), true),
        ("none", None, false),
        ("another authority's", Some(others.issue(|_| {})), false),
        ("expired", Some(ours.issue(|p| (p.not_before, p.not_after) = (year(2001), year(2002)))), false),
        ("not yet valid", Some(ours.issue(|p| (p.not_before, p.not_after) = (year(2090), year(2091)))), false),
        ("a server's", Some(ours.issue(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])), false),
    ];
    for version in [&TLS12, &TLS13] {
        for (name, client, passes) in &clients {
            let outcome = requiring.send(requiring.client(version, client.as_ref())).await;
            assert_eq!(outcome.is_some(), *passes, "{name} by {version:?}");
        }
    }
}

#[tokio::test]
async fn sec_kf27_no_session_is_resumed_where_certificates_are_required() {
    let ours = Authority::new("ours");
    let good = ours.issue(|_| {});
    let requiring = ClientAuthServer::start(&ours).await;
    let dir = tempfile::tempdir().unwrap();
    let requesting = ClientAuthServer::with(dir, PathBuf::new(), ClientCertificates::Requested).await;
    for version in [&TLS12, &TLS13] {
        let (strict, lenient) = (requiring.client(version, Some(&good)), requesting.client(version, Some(&good)));
        for _ in 0..3 {
            assert!(matches!(requiring.send(strict.clone()).await, Some(kind) if kind != HandshakeKind::Resumed));
        }
        // Where no certificate is required, sessions are resumed; so the check above can fail.
        requesting.send(lenient.clone()).await.unwrap();
        assert_eq!(requesting.send(lenient).await, Some(HandshakeKind::Resumed));
    }
}

#[tokio::test]
async fn sec_kf27_a_ca_file_is_checked_at_start_and_at_reload() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let (good, other) = (ours.issue(|_| {}), others.issue(|_| {}));
    let requiring = ClientAuthServer::start(&ours).await;
    let tls = requiring.server.tls.as_ref().unwrap();
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for broken in ["", "text", garbage] {
        std::fs::write(&requiring.ca, broken).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let fault = Tls::load(&files(dir.path(), ClientCertificates::Required(requiring.ca.clone()))).err().unwrap();
        assert!(fault.to_string().contains("clients.pem"), "{fault}");
        assert!(tls.reload().unwrap_err().to_string().contains("clients.pem"));
        assert!(requiring.send(requiring.client(&TLS13, Some(&good))).await.is_some(), "the authority in use stays");
        assert!(requiring.send(requiring.client(&TLS13, None)).await.is_none());
    }
    std::fs::remove_file(&requiring.ca).unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("clients.pem"));
    // A new CA applies to the next connection.
    std::fs::write(&requiring.ca, others.certificate.pem()).unwrap();
    tls.reload().unwrap();
    assert!(requiring.send(requiring.client(&TLS13, Some(&good))).await.is_none());
    assert!(requiring.send(requiring.client(&TLS13, Some(&other))).await.is_some());
    assert!(requiring.server.connections.drained(Duration::from_secs(10)).await);
}
