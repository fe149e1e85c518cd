//! X.509 (RFC 5280): client certificates, issued by a CA whose private key the server holds, and certificates of the
//! nodes of a cluster.
//!
//! A library encodes the structures; aws-lc does every operation with a key or a signature.

mod authority;
mod node;
#[cfg(test)]
mod tests;

use std::time::Duration;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Any, BitString, GeneralizedTime, OctetString, SetOfVec, UtcTime};
use x509_cert::der::oid::{AssociatedOid, db};
use x509_cert::der::{self, Decode, Encode, Tag};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectKeyIdentifier};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};
use x509_cert::{Certificate, TbsCertificate, Version};

pub use self::authority::Authority;
pub use self::node::{NodeAuthority, NodeCertificate, node_uri};
use crate::keys::digest::Hash;
use crate::keys::ecdsa::Marshaling;
use crate::keys::ed25519::Ed25519Key;
use crate::keys::rsa::RsaScheme;
use crate::keys::{Key, KeyError, KeyKind, pem};
use crate::random;
use crate::secret::{SecretBytes, SecretString};

/// The longest common name, in characters (RFC 5280, ub-common-name).
pub const LONGEST_COMMON_NAME: usize = 64;

/// Seconds by which a certificate is valid before its creation: clocks differ.
const BACKDATED: u64 = 30;

/// What is wrong with a CA or a requested certificate. The texts are those of Vault's certutil.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    /// The text has no PEM, or more text behind it.
    #[error("no data found in PEM block")]
    NotPem,
    /// There is no readable certificate.
    #[error("certificate not found in the PEM bundle")]
    NoCertificate,
    /// There is no readable private key.
    #[error("private key not found in the PEM bundle")]
    NoPrivateKey,
    /// There are several private keys.
    #[error("more than one private key given; provide only one private key in the bundle")]
    SeveralPrivateKeys,
    /// The private key is encrypted.
    #[error("Encrypted private key given; provide only decrypted private key in the bundle")]
    Encrypted,
    /// The private key is of a kind that cannot sign certificates here.
    #[error("the private key is none of RSA with 2048 to 8192 bits, a NIST curve, and Ed25519")]
    UnsupportedKey,
    /// Certificate and private key have different key types, named as in Go.
    #[error(
        "verification of parsed bundle failed: could not compare public and private keys: key types do not match: {0} and {1}"
    )]
    KeyTypes(&'static str, &'static str),
    /// The certificate belongs to another key.
    #[error("verification of parsed bundle failed: public key of certificate does not match private key")]
    OtherKey,
    /// The certificate of this index is not issued by the next one.
    #[error("verification of parsed bundle failed: certificate {0} of certificate chain ca trust path is incorrect")]
    Chain(usize),
    /// The certificate is not marked as a CA.
    #[error("the given certificate is not marked for CA use")]
    NotAuthority,
    /// The common name is empty or too long.
    #[error("the common name must have 1 to 64 characters")]
    CommonName,
    /// The certificate would expire after its CA.
    #[error("the certificate would expire after the certificate of its CA")]
    Outlives,
    /// The library refused.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// A structure could not be written.
    #[error("malformed certificate")]
    Malformed,
}

impl From<der::Error> for X509Error {
    fn from(_: der::Error) -> Self {
        Self::Malformed
    }
}

/// The private key of a new client certificate.
pub struct ClientKey {
    kind: KeyKind,
    material: SecretBytes,
    key: Key,
}

impl ClientKey {
    /// Generates a key. A [slow kind](KeyKind::is_slow_to_generate) needs a thread that serves no requests.
    ///
    /// # Errors
    /// When the library fails, or the kind supports no certificates.
    pub fn generate(kind: KeyKind) -> Result<Self, X509Error> {
        let material = Key::generate(kind, 0)?;
        let key = Key::load(kind, material.expose())?;
        key.spki()?;
        Ok(Self { kind, material, key })
    }

    /// The name of its type in the API: `rsa`, `ec` or `ed25519`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            KeyKind::Rsa(_) => "rsa",
            KeyKind::Ecdsa(_) => "ec",
            _ => "ed25519",
        }
    }

    /// The key as PEM in the format of its family: PKCS#1, RFC 5915, or PKCS#8 for Ed25519.
    ///
    /// # Errors
    /// When the library fails.
    pub fn pem(&self) -> Result<SecretString, X509Error> {
        Ok(match &self.key {
            Key::Rsa(key) => key.private_pem()?,
            Key::Ecdsa(key) => key.private_pem()?,
            _ => pem::encode_secret("PRIVATE KEY", Ed25519Key::pkcs8(self.material.expose())?.expose()),
        })
    }
}

/// The contents of a client certificate. Times are in seconds since the Unix epoch.
pub struct ClientCertificate<'a> {
    /// The common name, the only attribute of the subject.
    pub common_name: &'a str,
    /// The key of the client.
    pub key: &'a ClientKey,
    /// The time of creation; the certificate is valid from 30 seconds earlier.
    pub made: u64,
    /// The time of expiry.
    pub ends: u64,
    /// The hash of the signature; Ed25519 ignores it.
    pub hash: Hash,
}

