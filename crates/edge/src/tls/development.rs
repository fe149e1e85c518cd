//! `-dev-tls`: a CA and a certificate for this machine.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// The files of a development certificate.
pub struct Files {
    /// The CA, for clients to trust.
    pub ca: PathBuf,
    /// The server's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Creates a CA and a certificate and writes them to `dir`; only the owner can read the key.
///
/// # Errors
/// When writing fails.
pub fn write(dir: &Path, names: Vec<String>) -> io::Result<Files> {
    let (ca, cert, key) = make(names).map_err(io::Error::other)?;
    let files =
        Files { ca: dir.join("vault-ca.pem"), cert: dir.join("vault-cert.pem"), key: dir.join("vault-key.pem") };
    for (file, text, mode) in [(&files.ca, ca, 0o644), (&files.cert, cert, 0o644), (&files.key, key, 0o600)] {
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(file)?.write_all(text.as_bytes())?;
    }
    Ok(files)
}

/// The CA, the certificate and the key as PEM.
fn make(names: Vec<String>) -> Result<(String, String, String), rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "Keepfast development authority");
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate()?;
    let authority_cert = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);
    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "localhost");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let server_key = KeyPair::generate()?;
    let server_cert = server.signed_by(&server_key, &issuer)?;
    Ok((authority_cert.pem(), server_cert.pem(), server_key.serialize_pem()))
}
