//! The primitives of encryption to OpenPGP certificates (RFC 4880, RFC 6637) that nothing else needs. They work with
//! public keys only.

use crate::keys::KeyError;
use crate::keys::der;
use crate::keys::digest::Hash;
use crate::secret::SecretBytes;
use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::key_wrap::{self, AesKek, KeyWrap};
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};

/// Encrypts in place with AES-256 in CFB mode from a zero IV. The caller puts random bytes first (RFC 4880, 5.13).
///
/// # Errors
/// When the library fails.
pub fn cfb_from_zero(key: &[u8; 32], text: &mut [u8]) -> Result<(), KeyError> {
    let key = UnboundCipherKey::new(&AES_256, key).map_err(|_| KeyError::Failed)?;
    let key = EncryptingKey::cfb128(key).map_err(|_| KeyError::Failed)?;
    key.less_safe_encrypt(text, EncryptionContext::Iv128([0; 16].into())).map_err(|_| KeyError::Failed)?;
    Ok(())
}

/// A SubjectPublicKeyInfo of an RSA key from its numbers, big-endian.
#[must_use]
pub fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    const ALGORITHM: &[u8] = &[0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    let numbers = der::write(der::SEQUENCE, &[der::write_number(modulus), der::write_number(exponent)].concat());
    let bits = der::write(0x03, &[&[0], numbers.as_slice()].concat());
    der::write(der::SEQUENCE, &[ALGORITHM, &bits].concat())
}

/// Encrypts with RSAES-PKCS1-v1_5 (RFC 8017, 7.2).
///
/// # Errors
/// When the key is not an RSA key of 2048 to 8192 bits, or the text is too long for it.
pub fn rsa_encrypt(spki: &[u8], text: &[u8]) -> Result<Vec<u8>, KeyError> {
    let key = PublicEncryptingKey::from_der(spki).map_err(|_| KeyError::WrongKind)?;
    let key = Pkcs1PublicEncryptingKey::new(key).map_err(|_| KeyError::WrongKind)?;
    let mut out = vec![0; key.ciphertext_size()];
    let length = key.encrypt(text, &mut out).map_err(|_| KeyError::Failed)?.len();
    out.truncate(length);
    Ok(out)
}

/// Encrypts a session key with ECDH on X25519 (RFC 6637, section 8): a new key agrees on a secret with `public`, whose KDF
/// with `hash` and `parameters` is the key of AES key wrap. Returns the new public key and the wrapped key.
///
/// # Errors
/// When `kek_size` is not 16 or 32, the public key is of low order, or `text` is not a multiple of 8 bytes.
pub fn x25519_wrap(
    public: &[u8; 32],
    hash: Hash,
    parameters: &[u8],
    kek_size: usize,
    text: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), KeyError> {
    let cipher = match kek_size {
        16 => &key_wrap::AES_128,
        32 => &key_wrap::AES_256,
        _ => return Err(KeyError::Unsupported),
    };
    let own = agreement::PrivateKey::generate(&X25519).map_err(|_| KeyError::Failed)?;
    let own_public = own.compute_public_key().map_err(|_| KeyError::Failed)?;
    let peer = UnparsedPublicKey::new(&X25519, public);
    let derived = agreement::agree(&own, peer, KeyError::Malformed, |shared| {
        let input = SecretBytes::new([&[0, 0, 0, 1], shared, parameters].concat());
        Ok(SecretBytes::new(hash.digest(input.expose())))
    })?;
    let kek = derived.expose().get(..kek_size).ok_or(KeyError::Unsupported)?;
    let kek = AesKek::new(cipher, kek).map_err(|_| KeyError::Failed)?;
    let mut wrapped = vec![0; text.len() + 8];
    let length = kek.wrap(text, &mut wrapped).map_err(|_| KeyError::Failed)?.len();
    wrapped.truncate(length);
    Ok((own_public.as_ref().to_vec(), wrapped))
}
