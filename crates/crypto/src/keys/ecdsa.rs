//! ECDSA and ECDH on the NIST curves (FIPS 186-5, SP 800-56A).

use super::evp::{self, Kind, Pkey, Scheme};
use super::pair::{AsymmetricKey, Parameters};
use super::{KeyError, der};
use crate::secret::SecretBytes;

/// DER of the object identifier id-ecPublicKey.
const EC_PUBLIC_KEY: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];

/// A NIST curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// P-224, also secp224r1; for certificates only.
    P224,
    /// P-256, also secp256r1 and prime256v1.
    P256,
    /// P-384, also secp384r1.
    P384,
    /// P-521, also secp521r1.
    P521,
}

impl Curve {
    /// All curves.
    pub const ALL: [Self; 4] = [Self::P224, Self::P256, Self::P384, Self::P521];

    /// Its NIST name, which the API uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P224 => "P-224",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate and of each half of a signature.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::P224 => 28,
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// DER of its object identifier (RFC 5480).
    fn oid(self) -> &'static [u8] {
        match self {
            Self::P224 => &[6, 5, 0x2b, 0x81, 4, 0, 0x21],
            Self::P256 => &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
            Self::P384 => &[6, 5, 0x2b, 0x81, 4, 0, 0x22],
            Self::P521 => &[6, 5, 0x2b, 0x81, 4, 0, 0x23],
        }
    }

    /// The curve of an OBJECT IDENTIFIER in DER.
    #[must_use]
    pub fn from_oid(der: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|curve| curve.oid() == der)
    }

    /// The SubjectPublicKeyInfo of an uncompressed point (SEC 1, 2.3.3).
    #[must_use]
    pub fn spki_of_point(self, point: &[u8]) -> Vec<u8> {
        let algorithm = der::write(der::SEQUENCE, &[EC_PUBLIC_KEY, self.oid()].concat());
        let key = der::write(0x03, &[&[0], point].concat());
        der::write(der::SEQUENCE, &[algorithm, key].concat())
    }

    /// A signature on this curve in another encoding; `None` when it does not have the first one.
    #[must_use]
    pub fn remarshal(self, signature: &[u8], from: Marshaling, to: Marshaling) -> Option<Vec<u8>> {
        match (from, to) {
            (Marshaling::Asn1, Marshaling::Jws) => fixed_from_der(signature, self.size()),
            (Marshaling::Jws, _) if signature.len() != 2 * self.size() => None,
            (Marshaling::Jws, Marshaling::Asn1) => Some(der_from_fixed(signature)),
            (Marshaling::Asn1, Marshaling::Asn1) => numbers(signature).map(|_| signature.to_vec()),
            (Marshaling::Jws, Marshaling::Jws) => Some(signature.to_vec()),
        }
    }

    fn nid(self) -> std::ffi::c_int {
        match self {
            Self::P224 => evp::P224,
            Self::P256 => evp::P256,
            Self::P384 => evp::P384,
            Self::P521 => evp::P521,
        }
    }
}

/// The encoding of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Marshaling {
    /// DER of both numbers (RFC 3279).
    #[default]
    Asn1,
    /// Both numbers at full width, concatenated (RFC 7518).
    Jws,
}

/// A key pair on a curve, or only a public key. The library wipes it when it is dropped.
pub type EcKey = AsymmetricKey<Curve>;

impl Parameters for Curve {
    /// An ECPrivateKey (RFC 5915).
    const PEM_LABEL: &'static str = "EC PRIVATE KEY";
}

impl EcKey {
    /// Generates a private key, returned as PKCS#8.
    ///
    /// # Errors
    /// When the library fails.
    pub fn generate(curve: Curve) -> Result<SecretBytes, KeyError> {
        Pkey::generate_on(curve.nid())?.to_pkcs8()
    }

    /// Reads a private key from PKCS#8.
    ///
    /// # Errors
    /// When it is malformed or on another curve.
    pub fn from_pkcs8(curve: Curve, der: &[u8]) -> Result<Self, KeyError> {
        Self::checked(Pkey::from_pkcs8(der)?, curve, true)
    }

    /// Encodes a bare private number, big-endian, as PKCS#8.
    ///
    /// # Errors
    /// When it is not a private key on this curve.
    pub fn pkcs8_from_number(curve: Curve, number: &[u8]) -> Result<SecretBytes, KeyError> {
        let digits = &number[number.iter().take_while(|byte| **byte == 0).count()..];
        let missing = curve.size().checked_sub(digits.len()).ok_or(KeyError::Malformed)?;
        let padded = SecretBytes::new([vec![0; missing].as_slice(), digits].concat());
        // ECPrivateKey (RFC 5915) without the public key, which the library computes.
        let sec1 = [der::write_number(&[1]).as_slice(), &der::write(0x04, padded.expose())].concat();
        let sec1 = SecretBytes::new(der::write(der::SEQUENCE, &sec1));
        Self::wrapping(curve, sec1.expose())?.pkcs8()
    }

