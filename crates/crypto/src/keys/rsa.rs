//! RSA (RFC 8017): PSS and PKCS#1 v1.5 signatures, OAEP encryption.

use super::digest::Hash;
use super::evp::{Kind, Pkey, Scheme};
use super::pair::{AsymmetricKey, Parameters};
use super::{KeyError, SaltLength, der};
use crate::secret::SecretBytes;

/// The largest accepted modulus in bits: an operation with a larger one would occupy a core for seconds.
pub const MAX_BITS: u32 = 8192;

/// DER of the AlgorithmIdentifier rsaEncryption.
const RSA_ENCRYPTION: &[u8] = &[0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];

/// The signature scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsaScheme {
    /// RSASSA-PSS.
    Pss(Hash, SaltLength),
    /// RSASSA-PKCS1-v1_5; without a hash the input is signed unchanged, with no identifier of its hash.
    Pkcs1(Option<Hash>),
}

/// An RSA key pair, or only a public key. The library wipes it when it is dropped.
pub type RsaKey = AsymmetricKey<Modulus>;

/// The size of a modulus in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modulus(u32);

impl Parameters for Modulus {
    /// An RSAPrivateKey (PKCS#1).
    const PEM_LABEL: &'static str = "RSA PRIVATE KEY";
}

impl RsaKey {
    /// Generates a private key, returned as PKCS#8. Takes up to seconds: not on a thread that serves requests.
    ///
    /// # Errors
    /// When the library fails.
    pub fn generate(bits: u32) -> Result<SecretBytes, KeyError> {
        Pkey::generate_rsa(bits)?.to_pkcs8()
    }

    /// Reads a private key from PKCS#8.
    ///
    /// # Errors
    /// When it is malformed, not an RSA key, or not of 2048 to [`MAX_BITS`] bits.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Self::checked(Pkey::from_pkcs8(der)?, true)
    }

    /// Encodes the numbers of an RSAPrivateKey (RFC 8017, A.1.2) as PKCS#8. They are big-endian and in the order of the
    /// RFC: n, e, d, p, q, d mod (p-1), d mod (q-1), 1/q mod p.
    ///
    /// # Errors
    /// When they do not belong together.
    pub fn pkcs8_from_numbers(numbers: [&[u8]; 8]) -> Result<SecretBytes, KeyError> {
        let mut pkcs1 = SecretBytes::new(der::write_number(&[0]));
        for number in numbers {
            pkcs1.expose_mut().extend(der::write_number(number));
        }
        let pkcs1 = SecretBytes::new(der::write(der::SEQUENCE, pkcs1.expose()));
        Self::from_pkcs1(pkcs1.expose())?.pkcs8()
    }

    /// Reads a private key from an RSAPrivateKey (RFC 8017, A.1.2).
    ///
    /// # Errors
    /// As for [`from_pkcs8`](Self::from_pkcs8).
    pub fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        Self::from_pkcs8(der::write_pkcs8(RSA_ENCRYPTION, der).expose())
    }

    /// Reads a public key from a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// As for [`from_pkcs8`](Self::from_pkcs8).
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        Self::checked(Pkey::from_spki(der)?, false)
    }

    /// The SubjectPublicKeyInfo of a modulus and a public exponent, big-endian.
    #[must_use]
    pub fn spki_from_numbers(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
        let numbers = der::write(der::SEQUENCE, &[der::write_number(modulus), der::write_number(exponent)].concat());
        let key = der::write(0x03, &[&[0], numbers.as_slice()].concat());
        der::write(der::SEQUENCE, &[RSA_ENCRYPTION, &key].concat())
    }

    fn checked(key: Pkey, private: bool) -> Result<Self, KeyError> {
        match key.kind() {
            Some(Kind::Rsa(bits)) if (2048..=MAX_BITS).contains(&bits) => Ok(Self::new(key, Modulus(bits), private)),
            _ => Err(KeyError::WrongKind),
        }
    }

    /// Bits of the modulus.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.parameters.0
    }

    /// Signs a digest.
    ///
    /// # Errors
    /// [`KeyError::WrongDigestSize`] or [`KeyError::WrongSaltLength`] when digest or salt do not fit;
    /// [`KeyError::PublicOnly`] when there is only a public key.
    pub fn sign(&self, scheme: RsaScheme, digest: &[u8]) -> Result<Vec<u8>, KeyError> {
        let key = self.private_key()?;
        self.check(scheme, digest)?;
        key.sign(scheme.into(), digest)
    }

    /// Whether `signature` is a signature of `digest` by this key.
    ///
    /// # Errors
    /// When the digest does not have the size of its hash.
    pub fn verify(&self, scheme: RsaScheme, digest: &[u8], signature: &[u8]) -> Result<bool, KeyError> {
        self.check(scheme, digest)?;
        self.key.verify(scheme.into(), digest, signature)
    }

    /// Encrypts with OAEP and SHA-256.
    ///
    /// # Errors
    /// When the plaintext is too long for the modulus.
    pub fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.key.encrypt_oaep(Hash::Sha256, plaintext)
    }

    /// Decrypts OAEP with SHA-256.
    ///
    /// # Errors
    /// [`KeyError::Unauthentic`] for every invalid ciphertext, without the reason.
    pub fn decrypt(&self, ciphertext: &[u8]) -> Result<SecretBytes, KeyError> {
        self.decrypt_with(Hash::Sha256, ciphertext)
    }

    /// Decrypts OAEP with `hash`.
    ///
    /// # Errors
    /// As for [`decrypt`](Self::decrypt).
    pub fn decrypt_with(&self, hash: Hash, ciphertext: &[u8]) -> Result<SecretBytes, KeyError> {
        self.private_key()?.decrypt_oaep(hash, ciphertext).map_err(|_| KeyError::Unauthentic)
    }

    /// Encrypts with OAEP and `hash`.
    ///
    /// # Errors
    /// As for [`encrypt`](Self::encrypt).
    pub fn encrypt_with(&self, hash: Hash, plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.key.encrypt_oaep(hash, plaintext)
    }

    fn check(&self, scheme: RsaScheme, digest: &[u8]) -> Result<(), KeyError> {
        let (RsaScheme::Pss(hash, _) | RsaScheme::Pkcs1(Some(hash))) = scheme else {
            return Ok(());
        };
        if digest.len() != hash.size() {
            return Err(KeyError::WrongDigestSize);
        }
        if let RsaScheme::Pss(_, SaltLength::Bytes(salt)) = scheme
            && usize::from(salt) + hash.size() + 2 > self.key.size()
        {
            return Err(KeyError::WrongSaltLength);
        }
        Ok(())
    }
}

impl From<RsaScheme> for Scheme {
    fn from(scheme: RsaScheme) -> Self {
        match scheme {
            RsaScheme::Pss(hash, salt) => Self::Pss(hash, salt),
            RsaScheme::Pkcs1(hash) => Self::Pkcs1(hash),
        }
    }
}
