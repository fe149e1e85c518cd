//! ML-KEM (FIPS 203): post-quantum key encapsulation, used for encryption.
//!
//! A KEM transports a fresh secret and no message, so a sealed value is
//! `encapsulation || AES-256-GCM(HKDF-SHA-256(shared secret, info), plaintext)`: the DEM of RFC 9180,
//! reduced to one recipient and one message.
//!
//! The hybrid combines ML-KEM-768 with X25519 by the combiner of X-Wing (draft-connolly-cfrg-xwing-kem): it is secure
//! as long as one of the two is.

use super::KeyError;
use super::digest::Hash;
use crate::aead::AeadKey;
use crate::kdf;
use crate::locked::Key256;
use crate::random;
use crate::secret::SecretBytes;
use aws_lc_rs::agreement::{self, X25519};
use aws_lc_rs::kem::{Algorithm, AlgorithmId, Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768, ML_KEM_1024};

/// The HKDF `info`, which separates this use of the shared secret from others.
const INFO: &[u8] = b"keepfast transit ml-kem v1";

/// Bytes of the private numbers, public keys and secrets of X25519.
const X25519_SIZE: usize = 32;
/// The label of X-Wing.
const XWING_LABEL: &[u8] = br"\.//^\";

/// A parameter set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MlKem {
    /// ML-KEM-768, category 3.
    MlKem768,
    /// ML-KEM-1024, category 5.
    MlKem1024,
    /// ML-KEM-768 and X25519 combined.
    X25519MlKem768,
}

impl MlKem {
    fn algorithm(self) -> &'static Algorithm<AlgorithmId> {
        match self {
            Self::MlKem768 | Self::X25519MlKem768 => &ML_KEM_768,
            Self::MlKem1024 => &ML_KEM_1024,
        }
    }

    /// Bytes of an encapsulation (FIPS 203, table 3).
    fn encapsulation_size(self) -> usize {
        match self {
            Self::MlKem768 | Self::X25519MlKem768 => 1088,
            Self::MlKem1024 => 1568,
        }
    }

    /// Bytes of the private number of X25519.
    fn curve_size(self) -> usize {
        if self == Self::X25519MlKem768 { X25519_SIZE } else { 0 }
    }

    /// Bytes of an encapsulation key (FIPS 203, table 3).
    fn public_size(self) -> usize {
        match self {
            Self::MlKem768 | Self::X25519MlKem768 => 1184,
            Self::MlKem1024 => 1568,
        }
    }
}

/// A key pair. The library cannot derive ML-KEM's public half from the private one, so both are stored:
/// `decapsulation key || encapsulation key`, for the hybrid with the private number of X25519 in front.
pub struct MlKemKey {
    set: MlKem,
    private: DecapsulationKey,
    public: EncapsulationKey,
    curve: Option<CurveHalf>,
}

/// The X25519 half of a hybrid key.
struct CurveHalf {
    private: agreement::PrivateKey,
    public: [u8; X25519_SIZE],
}

impl MlKemKey {
    /// Generates a key pair in the form that [`from_bytes`](Self::from_bytes) reads.
    ///
    /// # Errors
    /// When the library fails.
    pub fn generate(set: MlKem) -> Result<SecretBytes, KeyError> {
        let key = DecapsulationKey::generate(set.algorithm()).map_err(|_| KeyError::Failed)?;
        let public = key.encapsulation_key().and_then(|public| Ok(public.key_bytes()?.as_ref().to_vec()));
        let public = public.map_err(|_| KeyError::Failed)?;
        let private = key.key_bytes().map_err(|_| KeyError::Failed)?;
        let mut curve = SecretBytes::new(vec![0; set.curve_size()]);
        random::fill(curve.expose_mut());
        Ok(SecretBytes::new([curve.expose(), private.as_ref(), &public].concat()))
    }

    /// Reads a key pair.
    ///
    /// # Errors
    /// When the bytes are not a key pair of this parameter set.
    pub fn from_bytes(set: MlKem, bytes: &[u8]) -> Result<Self, KeyError> {
        let (curve, bytes) = bytes.split_at_checked(set.curve_size()).ok_or(KeyError::Malformed)?;
        let at = bytes.len().checked_sub(set.public_size()).ok_or(KeyError::Malformed)?;
        let (private, public) = bytes.split_at(at);
        let private = DecapsulationKey::new(set.algorithm(), private).map_err(|_| KeyError::Malformed)?;
        let public = EncapsulationKey::new(set.algorithm(), public).map_err(|_| KeyError::Malformed)?;
        let curve = if curve.is_empty() { None } else { Some(CurveHalf::new(curve)?) };
        Ok(Self { set, private, public, curve })
    }