    /// Reads a private key from an ECPrivateKey (RFC 5915) that names its curve.
    ///
    /// # Errors
    /// When it is malformed, or not on a NIST curve.
    pub fn from_sec1(der: &[u8]) -> Result<Self, KeyError> {
        let whole = der::whole(der, der::SEQUENCE).ok_or(KeyError::Malformed)?;
        let parts = der::children(whole.content).ok_or(KeyError::Malformed)?;
        let named = parts.iter().find(|part| part.tag == 0xa0).ok_or(KeyError::Malformed)?;
        let curve = Curve::ALL.into_iter().find(|curve| curve.oid() == named.content).ok_or(KeyError::WrongKind)?;
        Self::wrapping(curve, der)
    }

    /// Reads an ECPrivateKey by wrapping it in PKCS#8.
    fn wrapping(curve: Curve, sec1: &[u8]) -> Result<Self, KeyError> {
        let algorithm = der::write(der::SEQUENCE, &[EC_PUBLIC_KEY, curve.oid()].concat());
        Self::from_pkcs8(curve, der::write_pkcs8(&algorithm, sec1).expose())
    }

    /// Reads a public key from a SubjectPublicKeyInfo with a named curve and an uncompressed point: explicit
    /// curve parameters allow forged curves (CVE-2020-0601).
    ///
    /// # Errors
    /// When it is malformed, on another curve or encoded in another way.
    pub fn from_spki(curve: Curve, der: &[u8]) -> Result<Self, KeyError> {
        let key = Self::checked(Pkey::from_spki(der)?, curve, false)?;
        if key.spki()? == der { Ok(key) } else { Err(KeyError::Malformed) }
    }

    fn checked(key: Pkey, curve: Curve, private: bool) -> Result<Self, KeyError> {
        let fits = key.kind() == Some(Kind::Curve(curve.nid()));
        if fits { Ok(Self::new(key, curve, private)) } else { Err(KeyError::WrongKind) }
    }

    /// The curve.
    #[must_use]
    pub fn curve(&self) -> Curve {
        self.parameters
    }

    /// Signs a digest. A digest longer than the curve's order is truncated (FIPS 186-5).
    ///
    /// # Errors
    /// When there is only a public key.
    pub fn sign(&self, digest: &[u8], marshaling: Marshaling) -> Result<Vec<u8>, KeyError> {
        let signature = self.private_key()?.sign(Scheme::Ecdsa, digest)?;
        match marshaling {
            Marshaling::Asn1 => Ok(signature),
            Marshaling::Jws => fixed_from_der(&signature, self.parameters.size()).ok_or(KeyError::Failed),
        }
    }

    /// Whether `signature` is a signature of `digest` by this key.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] when an ASN.1 signature is not DER of two numbers.
    pub fn verify(&self, digest: &[u8], signature: &[u8], marshaling: Marshaling) -> Result<bool, KeyError> {
        let der = match marshaling {
            Marshaling::Asn1 if numbers(signature).is_none() => return Err(KeyError::Malformed),
            Marshaling::Asn1 => signature.to_vec(),
            Marshaling::Jws if signature.len() == 2 * self.parameters.size() => der_from_fixed(signature),
            Marshaling::Jws => return Ok(false),
        };
        self.key.verify(Scheme::Ecdsa, digest, &der)
    }

    /// The shared secret with another public key: the x coordinate. Derive keys from it, never use it
    /// as a key.
    ///
    /// # Errors
    /// When this is only a public key, or the other key is on another curve.
    pub fn agree(&self, peer: &Self) -> Result<SecretBytes, KeyError> {
        let key = self.private_key()?;
        if self.parameters == peer.parameters { key.agree(&peer.key) } else { Err(KeyError::WrongKind) }
    }
}

/// The contents of both numbers in DER of `SEQUENCE { INTEGER, INTEGER }`.
fn numbers(signature: &[u8]) -> Option<[&[u8]; 2]> {
    match der::children(der::whole(signature, der::SEQUENCE)?.content)?[..] {
        [r, s] if r.tag == 0x02 && s.tag == 0x02 => Some([r.content, s.content]),
        _ => None,
    }
}

/// Two numbers of `size` bytes from DER of `SEQUENCE { INTEGER, INTEGER }`.
fn fixed_from_der(der: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(2 * size);
    for number in numbers(der)? {
        let digits = number.strip_prefix(&[0]).unwrap_or(number);
        out.resize(out.len() + size.checked_sub(digits.len())?, 0);
        out.extend_from_slice(digits);
    }
    Some(out)
}

/// DER of `SEQUENCE { INTEGER, INTEGER }` from two numbers of equal width.
fn der_from_fixed(fixed: &[u8]) -> Vec<u8> {
    let (r, s) = fixed.split_at(fixed.len() / 2);
    der::write(der::SEQUENCE, &[der::write_number(r), der::write_number(s)].concat())
}
