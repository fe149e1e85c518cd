//! The one comparison of secrets.

use subtle::ConstantTimeEq;

/// Whether `a` and `b` are the same bytes, in a time that depends on their lengths only.
///
/// Different lengths are told at once: the length of a token or a MAC is no secret.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::equal;

    #[test]
    fn tells_every_single_difference() {
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