impl Authority {
    /// Issues a certificate for a TLS client, as PEM.
    ///
    /// # Errors
    /// [`X509Error::CommonName`], [`X509Error::Outlives`]; when the library fails.
    pub fn issue(&self, wanted: &ClientCertificate<'_>) -> Result<String, X509Error> {
        let name = wanted.common_name;
        if name.is_empty() || name.chars().count() > LONGEST_COMMON_NAME {
            return Err(X509Error::CommonName);
        }
        let validity = &self.certificate().validity;
        if wanted.ends > validity.not_after.to_unix_duration().as_secs() {
            return Err(X509Error::Outlives);
        }
        let begins = wanted.made.saturating_sub(BACKDATED).max(validity.not_before.to_unix_duration().as_secs());
        let signature = algorithm(self.key(), wanted.hash)?;
        let tbs = TbsCertificate {
            version: Version::V3,
            serial_number: serial_number()?,
            signature: signature.clone(),
            issuer: self.certificate().subject.clone(),
            validity: Validity { not_before: time(begins)?, not_after: time(wanted.ends)? },
            subject: subject(name)?,
            subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(&wanted.key.key.spki()?)?,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(self.extensions(wanted.key)?),
        };
        let signed = sign(self.key(), wanted.hash, &tbs.to_der()?)?;
        let signature_bits = BitString::from_bytes(&signed)?;
        let certificate =
            Certificate { tbs_certificate: tbs, signature_algorithm: signature, signature: signature_bits };
        Ok(pem::encode("CERTIFICATE", &certificate.to_der()?))
    }

    fn extensions(&self, key: &ClientKey) -> Result<Vec<Extension>, X509Error> {
        // RFC 7093, method 1: verifiers compare identifiers and do not compute them.
        let identifier = Hash::Sha256.digest(&key.key.spki()?);
        let mut all = vec![
            extension(true, &KeyUsage(KeyUsages::DigitalSignature.into()))?,
            extension(false, &ExtendedKeyUsage(vec![db::rfc5912::ID_KP_CLIENT_AUTH]))?,
            extension(false, &SubjectKeyIdentifier(OctetString::new(&identifier[..20])?))?,
        ];
        if let Some((_, SubjectKeyIdentifier(of_authority))) = self.certificate().get::<SubjectKeyIdentifier>()? {
            let key_identifier = Some(of_authority);
            all.push(extension(false, &AuthorityKeyIdentifier { key_identifier, ..Default::default() })?);
        }
        Ok(all)
    }
}

fn extension<T: Encode + AssociatedOid>(critical: bool, value: &T) -> Result<Extension, X509Error> {
    Ok(Extension { extn_id: T::OID, critical, extn_value: OctetString::new(value.to_der()?)? })
}

/// 159 random bits: positive, and within the 20 bytes of RFC 5280.
fn serial_number() -> Result<SerialNumber, X509Error> {
    let mut number: [u8; 20] = random::bytes();
    number[0] = number[0] & 0x7f | 0x40;
    Ok(SerialNumber::new(&number)?)
}

/// A subject with one attribute, the common name.
fn subject(common_name: &str) -> Result<Name, X509Error> {
    let value = Any::new(Tag::Utf8String, common_name.as_bytes())?;
    let names = SetOfVec::try_from(vec![AttributeTypeAndValue { oid: db::rfc4519::COMMON_NAME, value }])?;
    Ok(RdnSequence(vec![RelativeDistinguishedName(names)]))
}

/// UTCTime up to 2049 and GeneralizedTime later, as RFC 5280 demands.
fn time(seconds: u64) -> Result<Time, X509Error> {
    let since = Duration::from_secs(seconds);
    match UtcTime::from_unix_duration(since) {
        Ok(short) => Ok(Time::UtcTime(short)),
        Err(_) => Ok(Time::GeneralTime(GeneralizedTime::from_unix_duration(since)?)),
    }
}

/// The signature algorithm of a key with a hash (RFC 4055, RFC 5758, RFC 8410).
fn algorithm(key: &Key, hash: Hash) -> Result<AlgorithmIdentifierOwned, X509Error> {
    use db::rfc5912::{ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512};
    use db::rfc5912::{SHA_256_WITH_RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION};
    let (oid, parameters) = match (key, hash) {
        (Key::Rsa(_), Hash::Sha256) => (SHA_256_WITH_RSA_ENCRYPTION, Some(Any::null())),
        (Key::Rsa(_), Hash::Sha384) => (SHA_384_WITH_RSA_ENCRYPTION, Some(Any::null())),
        (Key::Rsa(_), Hash::Sha512) => (SHA_512_WITH_RSA_ENCRYPTION, Some(Any::null())),
        (Key::Ecdsa(_), Hash::Sha256) => (ECDSA_WITH_SHA_256, None),
        (Key::Ecdsa(_), Hash::Sha384) => (ECDSA_WITH_SHA_384, None),
        (Key::Ecdsa(_), Hash::Sha512) => (ECDSA_WITH_SHA_512, None),
        (Key::Ed25519(_), _) => (db::rfc8410::ID_ED_25519, None),
        _ => return Err(KeyError::Unsupported.into()),
    };
    Ok(AlgorithmIdentifierOwned { oid, parameters })
}

fn sign(key: &Key, hash: Hash, message: &[u8]) -> Result<Vec<u8>, KeyError> {
    match key {
        Key::Rsa(key) => key.sign(RsaScheme::Pkcs1(Some(hash)), &hash.digest(message)),
        Key::Ecdsa(key) => key.sign(&hash.digest(message), Marshaling::Asn1),
        Key::Ed25519(key) => key.sign(message),
        _ => Err(KeyError::Unsupported),
    }
}
