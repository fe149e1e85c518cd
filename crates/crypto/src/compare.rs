//! Constant-time comparison of secrets.

use subtle::ConstantTimeEq;

/// Whether `a` and `b` are the same bytes. The time depends on their lengths only.
///
/// Different lengths return at once: the length of a token or a MAC is not secret.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::equal;

    #[test]
    fn detects_every_single_bit_difference() {
        let a = [0x5a; 33];
        assert!(equal(&a, &a));
        assert!(equal(&[], &[]));
        assert!(!equal(&a, &a[..32]));
        for bit in 0..a.len() * 8 {
            let mut b = a;
            b[bit / 8] ^= 1 << (bit % 8);
            assert!(!equal(&a, &b), "bit {bit}");
        }
    }
}
