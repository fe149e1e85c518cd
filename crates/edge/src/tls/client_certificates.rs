//! Client certificates that are requested and not required.
//!
//! The handshake proves that the client holds the key of its certificate. An auth method checks the certificate; the
//! connection itself gains no privilege. So only the key is read from it: some clients have certificates of version 1,
//! which the verifier of chains cannot read (hvac's tests use one).

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};

/// Accepts any certificate, or none.
#[derive(Debug)]
pub(super) struct AnyClient(Arc<CryptoProvider>);

impl AnyClient {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(AnyClient(provider))
    }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (algorithm, key) = parts(public_key(certificate)?).ok_or(CertificateError::BadEncoding)?;
        let schemes = self.0.signature_verification_algorithms.mapping;
        let offered = schemes.iter().filter(|(scheme, _)| *scheme == signature.scheme).flat_map(|(_, all)| *all);
        // A signature scheme of TLS 1.2 does not contain the curve, so each algorithm that fits the key is tried.
        let mut fitting = offered.filter(|candidate| candidate.public_key_alg_id().as_ref() == algorithm);
        match fitting.any(|candidate| candidate.verify_signature(key, message, signature.signature()).is_ok()) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(public_key(certificate)?);
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The `SubjectPublicKeyInfo` of a certificate of any version (RFC 5280 section 4.1).
fn public_key<'a>(certificate: &'a CertificateDer<'_>) -> Result<&'a [u8], Error> {
    let find = || {
        let whole = Element::first(certificate)?.of(SEQUENCE)?;
        let mut rest = Element::first(whole.content)?.of(SEQUENCE)?.content;
        let version = Element::first(rest)?;
        if version.tag == EXPLICIT_VERSION {
            rest = version.rest;
        }
        // serialNumber, signature, issuer, validity, subject
        for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
            rest = Element::first(rest)?.of(tag)?.rest;
        }
        Some(Element::first(rest)?.of(SEQUENCE)?.whole)
    };
    find().ok_or_else(|| CertificateError::BadEncoding.into())
}

/// The algorithm (without its outer tag) and the key of a `SubjectPublicKeyInfo`.
fn parts(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let algorithm = Element::first(Element::first(spki)?.content)?.of(SEQUENCE)?;
    let key = Element::first(algorithm.rest)?.of(BIT_STRING)?;
    // The first octet counts the unused bits, of which a key has none.
    let (0, key) = key.content.split_first().map(|(unused, key)| (*unused, key))? else { return None };
    Some((algorithm.content, key))
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const EXPLICIT_VERSION: u8 = 0xa0;

/// A DER element: its tag, its bytes with and without the head, and the bytes after it.
struct Element<'a> {
    tag: u8,
    whole: &'a [u8],
    content: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Element<'a> {
    fn first(input: &'a [u8]) -> Option<Self> {
        let (tag, short) = (*input.first()?, usize::from(*input.get(1)?));
        let (head, length) = match short {
            // DER has no indefinite form.
            0x80 => return None,
            0..=0x7f => (2, short),
            0x81..=0x83 => {
                let octets = input.get(2..2 + (short - 0x80))?;
                (2 + octets.len(), octets.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)))
            }
            _ => return None,
        };
        let content = input.get(head..head + length)?;
        let (whole, rest) = input.split_at(head + length);
        Some(Element { tag, whole, content, rest })
    }

    fn of(self, tag: u8) -> Option<Self> {
        (self.tag == tag).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData;

    use super::*;

    #[test]
    fn the_key_is_found_in_every_kind_of_certificate() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate = rcgen::CertificateParams::new(vec!["client".into()]).unwrap().self_signed(&key).unwrap();
            let spki = public_key(certificate.der()).unwrap();
            assert_eq!(spki, key.subject_public_key_info());
            assert!(parts(spki).is_some());
            for length in 0..certificate.der().len() {
                let cut = CertificateDer::from(certificate.der()[..length].to_vec());
                assert!(public_key(&cut).is_err());
            }
        }
    }
}