    /// The encapsulation key as FIPS 203 encodes it; for the hybrid, followed by the public key of X25519.
    ///
    /// # Errors
    /// When the library fails.
    pub fn public(&self) -> Result<Vec<u8>, KeyError> {
        let mut public = self.public.key_bytes().map_err(|_| KeyError::Failed)?.as_ref().to_vec();
        public.extend(self.curve.iter().flat_map(|curve| curve.public));
        Ok(public)
    }

    /// Seals `plaintext`, bound to `aad`, for the owner of this key.
    ///
    /// # Errors
    /// When the library fails.
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        let (encapsulation, shared) = self.public.encapsulate().map_err(|_| KeyError::Failed)?;
        let Some(curve) = &self.curve else {
            return Ok(content_key(shared.as_ref()).seal_after(encapsulation.as_ref(), aad, plaintext));
        };
        let own = agreement::PrivateKey::generate(&X25519).map_err(|_| KeyError::Failed)?;
        let own_public = own.compute_public_key().map_err(|_| KeyError::Failed)?;
        let agreed = agree(&own, &curve.public).map_err(|_| KeyError::Failed)?;
        let shared = combine(shared.as_ref(), &agreed, own_public.as_ref(), &curve.public);
        let header = [encapsulation.as_ref(), own_public.as_ref()].concat();
        Ok(content_key(shared.expose()).seal_after(&header, aad, plaintext))
    }

    /// Opens a value of [`seal`](Self::seal).
    ///
    /// # Errors
    /// [`KeyError::Unauthentic`] when key, associated data or any bit differ.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        let parts = sealed.split_at_checked(self.set.encapsulation_size());
        let (encapsulation, sealed) = parts.ok_or(KeyError::Unauthentic)?;
        let shared = self.private.decapsulate(Ciphertext::from(encapsulation)).map_err(|_| KeyError::Unauthentic)?;
        let Some(curve) = &self.curve else {
            return content_key(shared.as_ref()).open(aad, sealed).map_err(|_| KeyError::Unauthentic);
        };
        let (theirs, sealed) = sealed.split_first_chunk::<X25519_SIZE>().ok_or(KeyError::Unauthentic)?;
        let agreed = agree(&curve.private, theirs)?;
        let shared = combine(shared.as_ref(), &agreed, theirs, &curve.public);
        content_key(shared.expose()).open(aad, sealed).map_err(|_| KeyError::Unauthentic)
    }
}

impl CurveHalf {
    fn new(number: &[u8]) -> Result<Self, KeyError> {
        let private = agreement::PrivateKey::from_private_key(&X25519, number).map_err(|_| KeyError::Malformed)?;
        let public = private.compute_public_key().map_err(|_| KeyError::Failed)?;
        let public = public.as_ref().try_into().map_err(|_| KeyError::Failed)?;
        Ok(Self { private, public })
    }
}

/// The shared secret of X25519; the library refuses points that make it zero (RFC 7748, 6.1).
fn agree(own: &agreement::PrivateKey, theirs: &[u8]) -> Result<SecretBytes, KeyError> {
    let theirs = agreement::UnparsedPublicKey::new(&X25519, theirs);
    agreement::agree(own, theirs, KeyError::Unauthentic, |shared| Ok(SecretBytes::new(shared.to_vec())))
}

/// X-Wing's combiner: SHA3-256 of both secrets, the encapsulation and public key of X25519, and the label.
fn combine(lattice: &[u8], curve: &SecretBytes, encapsulation: &[u8], public: &[u8]) -> SecretBytes {
    let joined = SecretBytes::new([lattice, curve.expose(), encapsulation, public, XWING_LABEL].concat());
    SecretBytes::new(Hash::Sha3_256.digest(joined.expose()))
}

fn content_key(shared: &[u8]) -> AeadKey {
    let mut key = Key256::zeroed();
    kdf::hkdf_sha256(shared, &[], INFO, key.expose_mut());
    AeadKey::new(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748, 6.1: the private key of Bob and the public key of Alice.
    #[test]
    fn the_agreement_of_the_hybrid_is_x25519() {
        let own = hex::decode("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb").unwrap();
        let theirs = hex::decode("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a").unwrap();
        let own = agreement::PrivateKey::from_private_key(&X25519, &own).unwrap();
        let shared = agree(&own, &theirs).unwrap();
        assert_eq!(hex::encode(shared.expose()), "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert!(agree(&own, &[0; X25519_SIZE]).is_err(), "a point of small order");
    }
}
