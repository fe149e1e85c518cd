//! Signatures of keys whose public key is known: what a private key signs, and verification without a call.

use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::ecdsa::{EcKey, Marshaling};
use keepfast_crypto::keys::rsa::RsaScheme;
use keepfast_crypto::keys::{Key, KeyError};
use keepfast_framework::external_key::{ExternalKeyError, Signing, SigningHash};

/// What a private key signs.
pub(super) enum ToSign {
    /// The message, with Ed25519.
    Message(Vec<u8>),
    /// A digest, with ECDSA.
    Ecdsa(Hash, Vec<u8>),
    /// A digest, with RSA.
    Rsa(RsaScheme, Vec<u8>),
}

/// What the key of this public key signs.
pub(super) fn to_sign(public: &Key, signing: &Signing<'_>) -> Result<ToSign, ExternalKeyError> {
    if let Key::Ed25519(_) = public {
        return Ok(ToSign::Message(signing.input.to_vec()));
    }
    let hash = match signing.hash {
        SigningHash::OfKey => Some(Hash::Sha256),
        SigningHash::Of(hash) => Some(hash),
        SigningHash::None => None,
    };
    let digest = match hash {
        Some(hash) if !signing.prehashed => hash.digest(signing.input),
        _ => signing.input.to_vec(),
    };
    if hash.is_some_and(|hash| digest.len() != hash.size()) {
        return Err(ExternalKeyError::refused("the input is not a digest of the hash function"));
    }
    match (public, hash) {
        (Key::Ecdsa(_), Some(hash)) => Ok(ToSign::Ecdsa(hash, digest)),
        (Key::Rsa(_), Some(hash)) if !signing.pkcs1 => Ok(ToSign::Rsa(RsaScheme::Pss(hash, signing.salt), digest)),
        (Key::Rsa(_), hash) if signing.pkcs1 && (hash.is_some() || signing.prehashed) => {
            Ok(ToSign::Rsa(RsaScheme::Pkcs1(hash), digest))
        }
        (Key::Ecdsa(_) | Key::Rsa(_), _) => Err(ExternalKeyError::refused(
            "hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15",
        )),
        _ => Err(no_signatures()),
    }
}

/// Whether a signature is valid.
pub(super) fn verify(public: &Key, signing: &Signing<'_>, signature: &[u8]) -> Result<bool, ExternalKeyError> {
    let verified = match (public, to_sign(public, signing)?) {
        (Key::Ed25519(key), ToSign::Message(message)) => Ok(key.verify(&message, signature)),
        (Key::Ecdsa(key), ToSign::Ecdsa(_, digest)) => key.verify(&digest, signature, signing.marshaling),
        (Key::Rsa(key), ToSign::Rsa(scheme, digest)) => key.verify(scheme, &digest, signature),
        _ => return Err(no_signatures()),
    };
    verified.or_else(|why| match why {
        KeyError::Malformed => Err(ExternalKeyError::refused("supplied signature is invalid")),
        KeyError::WrongDigestSize | KeyError::WrongSaltLength => Ok(false),
        why => Err(ExternalKeyError::refused(why.to_string())),
    })
}

/// A signature in the encoding of the request; `None` when the other system's is malformed.
pub(super) fn remarshaled(key: &EcKey, signature: &[u8], from: Marshaling, signing: &Signing<'_>) -> Option<Vec<u8>> {
    key.curve().remarshal(signature, from, signing.marshaling)
}

/// The refusal of a key that does not sign.
pub(super) fn no_signatures() -> ExternalKeyError {
    ExternalKeyError::refused("the external key does not support signing")
}

/// The refusal of a key that does not encrypt.
pub(super) fn no_encryption() -> ExternalKeyError {
    ExternalKeyError::refused("the external key does not support encryption")
}

/// The refusal of a ciphertext. It does not state which part is wrong.
pub(super) fn wrong_ciphertext() -> ExternalKeyError {
    ExternalKeyError::refused("the external key did not create this ciphertext, or not with this associated data")
}
