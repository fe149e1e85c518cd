//! ML-KEM (FIPS 203): key encapsulation that holds against quantum computers, as encryption.
//!
//! A KEM carries a fresh secret and no message, so a value is sealed as
//! `encapsulation || AES-256-GCM(HKDF-SHA-256(shared secret, info), plaintext)`: the DEM of RFC 9180
//! in the simple form that one recipient and one message need.

use super::KeyError;
use crate::aead::AeadKey;
use crate::kdf;
use crate::locked::Key256;
use crate::secret::SecretBytes;
use aws_lc_rs::kem::{Algorithm, AlgorithmId, Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768, ML_KEM_1024};

/// What separates this use of the shared secret from others.
const INFO: &[u8] = b"keepfast transit ml-kem v1";

/// A parameter set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MlKem {
    /// ML-KEM-768, category 3.
    MlKem768,
    /// ML-KEM-1024, category 5.
    MlKem1024,
}

impl MlKem {
    fn algorithm(self) -> &'static Algorithm<AlgorithmId> {
        match self {
            Self::MlKem768 => &ML_KEM_768,
            Self::MlKem1024 => &ML_KEM_1024,
        }
    }

    /// Bytes of an encapsulation (FIPS 203, table 3).
    fn encapsulation_size(self) -> usize {
        match self {
            Self::MlKem768 => 1088,
            Self::MlKem1024 => 1568,
        }
    }

    /// Bytes of an encapsulation key (FIPS 203, table 3).
    fn public_size(self) -> usize {
        match self {
            Self::MlKem768 => 1184,
            Self::MlKem1024 => 1568,
        }
    }
}

/// A key pair. The library does not derive the public half from the private one, so both are kept:
/// `decapsulation key || encapsulation key`.
pub struct MlKemKey {
    set: MlKem,
    private: DecapsulationKey,
    public: EncapsulationKey,
}

impl MlKemKey {
    /// A new key pair, as [`from_bytes`](Self::from_bytes) takes it.
    ///
    /// # Errors
    /// When the library fails.
    pub fn generate(set: MlKem) -> Result<SecretBytes, KeyError> {
        let key = DecapsulationKey::generate(set.algorithm()).map_err(|_| KeyError::Failed)?;
        let public = key.encapsulation_key().and_then(|public| Ok(public.key_bytes()?.as_ref().to_vec()));
        let public = public.map_err(|_| KeyError::Failed)?;
        let private = key.key_bytes().map_err(|_| KeyError::Failed)?;
        Ok(SecretBytes::new([private.as_ref(), &public].concat()))
    }

    /// Reads a key pair.
    ///
    /// # Errors
    /// When the bytes are not one of this parameter set.
    pub fn from_bytes(set: MlKem, bytes: &[u8]) -> Result<Self, KeyError> {
        let at = bytes.len().checked_sub(set.public_size()).ok_or(KeyError::Malformed)?;
        let (private, public) = bytes.split_at(at);
        let private = DecapsulationKey::new(set.algorithm(), private).map_err(|_| KeyError::Malformed)?;
        let public = EncapsulationKey::new(set.algorithm(), public).map_err(|_| KeyError::Malformed)?;
        Ok(Self { set, private, public })
    }

    /// The encapsulation key as FIPS 203 encodes it.
    ///
    /// # Errors
    /// When the library fails.
    pub fn public(&self) -> Result<Vec<u8>, KeyError> {
        Ok(self.public.key_bytes().map_err(|_| KeyError::Failed)?.as_ref().to_vec())
    }

    /// Seals `plaintext`, bound to `aad`, for the owner of this key.
    ///
    /// # Errors
    /// When the library fails.
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        let (encapsulation, shared) = self.public.encapsulate().map_err(|_| KeyError::Failed)?;
        Ok(content_key(shared.as_ref()).seal_after(encapsulation.as_ref(), aad, plaintext))
    }

    /// Opens what [`seal`](Self::seal) made.
    ///
    /// # Errors
    /// [`KeyError::Unauthentic`] when key, associated data or any bit differ.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        let parts = sealed.split_at_checked(self.set.encapsulation_size());
        let (encapsulation, sealed) = parts.ok_or(KeyError::Unauthentic)?;
        let shared = self.private.decapsulate(Ciphertext::from(encapsulation)).map_err(|_| KeyError::Unauthentic)?;
        content_key(shared.as_ref()).open(aad, sealed).map_err(|_| KeyError::Unauthentic)
    }
}

fn content_key(shared: &[u8]) -> AeadKey {
    let mut key = Key256::zeroed();
    kdf::hkdf_sha256(shared, &[], INFO, key.expose_mut());
    AeadKey::new(&key)
}
