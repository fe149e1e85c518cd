//! TLS by rustls: 1.3 and 1.2, hybrid post-quantum key exchange first, certificates that can be replaced at run time.

mod client_certificates;
pub mod development;
mod session;

use std::path::Path;
use std::sync::Arc;

use keepfast_framework::tls_session::ChainCheck;
use keepfast_framework::{Timestamp, TlsSession};
use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::Decode as _;

use self::client_certificates::AnyClient;
use crate::config::{ClientCertificates, TlsConfig};

/// Errors of a listener's TLS files. The texts contain paths, never the content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is unreadable or has no item of the expected kind.
    #[error("{file}: {reason}")]
    File {
        /// Its path.
        file: String,
        /// The reason.
        reason: String,
    },
    /// The certificate and the key do not match, or have an unknown type.
    #[error("certificate {file}: {reason}")]
    Pair {
        /// The certificate's path.
        file: String,
        /// The error of rustls.
        reason: rustls::Error,
    },
    /// The CAs for client certificates cannot be used.
    #[error("tls_client_ca_file {file}: {reason}")]
    Authorities {
        /// The path.
        file: String,
        /// The reason.
        reason: String,
    },
}

/// The TLS of a listener: the settings of new connections, and the files that they came from.
pub struct Tls {
    files: TlsConfig,
    current: RwLock<Loaded>,
}

/// The settings from the files.
struct Loaded {
    config: Arc<ServerConfig>,
    validity: Option<Validity>,
}

/// The validity period of a certificate (RFC 5280 section 4.1.2.5), both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub not_before: Timestamp,
    /// Its last second.
    pub not_after: Timestamp,
}

impl Tls {
    /// Reads the files of a listener.
    ///
    /// # Errors
    /// [`TlsError`] when a file cannot be read, or its content cannot be used.
    pub fn load(files: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Tls { current: RwLock::new(loaded(files)?), files: files.clone() })
    }

    /// The settings of a new connection.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.read().config.clone()
    }

    /// The TLS session of a connection; `None` before the end of the handshake.
    pub(crate) fn session(&self, connection: &ServerConnection) -> Option<TlsSession> {
        let check = match self.files.clients {
            ClientCertificates::Required(_) => ChainCheck::Authorities,
            ClientCertificates::Disabled | ClientCertificates::Requested => ChainCheck::KeyOnly,
        };
        session::session(connection, check)
    }

    /// Reads the files again. When one is invalid, the current certificate stays.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = loaded(&self.files)?;
        *self.current.write() = fresh;
        Ok(())
    }

    /// The validity period of the current certificate; `None` when it cannot be parsed as X.509.
    pub fn validity(&self) -> Option<Validity> {
        self.current.read().validity
    }

    /// The warning that the current certificate has expired or is not yet valid: it stays in use, and clients refuse
    /// it.
    pub fn date_warning(&self, now: Timestamp) -> Option<String> {
        let Validity { not_before, not_after } = self.validity()?;
        let file = self.files.cert_file.display();
        if now > not_after {
            return Some(format!("the certificate {file} expired at {}", not_after.rfc3339_seconds()));
        }
        (now < not_before)
            .then(|| format!("the certificate {file} is not valid before {}", not_before.rfc3339_seconds()))
    }

    /// Logs [`Tls::date_warning`], if there is one.
    pub fn warn_of_dates(&self, now: Timestamp) {
        if let Some(warning) = self.date_warning(now) {
            tracing::warn!("{warning}: clients will refuse it; replace it and send SIGHUP");
        }
    }
}

fn loaded(files: &TlsConfig) -> Result<Loaded, TlsError> {
    let chain = certificates(&files.cert_file)?;
    let validity = chain.first().and_then(validity_of);
    Ok(Loaded { config: server_config(files, chain)?, validity })
}

fn validity_of(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let validity = x509_cert::Certificate::from_der(certificate).ok()?.tbs_certificate.validity;
    let moment = |time: x509_cert::time::Time| Timestamp::EPOCH.after(time.to_unix_duration());
    Some(Validity { not_before: moment(validity.not_before), not_after: moment(validity.not_after) })
}

fn server_config(files: &TlsConfig, chain: Vec<CertificateDer<'static>>) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: Vec<&'static SupportedProtocolVersion> = [(files.tls13, &TLS13), (files.tls12, &TLS12)]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, version)| version)
        .collect();
    let key = PrivateKeyDer::from_pem_file(&files.key_file)
        .map_err(|e| fault(&files.key_file, format!("no private key: {e}")))?;
    let pair = |reason| TlsError::Pair { file: files.cert_file.display().to_string(), reason };
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions).map_err(pair)?;
    let builder = match &files.clients {
        ClientCertificates::Disabled => builder.with_no_client_auth(),
        ClientCertificates::Requested => builder.with_client_cert_verifier(AnyClient::new(provider)),
        ClientCertificates::Required(ca) => builder.with_client_cert_verifier(required(ca, &provider)?),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = session::ALPN.map(|protocol| protocol.as_bytes().to_vec()).into();
    match files.clients {
        // A resumed session is not verified again: its certificate may have expired, or its CA been removed.
        ClientCertificates::Required(_) => {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        ClientCertificates::Disabled | ClientCertificates::Requested => {
            config.ticketer = aws_lc_rs::Ticketer::new().map_err(pair)?;
        }
    }
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    match found {
        Ok(chain) if chain.is_empty() => Err(fault(file, "no certificate in it".into())),
        Ok(chain) => Ok(chain),
        Err(error) => Err(fault(file, error.to_string())),
    }
}

fn required(
    ca: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let fault = |reason: String| TlsError::Authorities { file: ca.display().to_string(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|e| fault(e.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| fault(e.to_string()))
}

fn fault(file: &Path, reason: String) -> TlsError {
    TlsError::File { file: file.display().to_string(), reason }
}
