//! TLS of calls: trusted servers and the client certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::{Authorities, ClientCertificate, Settings, SettingsError, Trust};

/// The CA bundles of operating systems, in the order of search.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The TLS settings of calls: as [`tls_config`], with HTTP/2 where the server supports it.
pub(crate) fn client_config(settings: &Settings) -> Result<ClientConfig, SettingsError> {
    let mut tls = tls_config(settings)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// The TLS settings for another protocol than HTTP: versions 1.3 and 1.2, the trusted CAs and the client certificate.
///
/// # Errors
/// [`SettingsError`] when a file cannot be read, or its content cannot be used.
pub fn tls_config(settings: &Settings) -> Result<ClientConfig, SettingsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| SettingsError(format!("cannot set up TLS: {error}")))?;
    let builder = match &settings.trust {
        Trust::Anything => builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnything(provider))),
        Trust::System(further) => {
            let mut store = system_authorities();
            further.iter().try_for_each(|authorities| add(&mut store, authorities))?;
            builder.with_root_certificates(store)
        }
        Trust::Only(authorities) => builder.with_root_certificates(only(authorities)?),
    };
    Ok(match &settings.client_certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let (chain, key, name) = client_certificate(certificate)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| SettingsError(format!("cannot use client certificate {name}: {error}")))?
        }
    })
}

/// A certificate chain with its key, and its name for errors.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, String);

fn client_certificate(certificate: &ClientCertificate) -> Result<Identity, SettingsError> {
    match certificate {
        ClientCertificate::Files { chain, key } => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
            Ok((certificates(chain)?, key, chain.display().to_string()))
        }
        ClientCertificate::Text { chain, key } => {
            let name = "the PEM text of the client certificate";
            let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
                .map_err(|error| SettingsError(format!("cannot read the PEM text of the client key: {error}")))?;
            Ok((certificates_of_text(name, chain)?, key, name.to_owned()))
        }
    }
}

fn only(authorities: &[Authorities]) -> Result<RootCertStore, SettingsError> {
    let mut store = RootCertStore::empty();
    authorities.iter().try_for_each(|authorities| add(&mut store, authorities))?;
    if store.is_empty() {
        return Err(SettingsError("no CA certificate found in the file, text or directory given".to_owned()));
    }
    Ok(store)
}

fn add(store: &mut RootCertStore, authorities: &Authorities) -> Result<(), SettingsError> {
    match authorities {
        Authorities::File(file) => trust(store, certificates(file)?, &file.display()),
        Authorities::Directory(directory) => {
            files_of(directory)?.iter().try_for_each(|file| trust(store, certificates(file)?, &file.display()))
        }
        Authorities::Text { name, pem } => trust(store, certificates_of_text(name, pem)?, name),
    }
}

fn trust(
    store: &mut RootCertStore,
    found: Vec<CertificateDer<'static>>,
    origin: &dyn std::fmt::Display,
) -> Result<(), SettingsError> {
    let added = found.into_iter().try_for_each(|certificate| store.add(certificate));
    added.map_err(|error| SettingsError(format!("cannot trust {origin}: {error}")))
}

/// The system's CAs. `SSL_CERT_FILE` replaces the bundle, as for OpenSSL.
fn system_authorities() -> RootCertStore {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundle = named.into_iter().chain(SYSTEM_BUNDLES.iter().map(PathBuf::from)).find(|path| path.is_file());
    let mut store = RootCertStore::empty();
    // An unreadable bundle means no trusted CA: the handshake fails.
    store.add_parsable_certificates(bundle.and_then(|path| certificates(&path).ok()).unwrap_or_default());
    store
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>, SettingsError> {
    let entries = std::fs::read_dir(directory).map_err(|error| unreadable(directory, &error))?;
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).map_err(|error| unreadable(file, &error))?.collect();
    found.map_err(|error| unreadable(file, &error))
}

fn certificates_of_text(name: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.map_err(|error| SettingsError(format!("cannot read {name}: {error}")))
}

fn unreadable(file: &Path, error: &dyn std::fmt::Display) -> SettingsError {
    SettingsError(format!("cannot read {}: {error}", file.display()))
}

/// Accepts any certificate. It checks the signatures of the handshake, so that the server holds the key of its
/// certificate.
#[derive(Debug)]
struct TrustAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
