//! Tests of Shamir's secret sharing: the field, the distribution, shares of OpenBao.

use super::*;
use proptest::prelude::*;

/// Schoolbook multiplication: the carry-less product, then long division by 0x11b.
fn naive_multiply(a: u8, b: u8) -> u8 {
    let mut product = 0_u16;
    for bit in 0..8 {
        if b & (1 << bit) != 0 {
            product ^= u16::from(a) << bit;
        }
    }
    for bit in (8..16).rev() {
        if product & (1 << bit) != 0 {
            product ^= 0x11b << (bit - 8);
        }
    }
    u8::try_from(product).unwrap()
}

#[test]
fn sec_cs01_field_equals_the_naive_reference() {
    for a in 0..=255 {
        for b in 0..=255 {
            assert_eq!(multiply(a, b), naive_multiply(a, b), "{a} * {b}");
        }
        let inverse = (0..=255).find(|b| naive_multiply(a, *b) == 1).unwrap_or(0);
        assert_eq!(invert(a), inverse, "1 / {a}");
    }
}

/// Chi-square of byte counts against the uniform distribution.
fn chi_square(counts: &[u32; 256]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
    counts.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum()
}

// Every byte of a share is `secret + c1 x + ... + ck x^k` with x != 0, so the shares of a constant are
// uniform if and only if the coefficients are; with threshold 2 the top coefficient is the only one.
// 358 is the 0.99999 quantile for 255 degrees of freedom.
#[test]
fn sec_cs02_coefficients_are_uniform() {
    for threshold in [2, 3] {
        let mut counts = [0_u32; 256];
        for share in split(&vec![0xa5; 100_000], 3, threshold).unwrap() {
            let bytes = share.expose();
            let x = bytes[bytes.len() - 1];
            for y in &bytes[..bytes.len() - 1] {
                counts[usize::from(multiply(y ^ 0xa5, invert(x)))] += 1;
            }
            // One share at a time: the shares of one byte depend on each other.
            assert!(chi_square(&counts) < 358.0, "threshold {threshold}: {}", chi_square(&counts));
            counts = [0; 256];
        }
    }
}

// With one share fixed, exactly one coefficient explains each secret: the share reveals nothing.
#[test]
fn sec_cs02_fewer_shares_reveal_nothing() {
    for x in 1..=255 {
        let mut seen = [false; 256];
        for coefficient in 0..=255 {
            seen[usize::from(evaluate(&[0, coefficient], x))] = true;
        }
        assert!(seen.iter().all(|hit| *hit), "x = {x}");
    }
}

#[test]
fn points_are_distinct_non_zero_and_reach_every_value() {
    let mut all = distinct_points(255);
    all.sort_unstable();
    assert_eq!(all, (1..=255).collect::<Vec<u8>>());
    let mut firsts = [0_u32; 256];
    (0..25_500).for_each(|_| firsts[usize::from(distinct_points(1)[0])] += 1);
    assert_eq!(firsts[0], 0);
    assert!(firsts[1..].iter().all(|n| *n > 40), "{firsts:?}");
}

// `bao operator init -key-shares=5 -key-threshold=3` of a running OpenBao 2.7.2.
const OPENBAO: [&str; 5] = [
    "20727921251d657c7dd2328401dc9508adddc0188e1441aef01e516bd2ffa52331",
    "11e2c5b68c68af1ed1f4a275676b0395e689fe507e95b93c6644d8313aa5cb0851",
    "4eb2505e1fac3b837472af4ac3238f59a9cf1b1d4ed439947e2b476704a17b24ac",
    "708c2ffa8572a3b88396617928219a6c048876cbc0535c331c2c35aa13aaec3741",
    "b8962d697039925aacc7c91aafc0c44b0baeef7d1c1e24a2f85d01f1bfa97f9b1d",
];

