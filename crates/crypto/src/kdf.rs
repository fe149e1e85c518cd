//! Key derivation: HKDF (RFC 5869) and PBKDF2 (RFC 8018), both with SHA-256.

use std::num::NonZeroU32;

use crate::hmac::HmacKey;
use aws_lc_rs::pbkdf2;
use zeroize::Zeroize;

/// The maximum output length in bytes: 255 blocks of SHA-256 (RFC 5869, 2.3).
pub const HKDF_SHA256_MAX: usize = 255 * 32;

/// Fills `out` with key material derived from `ikm`; `info` names its use.
///
/// An empty `salt` is the default of the RFC, 32 zero bytes.
///
/// # Panics
/// When `out` is longer than [`HKDF_SHA256_MAX`]. The length is part of a protocol and never input.
pub fn hkdf_sha256(ikm: &[u8], salt: &[u8], info: &[u8], out: &mut [u8]) {
    assert!(out.len() <= HKDF_SHA256_MAX, "HKDF-SHA-256 gives at most {HKDF_SHA256_MAX} bytes");
    // HMAC pads its key with zeros, so an empty salt needs no special case.
    let mut extracted = HmacKey::new(salt).mac(ikm);
    let key = HmacKey::new(&extracted);
    extracted.zeroize();
    let mut block = [0; 32];
    let mut counter = 0_u8;
    for chunk in out.chunks_mut(32) {
        let previous: &[u8] = if counter == 0 { &[] } else { &block };
        counter = counter.wrapping_add(1);
        block = key.mac_parts(&[previous, info, &[counter]]);
        chunk.copy_from_slice(&block[..chunk.len()]);
    }
    block.zeroize();
}

/// Derives a key from a password with `iterations` rounds of PBKDF2.
pub fn pbkdf2_sha256(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> [u8; 32] {
    let mut out = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pbkdf2_is_that_of_rfc_7914() {
        for (password, salt, iterations, expected) in [
            ("passwd", "salt", 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"),
            ("Password", "NaCl", 80_000, "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"),
        ] {
            let made = pbkdf2_sha256(password.as_bytes(), salt.as_bytes(), NonZeroU32::new(iterations).unwrap());
            assert_eq!(hex::encode(made), expected);
        }
    }

    fn check(ikm: &[u8], salt: &[u8], info: &[u8], expected: &str) {
        let mut out = vec![0; expected.len() / 2];
        hkdf_sha256(ikm, salt, info, &mut out);
        assert_eq!(hex::encode(out), expected);
    }

    // RFC 5869, appendix A.1 to A.3.
    #[test]
    fn rfc_5869() {
        let count = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
        check(
            &[0x0b; 22],
            &count(0, 12),
            &count(0xf0, 0xf9),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        );
        check(
            &count(0, 0x4f),
            &count(0x60, 0xaf),
            &count(0xb0, 0xff),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09\
             da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        );
        check(
            &[0x0b; 22],
            &[],
            &[],
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        );
    }

    #[test]
    fn gives_the_longest_output() {
        assert_eq!(HKDF_SHA256_MAX, 8160);
        let mut out = vec![0; HKDF_SHA256_MAX];
        hkdf_sha256(b"key", b"salt", b"info", &mut out);
        assert_ne!(out[HKDF_SHA256_MAX - 32..], [0; 32]);
    }
}
