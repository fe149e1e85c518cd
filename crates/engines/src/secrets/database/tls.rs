//! TLS to a database. The server's certificate is verified with the system's CAs or the configured one, unless an
//! operator disables that, which is logged.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// The CA bundles of systems, in the order of attempts.
const SYSTEM_BUNDLES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How much of a certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    /// The chain and the name.
    Everything,
    /// The chain, with any name.
    ChainOnly,
    /// Nothing: an attacker on the network can read and change the traffic.
    Nothing,
}

/// The CAs, certificate and key of a connection, all in PEM.
#[derive(Default)]
pub(super) struct Material {
    /// The CAs; `None` for the system's.
    pub(super) authorities: Option<String>,
    /// The client certificate with its chain.
    pub(super) certificate: Option<String>,
    /// Its key.
    pub(super) key: Option<String>,
}

/// The TLS configuration of a client.
///
/// # Errors
/// When the material is invalid.
pub(super) fn client(material: &Material, verify: Verify) -> Result<ClientConfig, String> {
    client_of_versions(material, verify, Versions::All)
}

/// The allowed versions of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    /// 1.2 and 1.3.
    All,
    Only12,
    Only13,
}

/// The TLS configuration of a client with certain versions.
///
/// # Errors
/// As [`client`].
pub(super) fn client_of_versions(
    material: &Material,
    verify: Verify,
    versions: Versions,
) -> Result<ClientConfig, String> {
    let versions = match versions {
        Versions::All => rustls::ALL_VERSIONS,
        Versions::Only12 => &[&rustls::version::TLS12],
        Versions::Only13 => &[&rustls::version::TLS13],
    };
    let mut roots = RootCertStore::empty();
    match &material.authorities {
        Some(pem) => {
            for certificate in certificates(pem, "the certificate of the authority")? {
                roots.add(certificate).map_err(|_| "the certificate of the authority is invalid".to_owned())?;
            }
        }
        None => drop(roots.add_parsable_certificates(system())),
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| format!("cannot set up TLS: {error}"))?;
    let builder = if verify == Verify::Everything {
        builder.with_root_certificates(roots)
    } else {
        let inner = (verify == Verify::ChainOnly)
            .then(|| WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build())
            .transpose()
            .map_err(|_| "there is no authority to verify a certificate".to_owned())?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(PartialVerifier { inner, provider }))
    };
    match (&material.certificate, &material.key) {
        (Some(certificate), Some(key)) => {
            let key =
                PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "the private key is not PEM".to_owned())?;
            let chain = certificates(certificate, "the certificate")?;
            builder.with_client_auth_cert(chain, key).map_err(|_| "certificate and private key do not fit".to_owned())
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err("a certificate and its private key must be given together".to_owned()),
    }
}

/// The certificates in a PEM text.
///
/// # Errors
/// When there is none; the text begins with `name`.
pub(super) fn certificates(pem: &str, name: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    read.ok().filter(|c| !c.is_empty()).ok_or_else(|| format!("{name} is not PEM"))
}

/// Whether a PEM text has a private key.
pub(super) fn is_private_key(pem: &str) -> bool {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).is_ok()
}

/// The CAs that the system trusts.
pub(super) fn system() -> Vec<CertificateDer<'static>> {
    let bundle = SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
    // Unreadable certificates are not trusted, so the handshake fails.
    let read = bundle.and_then(|path| CertificateDer::pem_file_iter(path).ok());
    read.map(|certificates| certificates.filter_map(Result::ok).collect()).unwrap_or_default()
}

/// Verifies only a part of a certificate; signatures of the handshake are always verified.
#[derive(Debug)]
struct PartialVerifier {
    /// Verifies the chain; `None` for nothing.
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for PartialVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