#[test]
fn combines_shares_of_openbao() {
    let shares: Vec<Vec<u8>> = OPENBAO.iter().map(|share| hex::decode(share).unwrap()).collect();
    let mut keys = Vec::new();
    for a in 0..5 {
        for b in a + 1..5 {
            for c in b + 1..5 {
                keys.push(combine(&[&shares[c], &shares[a], &shares[b]]).unwrap().expose().clone());
            }
        }
    }
    assert_eq!(keys.len(), 10);
    assert_eq!(keys[0].len(), 32);
    assert!(keys.iter().all(|key| key == &keys[0]));
    assert_ne!(combine(&[&shares[0], &shares[1]]).unwrap().expose(), &keys[0]);
}

#[test]
fn refuses_invalid_shares_and_thresholds() {
    let refused = |secret: &[u8], shares, threshold| split(secret, shares, threshold).err().unwrap();
    assert_eq!(refused(b"", 3, 2), ShamirError::EmptySecret);
    assert_eq!(refused(b"x", 3, 1), ShamirError::ThresholdTooLow);
    assert_eq!(refused(b"x", 3, 0), ShamirError::ThresholdTooLow);
    assert_eq!(refused(b"x", 2, 3), ShamirError::FewerSharesThanThreshold);
    let wrong = |shares: &[&[u8]]| combine(shares).err().unwrap();
    assert_eq!(wrong(&[]), ShamirError::TooFewShares);
    assert_eq!(wrong(&[b"ab"]), ShamirError::TooFewShares);
    assert_eq!(wrong(&[b"", b""]), ShamirError::ShareTooShort);
    assert_eq!(wrong(&[b"a", b"b"]), ShamirError::ShareTooShort);
    assert_eq!(wrong(&[b"ab", b"abc"]), ShamirError::LengthsDiffer);
    assert_eq!(wrong(&[b"ab", b"cd", b"eb"]), ShamirError::DuplicateShare);
    assert_eq!(wrong(&[b"ab", b"c\0"]), ShamirError::NotAShare);
}

proptest! {
    #[test]
    fn any_threshold_of_shares_combines_to_the_secret(
        secret in prop::collection::vec(any::<u8>(), 1..70),
        (shares, threshold) in (2_u8..=40).prop_flat_map(|n| (Just(n), 2..=n)),
        seed in any::<u64>(),
    ) {
        let mut parts = split(&secret, shares, threshold).unwrap();
        prop_assert_eq!(parts.len(), usize::from(shares));
        prop_assert!(parts.iter().all(|part| part.expose().len() == secret.len() + 1));
        // A cheap permutation by the seed: the choice and order of shares must not matter.
        for i in (1..parts.len()).rev() {
            let j = usize::try_from((seed >> (i % 32)) % (i as u64 + 1)).unwrap();
            parts.swap(i, j);
        }
        let quorum: Vec<&[u8]> = parts.iter().take(usize::from(threshold)).map(|part| part.expose().as_slice()).collect();
        prop_assert!(combine(&quorum).unwrap().expose() == &secret);
        let all: Vec<&[u8]> = parts.iter().map(|part| part.expose().as_slice()).collect();
        prop_assert!(combine(&all).unwrap().expose() == &secret);
    }

    #[test]
    fn combine_never_panics(shares in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..6)) {
        let shares: Vec<&[u8]> = shares.iter().map(Vec::as_slice).collect();
        let _ = combine(&shares);
    }
}

#[test]
fn splits_into_255_shares() {
    let parts = split(b"wide", 255, 255).unwrap();
    let shares: Vec<&[u8]> = parts.iter().map(|part| part.expose().as_slice()).collect();
    assert_eq!(combine(&shares).unwrap().expose(), b"wide");
}

#[test]
fn random_numbers_are_taken_from_a_multiple_of_their_bound() {
    for (bound, multiple) in [(1, 256), (3, 255), (200, 200), (255, 255), (256, 256)] {
        assert_eq!(fair(bound), multiple);
    }
}
