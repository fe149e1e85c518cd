//! TLS to the database: always verified, by the system's authorities or the one that is named.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Map, Value};

use super::super::connection::text;

/// Where systems keep the authorities they trust, in the order tried.
const SYSTEM_BUNDLES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The TLS side of a connection: `tls_ca`, `tls_certificate` and `private_key` are PEM.
///
/// # Errors
/// What of it cannot be used.
pub(super) fn client(details: &Map<String, Value>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match text(details, "tls_ca") {
        Some(pem) => {
            for certificate in certificates(&pem, "tls_ca")? {
                roots.add(certificate).map_err(|_| "tls_ca cannot be trusted".to_owned())?;
            }
        }
        None => drop(roots.add_parsable_certificates(system())),
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?
        .with_root_certificates(roots);
    match (text(details, "tls_certificate"), text(details, "private_key")) {
        (Some(certificate), Some(key)) => {
            let key =
                PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "private_key is not a PEM key".to_owned())?;
            let chain = certificates(&certificate, "tls_certificate")?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|_| "tls_certificate and private_key do not fit".to_owned())
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err("tls_certificate and private_key must be given together".to_owned()),
    }
}

fn certificates(pem: &str, name: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    read.ok().filter(|c| !c.is_empty()).ok_or_else(|| format!("{name} is not a PEM certificate"))
}

fn system() -> Vec<CertificateDer<'static>> {
    let bundle = SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
    // What cannot be read is not trusted; the handshake then says so.
    let read = bundle.and_then(|path| CertificateDer::pem_file_iter(path).ok());
    read.map(|certificates| certificates.filter_map(Result::ok).collect()).unwrap_or_default()
}
