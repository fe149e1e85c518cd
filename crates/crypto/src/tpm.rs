//! The primitives of sessions with a TPM 2.0 that nothing else needs: the exchange of a salt, and the cipher of parameters
//! (TPM 2.0 library specification, part 1, "Session-based encryption" and annexes B and C). They work with public keys of
//! the TPM only.

use crate::keys::KeyError;
use crate::openpgp::rsa_spki;
use crate::secret::SecretBytes;
use aws_lc_rs::agreement::{self, ECDH_P256, UnparsedPublicKey};
use aws_lc_rs::cipher::{
    AES_128, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

/// Encrypts in place with AES-128 in CFB mode.
///
/// # Errors
/// When the library fails.
pub fn cfb_encrypt(key: &[u8; 16], iv: &[u8; 16], text: &mut [u8]) -> Result<(), KeyError> {
    let key = UnboundCipherKey::new(&AES_128, key).map_err(|_| KeyError::Failed)?;
    let key = EncryptingKey::cfb128(key).map_err(|_| KeyError::Failed)?;
    key.less_safe_encrypt(text, EncryptionContext::Iv128((*iv).into())).map_err(|_| KeyError::Failed)?;
    Ok(())
}

/// Decrypts in place with AES-128 in CFB mode.
///
/// # Errors
/// When the library fails.
pub fn cfb_decrypt(key: &[u8; 16], iv: &[u8; 16], text: &mut [u8]) -> Result<(), KeyError> {
    let key = UnboundCipherKey::new(&AES_128, key).map_err(|_| KeyError::Failed)?;
    let key = DecryptingKey::cfb128(key).map_err(|_| KeyError::Failed)?;
    key.decrypt(text, DecryptionContext::Iv128((*iv).into())).map_err(|_| KeyError::Failed)?;
    Ok(())
}

/// A new key on P-256 agrees on a secret with the public key of these coordinates, big-endian. Returns its own coordinates
/// and the secret: the x coordinate of the common point.
///
/// # Errors
/// When the coordinates are no point of the curve.
pub fn p256_agree(x: &[u8; 32], y: &[u8; 32]) -> Result<([u8; 32], [u8; 32], SecretBytes), KeyError> {
    let own = agreement::PrivateKey::generate(&ECDH_P256).map_err(|_| KeyError::Failed)?;
    let public = own.compute_public_key().map_err(|_| KeyError::Failed)?;
    let theirs = [&[4], x.as_slice(), y].concat();
    let theirs = UnparsedPublicKey::new(&ECDH_P256, &theirs);
    let shared = agreement::agree(&own, theirs, KeyError::Malformed, |shared| Ok(SecretBytes::new(shared.to_vec())))?;
    // An uncompressed point.
    let coordinates = public.as_ref().get(1..).and_then(|rest| rest.split_first_chunk::<32>());
    let (own_x, rest) = coordinates.ok_or(KeyError::Failed)?;
    let own_y = rest.first_chunk::<32>().ok_or(KeyError::Failed)?;
    Ok((*own_x, *own_y, shared))
}

/// Encrypts with RSAES-OAEP with SHA-256 and this label (RFC 8017, 7.1).
///
/// # Errors
/// When the numbers are no RSA key of 2048 to 8192 bits.
pub fn rsa_oaep_encrypt(modulus: &[u8], exponent: &[u8], label: &[u8], text: &[u8]) -> Result<Vec<u8>, KeyError> {
    let key = PublicEncryptingKey::from_der(&rsa_spki(modulus, exponent)).map_err(|_| KeyError::WrongKind)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| KeyError::WrongKind)?;
    let mut out = vec![0; key.ciphertext_size()];
    let encrypted = key.encrypt(&OAEP_SHA256_MGF1SHA256, text, &mut out, Some(label));
    let length = encrypted.map_err(|_| KeyError::Failed)?.len();
    out.truncate(length);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST SP 800-38A, F.3.13 and F.3.14.
    #[test]
    fn cfb_passes_the_example_of_nist() {
        let unhex = |text: &str| hex::decode(text).unwrap();
        let key: [u8; 16] = unhex("2b7e151628aed2a6abf7158809cf4f3c").try_into().unwrap();
        let iv: [u8; 16] = unhex("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
        let plain = unhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let mut text = plain.clone();
        cfb_encrypt(&key, &iv, &mut text).unwrap();
        assert_eq!(hex::encode(&text), "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b");
        cfb_decrypt(&key, &iv, &mut text).unwrap();
        assert_eq!(text, plain);
    }

    #[test]
    fn a_point_that_is_not_on_the_curve_is_refused() {
        assert!(p256_agree(&[1; 32], &[2; 32]).is_err());
        assert!(rsa_oaep_encrypt(&[0xff; 64], &[1, 0, 1], b"", b"").is_err());
    }
}
