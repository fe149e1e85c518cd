//! How a client trusts a server, and shows who it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::{Config, Error};

/// Where systems keep the authorities they trust, in the order tried.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The TLS side of a configuration: versions 1.3 and 1.2, HTTP/2 where the server has it.
pub(crate) fn client_config(config: &Config) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("cannot set up TLS: {error}")))?;
    let builder = if config.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnything(provider)))
    } else {
        builder.with_root_certificates(authorities(config)?)
    };
    let mut tls = match (&config.client_cert, &config.client_key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
            builder
                .with_client_auth_cert(certificates(cert)?, key)
                .map_err(|error| Error::Config(format!("cannot use client certificate {}: {error}", cert.display())))?
        }
        _ => return Err(Error::Config("both client cert and client key must be provided".to_owned())),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// The authorities to trust: those named, else the system's.
fn authorities(config: &Config) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    let mut trust = |found: Vec<CertificateDer<'static>>, origin: &dyn std::fmt::Display| {
        let added = found.into_iter().try_for_each(|certificate| store.add(certificate));
        added.map_err(|error| Error::Config(format!("cannot trust {origin}: {error}")))
    };
    match (&config.ca_cert, &config.ca_pem, &config.ca_path) {
        (Some(file), _, _) => trust(certificates(file)?, &file.display())?,
        (None, Some(pem), _) => {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            let origin = "the PEM text of CACERT_BYTES";
            trust(found.map_err(|error| Error::Config(format!("cannot read {origin}: {error}")))?, &origin)?;
        }
        (None, None, Some(directory)) => {
            for file in files_of(directory)? {
                trust(certificates(&file)?, &file.display())?;
            }
        }
        (None, None, None) => return Ok(system_authorities()),
    }
    if store.is_empty() {
        return Err(Error::Config("no CA certificate found in the file, text or directory given".to_owned()));
    }
    Ok(store)
}

/// The system's authorities; `SSL_CERT_FILE` names another bundle, as it does for OpenSSL.
fn system_authorities() -> RootCertStore {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundle = named.into_iter().chain(SYSTEM_BUNDLES.iter().map(PathBuf::from)).find(|path| path.is_file());
    let mut store = RootCertStore::empty();
    // What cannot be read is not trusted; the handshake then says so.
    store.add_parsable_certificates(bundle.and_then(|path| certificates(&path).ok()).unwrap_or_default());
    store
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(directory).map_err(|error| unreadable(directory, &error))?;
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).map_err(|error| unreadable(file, &error))?.collect();
    found.map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Config(format!("cannot read {}: {error}", file.display()))
}

/// Accepts any certificate; signatures of the handshake are still checked, so that the peer at least holds
/// the key of the certificate it shows.
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
