//! Whom a client trusts, and how it shows who it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keepfast_client::{Client, Config, Error};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An authority with a server's and a client's certificate, as files.
pub(crate) struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new(server_name: &str) -> Self {
        Self::with_end(server_name, 2040)
    }

    /// An authority whose certificates end with the year before `year`.
    fn with_end(server_name: &str, year: i32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        write("ca.pem", ca.pem());
        for (file, name) in [("server", server_name), ("client", "app")] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let cert = params.signed_by(&key, &ca).unwrap();
            write(&format!("{file}.pem"), cert.pem());
            write(&format!("{file}.key"), key.serialize_pem());
        }
        Self { directory }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A server with this authority's certificate; it answers with the number of certificates it was shown.
    pub(crate) async fn serve(&self) -> String {
        self.serve_to(false).await
    }

    /// The same; `only_known` refuses a client without a certificate.
    async fn serve_to(&self, only_known: bool) -> String {
        let mut roots = RootCertStore::empty();
        certificates(&self.file("ca.pem")).into_iter().for_each(|cert| roots.add(cert).unwrap());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = if only_known { verifier } else { verifier.allow_unauthenticated() }.build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier);
        let key = PrivateKeyDer::from_pem_file(self.file("server.key")).unwrap();
        let config = config.with_single_cert(certificates(&self.file("server.pem")), key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let shown = stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len);
                let _ = stream.read(&mut [0; 4096]).await;
                let body = format!("{{\"data\":{{\"shown\":{shown}}}}}");
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        address
    }
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

pub(crate) async fn shown(address: &str, set: impl FnOnce(&mut Config)) -> Result<u64, Error> {
    let mut config = Config::new(address).unwrap();
    config.max_retries = 0;
    set(&mut config);
    let secret = Client::new(config)?.read("a").await?.unwrap();
    Ok(secret.data_field("shown").unwrap().as_u64().unwrap())
}

#[tokio::test]
async fn a_known_authority_is_trusted_and_another_is_not() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve().await;
    assert_eq!(shown(&address, |config| config.ca_cert = Some(authority.file("ca.pem"))).await.unwrap(), 0);
    let other = Authority::new("127.0.0.1");
    for set in [None, Some(other.file("ca.pem"))] {
        let error = shown(&address, |config| config.ca_cert = set).await.unwrap_err();
        assert!(error.to_string().contains("give its CA with -ca-cert or VAULT_CACERT"), "{error}");
    }
}

#[tokio::test]
async fn authorities_come_as_text_too() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve().await;
    let pem = std::fs::read_to_string(authority.file("ca.pem")).unwrap();
    assert_eq!(shown(&address, |config| config.ca_pem = Some(pem)).await.unwrap(), 0);
    for text in ["", "no PEM", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        let error = shown(&address, |config| config.ca_pem = Some(text.to_owned())).await.unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{text}: {error}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_with_its_date() {
    let authority = Authority::with_end("127.0.0.1", 2020);
    let address = authority.serve().await;
    let error = shown(&address, |config| config.ca_cert = Some(authority.file("ca.pem"))).await.unwrap_err();
    assert!(error.to_string().contains("it expired on 2020-01-01T00:00:00Z"), "{error}");
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_is_understood() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve_to(true).await;
    let error = shown(&address, |config| config.ca_cert = Some(authority.file("ca.pem"))).await.unwrap_err();
    assert!(error.to_string().contains("VAULT_CLIENT_CERT"), "{error}");
}

#[tokio::test]
async fn the_wrong_scheme_is_understood() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve().await;
    let error = shown(&address.replace("https", "http"), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("https://") || error.to_string().contains("closed"), "{error}");
    let plain = crate::proxy::serve_plainly().await;
    let error = shown(&plain.replace("http", "https"), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("server gave HTTP response to HTTPS client"), "{error}");
}

#[tokio::test]
async fn a_directory_of_authorities_works_too() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve().await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(authority.file("ca.pem"), directory.path().join("ca.pem")).unwrap();
    assert_eq!(shown(&address, |config| config.ca_path = Some(directory.path().to_owned())).await.unwrap(), 0);
}

#[tokio::test]
async fn the_name_must_fit_unless_another_is_expected() {
    let authority = Authority::new("vault.example");
    let address = authority.serve().await;
    let trust = |config: &mut Config| config.ca_cert = Some(authority.file("ca.pem"));
    let error = shown(&address, trust).await.unwrap_err().to_string();
    assert!(error.contains("it is valid for vault.example, not for 127.0.0.1"), "{error}");
    let named = shown(&address, |config| {
        trust(config);
        config.server_name = Some("vault.example".to_owned());
    });
    assert_eq!(named.await.unwrap(), 0);
}

#[tokio::test]
async fn verification_can_be_switched_off() {
    let authority = Authority::new("elsewhere.example");
    let address = authority.serve().await;
    assert_eq!(shown(&address, |config| config.skip_verify = true).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve().await;
    let trust = |config: &mut Config| config.ca_cert = Some(authority.file("ca.pem"));
    let with_certificate = shown(&address, |config| {
        trust(config);
        config.client_cert = Some(authority.file("client.pem"));
        config.client_key = Some(authority.file("client.key"));
    });
    assert_eq!(with_certificate.await.unwrap(), 1);
    let half = shown(&address, |config| config.client_cert = Some(authority.file("client.pem")));
    assert!(matches!(half.await.unwrap_err(), Error::Config(_)));
}
