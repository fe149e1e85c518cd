//! What RSA keys and keys on curves share: their encodings.

use super::evp::Pkey;
use super::{KeyError, pem};
use crate::secret::{SecretBytes, SecretString};

/// The properties of a family of keys.
pub trait Parameters {
    /// The PEM label of a private key in the format that is older than PKCS#8.
    const PEM_LABEL: &'static str;
}

/// A key pair, or only a public key. The library wipes it when it is dropped.
pub struct AsymmetricKey<P> {
    pub(super) key: Pkey,
    pub(super) parameters: P,
    is_private: bool,
}

impl<P: Parameters> AsymmetricKey<P> {
    pub(super) fn new(key: Pkey, parameters: P, is_private: bool) -> Self {
        AsymmetricKey { key, parameters, is_private }
    }

    /// The key, for operations that need the private half.
    ///
    /// # Errors
    /// When there is only a public key.
    pub(super) fn private_key(&self) -> Result<&Pkey, KeyError> {
        if self.is_private { Ok(&self.key) } else { Err(KeyError::PublicOnly) }
    }

    /// The public key as DER of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// When the library fails.
    pub fn spki(&self) -> Result<Vec<u8>, KeyError> {
        self.key.to_spki()
    }

    /// The private key as PKCS#8.
    ///
    /// # Errors
    /// When there is only a public key.
    pub fn pkcs8(&self) -> Result<SecretBytes, KeyError> {
        self.private_key()?.to_pkcs8()
    }

    /// The private key as PEM under [`Parameters::PEM_LABEL`].
    ///
    /// # Errors
    /// When there is only a public key.
    pub fn private_pem(&self) -> Result<SecretString, KeyError> {
        Ok(pem::encode_secret(P::PEM_LABEL, self.private_key()?.to_traditional()?.expose()))
    }
}
