//! Shamir's secret sharing, byte by byte over GF(2^8).
//!
//! The field is that of AES (polynomial x^8 + x^4 + x^3 + x + 1, 0x11b); a share is the y bytes and
//! then one byte x. Vault and OpenBao use the same, so shares are interchangeable with theirs.
//! Multiplication uses no tables and no branches: the time of a table look-up in the cache would leak
//! the secret (CVE-2023-25000).

use crate::random;
use crate::secret::SecretBytes;

/// Why a secret cannot be split, or shares cannot be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShamirError {
    /// The secret is empty.
    #[error("cannot split an empty secret")]
    EmptySecret,
    /// The threshold is below two: every share would be the secret itself.
    #[error("threshold must be at least 2")]
    ThresholdTooLow,
    /// There are fewer shares than the threshold.
    #[error("parts cannot be less than threshold")]
    FewerSharesThanThreshold,
    /// There are fewer than two shares to combine.
    #[error("less than two parts cannot be used to reconstruct the secret")]
    TooFewShares,
    /// A share is shorter than one y byte and its x.
    #[error("parts must be at least two bytes")]
    ShareTooShort,
    /// The shares have different lengths.
    #[error("all parts must be the same length")]
    LengthsDiffer,
    /// The same share is present twice.
    #[error("duplicate part detected")]
    DuplicateShare,
    /// A share has x = 0, where the polynomial is the secret; `split` never returns one.
    #[error("a part is not a share")]
    NotAShare,
}

/// Splits `secret` into `shares` shares of which any `threshold` reconstruct it.
///
/// # Errors
/// When the secret is empty, `threshold` is below 2, or `shares` is below `threshold`.
pub fn split(secret: &[u8], shares: u8, threshold: u8) -> Result<Vec<SecretBytes>, ShamirError> {
    if secret.is_empty() {
        return Err(ShamirError::EmptySecret);
    }
    if threshold < 2 {
        return Err(ShamirError::ThresholdTooLow);
    }
    if shares < threshold {
        return Err(ShamirError::FewerSharesThanThreshold);
    }
    let points = distinct_points(shares);
    let mut parts: Vec<SecretBytes> =
        points.iter().map(|_| SecretBytes::new(Vec::with_capacity(secret.len() + 1))).collect();
    // coefficients[0] is the secret byte. The others are uniform: a top one that is never zero would leak.
    let mut coefficients = SecretBytes::new(vec![0; usize::from(threshold)]);
    for byte in secret {
        let coefficients = coefficients.expose_mut();
        random::fill(coefficients);
        coefficients[0] = *byte;
        for (part, x) in parts.iter_mut().zip(&points) {
            part.expose_mut().push(evaluate(coefficients, *x));
        }
    }
    for (part, x) in parts.iter_mut().zip(points) {
        part.expose_mut().push(x);
    }
    Ok(parts)
}

/// Combines shares into the secret. Fewer than the threshold, or a wrong share among them, give other
/// bytes without an error: the caller verifies the secret.
///
/// # Errors
/// When there are fewer than two shares, or their lengths or x values do not belong to one set.
pub fn combine(shares: &[&[u8]]) -> Result<SecretBytes, ShamirError> {
    let [first, _, ..] = shares else {
        return Err(ShamirError::TooFewShares);
    };
    let length = first.len().checked_sub(1).filter(|n| *n > 0).ok_or(ShamirError::ShareTooShort)?;
    if shares.iter().any(|share| share.len() != first.len()) {
        return Err(ShamirError::LengthsDiffer);
    }
    let points: Vec<u8> = shares.iter().map(|share| share[length]).collect();
    if points.contains(&0) {
        return Err(ShamirError::NotAShare);
    }
    if (1..points.len()).any(|i| points[..i].contains(&points[i])) {
        return Err(ShamirError::DuplicateShare);
    }
    // The Lagrange basis at 0 depends on the x values only, so it is computed once for all bytes.
    let basis: Vec<u8> = (0..points.len()).map(|i| basis_at_zero(&points, i)).collect();
    let secret = (0..length).map(|position| {
        let terms = shares.iter().zip(&basis).map(|(share, factor)| multiply(share[position], *factor));
        terms.fold(0, |sum, term| sum ^ term)
    });
    Ok(SecretBytes::new(secret.collect()))
}

/// `count` different non-zero x values in random order (they are not secret).
fn distinct_points(count: u8) -> Vec<u8> {
    let mut points: Vec<u8> = (1..=255).collect();
    for i in (1..points.len()).rev() {
        points.swap(i, below(i + 1));
    }
    points.truncate(usize::from(count));
    points
}

/// A uniform number below `bound`, which is at most 256.
fn below(bound: usize) -> usize {
    loop {
        let [byte] = random::bytes::<1>();
        if usize::from(byte) < fair(bound) {
            return usize::from(byte) % bound;
        }
    }
}

/// The largest multiple of `bound` up to 256: bytes from it on would favour the first numbers.
fn fair(bound: usize) -> usize {
    256 - 256 % bound
}

/// The value of the polynomial at `x`, by Horner's rule.
fn evaluate(coefficients: &[u8], x: u8) -> u8 {
    coefficients.iter().rev().fold(0, |sum, coefficient| multiply(sum, x) ^ coefficient)
}

/// The product over all other points of `x_j / (x_j - x_i)`.
fn basis_at_zero(points: &[u8], i: usize) -> u8 {
    let others = points.iter().enumerate().filter(|(j, _)| *j != i);
    others.fold(1, |product, (_, x)| multiply(product, multiply(*x, invert(x ^ points[i]))))
}

/// The product in GF(2^8), in constant time: masks instead of branches.
fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    for _ in 0..8 {
        product ^= a & (b & 1).wrapping_neg();
        let carry = (a >> 7).wrapping_neg();
        a = (a << 1) ^ (carry & 0x1b);
        b >>= 1;
    }
    product
}

/// The inverse in GF(2^8), a^254 by a fixed chain; 0 gives 0.
fn invert(a: u8) -> u8 {
    let square = |a| multiply(a, a);
    // 254 = 2 + 4 + 8 + 16 + 32 + 64 + 128
    let mut power = square(a);
    let mut product = power;
    for _ in 0..6 {
        power = square(power);
        product = multiply(product, power);
    }
    product
}

#[cfg(test)]
#[path = "shamir_tests.rs"]
mod tests;
