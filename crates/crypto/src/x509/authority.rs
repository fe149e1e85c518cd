//! A certificate authority: its certificate and its private key, read from PEM.

use x509_cert::der::oid::{ObjectIdentifier, db};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, SubjectKeyIdentifier};
use x509_cert::{Certificate, TbsCertificate};

use super::X509Error;
use crate::keys::ecdsa::{Curve, EcKey};
use crate::keys::ed25519::Ed25519Key;
use crate::keys::rsa::RsaKey;
use crate::keys::{Key, KeyError, pem};
use crate::secret::SecretBytes;

/// A certificate authority that issues certificates.
pub struct Authority {
    certificate: TbsCertificate,
    key: Key,
}

impl Authority {
    /// Reads a CA from PEM: its certificate, optionally followed by the chain up to its root, and its private
    /// key in PKCS#8, PKCS#1 or RFC 5915.
    ///
    /// # Errors
    /// When certificate, chain or key are malformed, unsupported or do not belong together.
    pub fn read(certificates: &str, private_key: &str) -> Result<Self, X509Error> {
        check_text(private_key)?;
        let mut chain = Vec::new();
        let mut keys = Vec::new();
        for (label, der) in pem::decode_all(certificates).chain(pem::decode_all(private_key)) {
            if label.ends_with("PRIVATE KEY") {
                keys.push((label, SecretBytes::new(der)));
            } else if let Ok(certificate) = Certificate::from_der(&der) {
                chain.push(certificate.tbs_certificate);
            }
        }
        let key = match &keys[..] {
            [] => return Err(X509Error::NoPrivateKey),
            [(label, der)] => read_key(label, der.expose())?,
            _ => return Err(X509Error::SeveralPrivateKeys),
        };
        let certificate = chain.first().ok_or(X509Error::NoCertificate)?.clone();
        check_key(&certificate, &key)?;
        check_chain(&chain)?;
        if !certificate.get::<BasicConstraints>()?.is_some_and(|(_, constraints)| constraints.ca) {
            return Err(X509Error::NotAuthority);
        }
        Ok(Self { certificate, key })
    }

    pub(super) fn certificate(&self) -> &TbsCertificate {
        &self.certificate
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

/// Checks that the text is PEM with nothing behind it.
fn check_text(private_key: &str) -> Result<(), X509Error> {
    if private_key.contains("ENCRYPTED") {
        return Err(X509Error::Encrypted);
    }
    let ends_well = private_key.trim_end().ends_with("-----");
    if ends_well && private_key.contains("-----BEGIN ") { Ok(()) } else { Err(X509Error::NotPem) }
}

fn read_key(label: &str, der: &[u8]) -> Result<Key, X509Error> {
    let key_error = |why: KeyError| match why {
        KeyError::WrongKind => X509Error::UnsupportedKey,
        _ => X509Error::NoPrivateKey,
    };
    match label {
        "RSA PRIVATE KEY" => RsaKey::from_pkcs1(der).map(Key::Rsa).map_err(key_error),
        "EC PRIVATE KEY" => EcKey::from_sec1(der).map(Key::Ecdsa).map_err(key_error),
        "PRIVATE KEY" => {
            let why = match RsaKey::from_pkcs8(der) {
                Ok(key) => return Ok(Key::Rsa(key)),
                Err(why) => why,
            };
            if let Some(key) = Curve::ALL.into_iter().find_map(|curve| EcKey::from_pkcs8(curve, der).ok()) {
                return Ok(Key::Ecdsa(key));
            }
            let seed = Ed25519Key::seed_from_pkcs8(der).map_err(|_| key_error(why))?;
            Ok(Key::Ed25519(Ed25519Key::from_seed(seed.expose())?))
        }
        _ => Err(X509Error::NoPrivateKey),
    }
}

/// Checks that the certificate has this key.
fn check_key(certificate: &TbsCertificate, key: &Key) -> Result<(), X509Error> {
    let theirs = &certificate.subject_public_key_info;
    let mine = match key {
        Key::Rsa(_) => db::rfc5912::RSA_ENCRYPTION,
        Key::Ecdsa(_) => db::rfc5912::ID_EC_PUBLIC_KEY,
        _ => db::rfc8410::ID_ED_25519,
    };
    if theirs.algorithm.oid != mine {
        return Err(X509Error::KeyTypes(go_name(theirs.algorithm.oid), go_name(mine)));
    }
    if theirs.to_der()? == key.spki()? { Ok(()) } else { Err(X509Error::OtherKey) }
}

/// The type of a public key as Go prints it.
fn go_name(algorithm: ObjectIdentifier) -> &'static str {
    match algorithm {
        db::rfc5912::RSA_ENCRYPTION => "*rsa.PublicKey",
        db::rfc5912::ID_EC_PUBLIC_KEY => "*ecdsa.PublicKey",
        db::rfc8410::ID_ED_25519 => "ed25519.PublicKey",
        _ => "another",
    }
}

/// Checks that every certificate names the next one as its issuer.
fn check_chain(chain: &[TbsCertificate]) -> Result<(), X509Error> {
    for (at, pair) in chain.windows(2).enumerate() {
        let [issued, issuer] = pair else { continue };
        let wanted_id = issued.get::<AuthorityKeyIdentifier>()?.and_then(|(_, id)| id.key_identifier);
        let has = issuer.get::<SubjectKeyIdentifier>()?.map(|(_, SubjectKeyIdentifier(id))| id);
        let is_same_key = wanted_id.is_none() || has.is_none() || wanted_id == has;
        if issued.issuer != issuer.subject || !is_same_key {
            return Err(X509Error::Chain(at + 1));
        }
    }
    Ok(())
}
