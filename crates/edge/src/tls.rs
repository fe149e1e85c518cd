//! TLS by rustls: 1.3 and 1.2, hybrid post-quantum key exchange first, certificates that can be replaced while serving.

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

/// Why a listener's TLS cannot be set up. Names files, never their content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file that cannot be read or holds nothing of what it should.
    #[error("{file}: {reason}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not go together, or are of an unknown kind.
    #[error("certificate {file}: {reason}")]
    Pair {
        /// The certificate's path.
        file: String,
        /// What rustls says.
        reason: rustls::Error,
    },
    /// The client authorities cannot be used.
    #[error("tls_client_ca_file {file}: {reason}")]
    Authorities {
        /// The path.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// A listener's TLS: what new connections use, and the files that it came from.
pub struct Tls {
    files: TlsConfig,
    current: RwLock<Loaded>,
}

/// What the files hold.
struct Loaded {
    config: Arc<ServerConfig>,
    validity: Option<Validity>,
}

/// The time in which a certificate is valid (RFC 5280 section 4.1.2.5), both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second of it.
    pub not_before: Timestamp,
    /// The last second of it.
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

    /// What a new connection uses.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.read().config.clone()
    }

    /// The session of a connection whose handshake is complete; `None` before.
    pub(crate) fn session(&self, connection: &ServerConnection) -> Option<TlsSession> {
        let check = match self.files.clients {
            ClientCertificates::Required(_) => ChainCheck::Authorities,
            ClientCertificates::Disabled | ClientCertificates::Requested => ChainCheck::KeyOnly,
        };
        session::session(connection, check)
    }

    /// Reads the files again. When they are faulty, the certificate in use stays.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = loaded(&self.files)?;
        *self.current.write() = fresh;
        Ok(())
    }

    /// When the certificate in use is valid; `None` where it cannot be read as X.509.
    pub fn validity(&self) -> Option<Validity> {
        self.current.read().validity
    }

    /// That the certificate in use has expired or is not valid yet: it is served nevertheless, and clients refuse it.
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
        // A resumed session is not verified again: its certificate may have expired, or its authority been removed.
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
