//! Key wrapping for import: an AES key wrapped with RSA-OAEP, followed by the target key wrapped with
//! that AES key by AES-KWP (RFC 5649). PKCS#11 names it CKM_RSA_AES_KEY_WRAP.

use super::KeyError;
use super::digest::Hash;
use super::rsa::RsaKey;
use crate::random;
use crate::secret::SecretBytes;
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};

/// Unwraps a key that was wrapped for `wrapping_key`.
///
/// # Errors
/// When one of the two layers does not decrypt.
pub fn unwrap_key(wrapping_key: &RsaKey, hash: Hash, wrapped: &[u8]) -> Result<SecretBytes, KeyError> {
    let size = usize::try_from(wrapping_key.bits() / 8).map_err(|_| KeyError::Unsupported)?;
    let (sealed_kek, wrapped) = wrapped.split_at_checked(size).ok_or(KeyError::Malformed)?;
    let kek = wrapping_key.decrypt_with(hash, sealed_kek)?;
    unwrap_with_kek(kek.expose(), wrapped)
}

/// Wraps a key for `wrapping_key`, with a new AES key of 256 bits.
///
/// # Errors
/// When the wrapping key is too small for the hash.
pub fn wrap_key(wrapping_key: &RsaKey, hash: Hash, key: &[u8]) -> Result<Vec<u8>, KeyError> {
    let kek = random::key();
    let mut out = wrapping_key.encrypt_with(hash, kek.expose())?;
    out.extend(wrap_with_kek(kek.expose(), key)?);
    Ok(out)
}

/// Unwraps with AES-KWP under `kek` of 128 or 256 bits.
pub(super) fn unwrap_with_kek(kek: &[u8], wrapped: &[u8]) -> Result<SecretBytes, KeyError> {
    let mut out = SecretBytes::new(vec![0; wrapped.len()]);
    let length = cipher(kek)?.unwrap_with_padding(wrapped, out.expose_mut()).map_err(|_| KeyError::Unauthentic)?.len();
    out.expose_mut().truncate(length);
    Ok(out)
}

fn wrap_with_kek(kek: &[u8], key: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut out = vec![0; key.len().next_multiple_of(8) + 8];
    let length = cipher(kek)?.wrap_with_padding(key, &mut out).map_err(|_| KeyError::Failed)?.len();
    out.truncate(length);
    Ok(out)
}

fn cipher(kek: &[u8]) -> Result<AesKek, KeyError> {
    let cipher = match kek.len() {
        16 => &aws_lc_rs::key_wrap::AES_128,
        32 => &AES_256,
        _ => return Err(KeyError::Malformed),
    };
    AesKek::new(cipher, kek).map_err(|_| KeyError::Malformed)
}
