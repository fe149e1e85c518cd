//! ML-DSA (FIPS 204): post-quantum signatures.
//!
//! The private key is the seed of 32 bytes from which FIPS 204 generates the key pair.

use super::KeyError;
use crate::locked::Locked;
use crate::random;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    KeyPair, ML_DSA_44, ML_DSA_44_SIGNING, ML_DSA_65, ML_DSA_65_SIGNING, ML_DSA_87, ML_DSA_87_SIGNING, PqdsaKeyPair,
    PqdsaSigningAlgorithm, PqdsaVerificationAlgorithm, UnparsedPublicKey,
};

/// A parameter set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MlDsa {
    /// ML-DSA-44, category 2.
    MlDsa44,
    /// ML-DSA-65, category 3.
    MlDsa65,
    /// ML-DSA-87, category 5.
    MlDsa87,
}

impl MlDsa {
    fn signing(self) -> &'static PqdsaSigningAlgorithm {
        match self {
            Self::MlDsa44 => &ML_DSA_44_SIGNING,
            Self::MlDsa65 => &ML_DSA_65_SIGNING,
            Self::MlDsa87 => &ML_DSA_87_SIGNING,
        }
    }

    fn verification(self) -> &'static PqdsaVerificationAlgorithm {
        match self {
            Self::MlDsa44 => &ML_DSA_44,
            Self::MlDsa65 => &ML_DSA_65,
            Self::MlDsa87 => &ML_DSA_87,
        }
    }
}

/// A key pair. The library wipes it when it is dropped.
pub struct MlDsaKey {
    set: MlDsa,
    pair: PqdsaKeyPair,
}

impl MlDsaKey {
    /// A new seed, which is the private key.
    #[must_use]
    pub fn generate() -> Locked<32> {
        random::key()
    }

    /// The key pair of a seed.
    ///
    /// # Errors
    /// When `seed` has not 32 bytes.
    pub fn from_seed(set: MlDsa, seed: &[u8]) -> Result<Self, KeyError> {
        let pair = PqdsaKeyPair::from_seed(set.signing(), seed).map_err(|_| KeyError::Malformed)?;
        Ok(Self { set, pair })
    }

    /// The public key as FIPS 204 encodes it.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The public key as DER of a SubjectPublicKeyInfo (RFC 9881).
    ///
    /// # Errors
    /// When the library fails.
    pub fn spki(&self) -> Result<Vec<u8>, KeyError> {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().map_err(|_| KeyError::Failed)?;
        Ok(der.as_ref().to_vec())
    }

    /// Signs a message (pure ML-DSA, empty context).
    ///
    /// # Errors
    /// When the library fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut signature = vec![0; self.set.signing().signature_len()];
        let length = self.pair.sign(message, &mut signature).map_err(|_| KeyError::Failed)?;
        signature.truncate(length);
        Ok(signature)
    }

    /// Whether `signature` is a signature of `message` by this key.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        verify(self.set, self.public(), message, signature)
    }
}

/// Whether `signature` is a signature of `message` by the owner of `public`.
#[must_use]
pub fn verify(set: MlDsa, public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(set.verification(), public).verify(message, signature).is_ok()
}
