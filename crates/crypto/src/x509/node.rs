//! Certificates of the nodes of a cluster (RFC 5280, RFC 8410): an authority that every node derives from the same seed,
//! and the certificates that it issues to nodes, which live in memory only.

use x509_cert::der::asn1::{BitString, Ia5String, OctetString};
use x509_cert::der::oid::db;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};
use x509_cert::{Certificate, TbsCertificate, Version};

use super::{X509Error, extension, serial_number, subject, time};
use crate::hash::sha256;
use crate::keys::ed25519::Ed25519Key;
use crate::locked::Key256;
use crate::secret::SecretBytes;

/// An authority whose key is a seed. The same seed gives the same certificate on every node.
pub struct NodeAuthority {
    key: Ed25519Key,
    name: Name,
    certificate: Vec<u8>,
}

/// A certificate of a node with its private key.
pub struct NodeCertificate {
    /// The certificate as DER.
    pub certificate: Vec<u8>,
    /// Its Ed25519 key as PKCS#8.
    pub key: SecretBytes,
}

impl NodeAuthority {
    /// Derives the authority of a seed.
    ///
    /// # Errors
    /// When the library fails.
    pub fn derive(seed: &Key256) -> Result<Self, X509Error> {
        let key = Ed25519Key::from_seed(seed.expose())?;
        let identifier = sha256(&key.spki());
        // Verifiers find an authority by its name, so each has its own.
        let name = subject(&format!("keepfast cluster {}", hex::encode(&identifier[..8])))?;
        // Nothing is random: 127 bits of the hash are the serial number, positive and without a leading zero byte.
        let mut number = [0; 16];
        number.copy_from_slice(&identifier[16..]);
        number[0] = number[0] & 0x7f | 0x40;
        let constraints = BasicConstraints { ca: true, path_len_constraint: Some(0) };
        let extensions = vec![
            extension(true, &constraints)?,
            extension(true, &KeyUsage(KeyUsages::KeyCertSign.into()))?,
            extension(false, &SubjectKeyIdentifier(OctetString::new(&identifier[..20])?))?,
        ];
        let mut authority = Self { key, name, certificate: Vec::new() };
        authority.certificate = authority.signed(TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&number)?,
            signature: ed25519(),
            issuer: authority.name.clone(),
            // RFC 5280, 4.1.2.5: no expiry. The authority ends with its term of the keyring.
            validity: Validity { not_before: time(0)?, not_after: Time::INFINITY },
            subject: authority.name.clone(),
            subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(&authority.key.spki())?,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        })?;
        Ok(authority)
    }

    /// The certificate as DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Issues a certificate to a node, with a new key, for both ends of a TLS connection. `uri` is its only name; the
    /// times are in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`X509Error::Malformed`] when `uri` is not ASCII; when the library fails.
    pub fn issue(&self, uri: &str, begins: u64, ends: u64) -> Result<NodeCertificate, X509Error> {
        let seed = Ed25519Key::generate();
        let spki = Ed25519Key::from_seed(seed.expose())?.spki();
        let certificate = self.signed(TbsCertificate {
            version: Version::V3,
            serial_number: serial_number()?,
            signature: ed25519(),
            issuer: self.name.clone(),
            validity: Validity { not_before: time(begins)?, not_after: time(ends)? },
            subject: subject("keepfast node")?,
            subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(&spki)?,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(self.extensions(uri, &spki)?),
        })?;
        Ok(NodeCertificate { certificate, key: Ed25519Key::pkcs8(seed.expose())? })
    }

    fn extensions(&self, uri: &str, spki: &[u8]) -> Result<Vec<Extension>, X509Error> {
        let names = SubjectAltName(vec![GeneralName::UniformResourceIdentifier(Ia5String::new(uri)?)]);
        let usages = ExtendedKeyUsage(vec![db::rfc5912::ID_KP_SERVER_AUTH, db::rfc5912::ID_KP_CLIENT_AUTH]);
        let of_authority = OctetString::new(&sha256(&self.key.spki())[..20])?;
        Ok(vec![
            extension(true, &KeyUsage(KeyUsages::DigitalSignature.into()))?,
            extension(false, &usages)?,
            extension(false, &names)?,
            extension(false, &SubjectKeyIdentifier(OctetString::new(&sha256(spki)[..20])?))?,
            extension(false, &AuthorityKeyIdentifier { key_identifier: Some(of_authority), ..Default::default() })?,
        ])
    }

    fn signed(&self, tbs_certificate: TbsCertificate) -> Result<Vec<u8>, X509Error> {
        let signature = BitString::from_bytes(&self.key.sign(&tbs_certificate.to_der()?)?)?;
        Ok(Certificate { tbs_certificate, signature_algorithm: ed25519(), signature }.to_der()?)
    }
}

/// The URI of a certificate whose only alternative name is one. The caller has verified the certificate.
#[must_use]
pub fn node_uri(certificate: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let (_, SubjectAltName(names)) = certificate.tbs_certificate.get::<SubjectAltName>().ok()??;
    match &names[..] {
        [GeneralName::UniformResourceIdentifier(uri)] => Some(uri.as_str().to_owned()),
        _ => None,
    }
}

fn ed25519() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: db::rfc8410::ID_ED_25519, parameters: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "keepfast:cluster:node%201:00112233445566778899aabbccddeeff";

    fn authority(byte: u8) -> NodeAuthority {
        NodeAuthority::derive(&Key256::new([byte; 32])).unwrap()
    }

    #[test]
    fn every_node_derives_the_same_authority_from_a_seed() {
        // Another value means that nodes of two versions refuse each other.
        let expected = "f38593946d06a85dac59e45eb07e66ede7732bf884aa6554c6e893ab3caf52f6";
        assert_eq!(hex::encode(sha256(authority(7).certificate())), expected);
        assert_ne!(authority(7).certificate(), authority(8).certificate());
    }

    #[test]
    fn openssl_accepts_the_certificate_of_a_node_for_both_ends() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let issued = authority(7).issue(URI, 1_700_000_000, 1_700_086_400).unwrap();
        for (name, der) in [("ca", authority(7).certificate()), ("other", authority(8).certificate())] {
            std::fs::write(at(name), crate::keys::pem::encode("CERTIFICATE", der)).unwrap();
        }
        std::fs::write(at("node"), crate::keys::pem::encode("CERTIFICATE", &issued.certificate)).unwrap();
        let verified = |authority: &str, purpose: &str, time: u64| {
            let mut command = std::process::Command::new("openssl");
            command.args(["verify", "-x509_strict", "-purpose", purpose, "-attime", &time.to_string(), "-CAfile"]);
            command.arg(at(authority)).arg(at("node")).output().unwrap().status.success()
        };
        for purpose in ["sslclient", "sslserver"] {
            assert!(verified("ca", purpose, 1_700_000_000));
            assert!(!verified("other", purpose, 1_700_000_000));
            assert!(!verified("ca", purpose, 1_700_086_401));
        }
    }

    #[test]
    fn a_certificate_has_its_uri_a_new_key_and_nothing_else_counts() {
        let (one, two) = (authority(7).issue(URI, 0, 9).unwrap(), authority(7).issue(URI, 0, 9).unwrap());
        assert_ne!(one.key.expose(), two.key.expose());
        assert_eq!(node_uri(&one.certificate).as_deref(), Some(URI));
        assert_eq!(node_uri(authority(7).certificate()), None);
        for length in 0..one.certificate.len() {
            assert_eq!(node_uri(&one.certificate[..length]), None);
        }
        assert!(authority(7).issue("keepfast:ä", 0, 9).is_err());
    }
}
