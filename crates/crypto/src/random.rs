//! The only source of randomness.
//!
//! Keys, tokens, nonces and ids come from the library's generator (CTR-DRBG of NIST SP 800-90A,
//! seeded from the operating system). Only [`request_id`], which names a request in the audit log
//! and protects nothing, comes from a faster generator.
//!
//! A call to that generator costs several times as much as sealing a small record. Nonces are public
//! once used, so they are drawn in blocks ([`fill_nonce`]).

use crate::locked::{Key256, Locked};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::cell::RefCell;

/// Bytes of a thread's block of nonces: random bytes; the last two count the bytes that are left.
const BLOCK_SIZE: usize = 1024;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Fills `out` with random bytes.
///
/// # Panics
/// When the operating system returns no randomness: nothing that follows would be safe.
pub fn fill(out: &mut [u8]) {
    assert!(aws_lc_rs::rand::fill(out).is_ok(), "no randomness from the operating system");
}

/// `N` random bytes.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    fill(&mut out);
    out
}

/// Fills `nonce` with random bytes that will be public, from a block that each thread keeps.
///
/// A forked process must never use the same nonce again, so the block is in memory that is zeroed in
/// the child and contains its own count: zero bytes left there.
///
/// # Panics
/// As [`fill`]; and when `nonce` is longer than 64 bytes.
pub fn fill_nonce(nonce: &mut [u8]) {
    thread_local! {
        static BLOCK: RefCell<Locked<BLOCK_SIZE>> = RefCell::new(Locked::zeroed());
    }
    assert!(nonce.len() <= 64, "a nonce has at most 64 bytes");
    BLOCK.with_borrow_mut(|block| {
        let (bytes, count) = block.expose_mut().split_at_mut(BLOCK_SIZE - 2);
        let mut left = usize::from(u16::from_be_bytes([count[0], count[1]]));
        if left < nonce.len() {
            fill(bytes);
            left = bytes.len();
        }
        left -= nonce.len();
        nonce.copy_from_slice(&bytes[left..left + nonce.len()]);
        // At most 1022, so two bytes are enough.
        count.copy_from_slice(&[left.to_le_bytes()[1], left.to_le_bytes()[0]]);
    });
}

/// `N` random bytes that will be public; see [`fill_nonce`].
#[must_use]
pub fn nonce<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    fill_nonce(&mut out);
    out
}

/// A new key of 256 bits, created in locked memory.
#[must_use]
pub fn key() -> Key256 {
    let mut key = Key256::zeroed();
    fill(key.expose_mut());
    key
}

/// A random UUID (version 4, RFC 9562), in lower case with hyphens.
#[must_use]
pub fn uuid() -> String {
    uuid_text(bytes())
}

/// `len` random digits and letters, each of the 62 equally likely: 5.95 bits a character.
#[must_use]
pub fn base62(len: usize) -> String {
    let mut out = String::with_capacity(len);
    let mut pool = [0; 64];
    while out.len() < len {
        fill(&mut pool);
        // 248 is the largest multiple of 62 in a byte; higher values would favour the first letters.
        let fair = pool.iter().filter(|byte| **byte < 248);
        out.extend(fair.take(len - out.len()).map(|byte| char::from(BASE62[usize::from(byte % 62)])));
    }
    zeroize::Zeroize::zeroize(&mut pool);
    out
}

/// A random number below `bound`, each equally likely.
///
/// # Panics
/// When `bound` is 0.
#[must_use]
pub fn below(bound: usize) -> usize {
    assert!(bound > 0, "no number is below 0");
    let bound = bound as u64;
    // Values above the largest multiple of the bound would favour the first numbers.
    let fair = u64::MAX - u64::MAX % bound;
    loop {
        let number = u64::from_le_bytes(bytes());
        if number < fair {
            return (number % bound) as usize;
        }
    }
}

/// A request id: a UUID from a fast generator. Do not use it where guessing must be impossible.
#[must_use]
pub fn request_id() -> String {
    thread_local! {
        static FAST: RefCell<ChaCha12Rng> = RefCell::new(ChaCha12Rng::from_seed(bytes()));
    }
    let mut out = [0; 16];
    FAST.with_borrow_mut(|generator| generator.fill_bytes(&mut out));
    uuid_text(out)
}

fn uuid_text(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digit = |nibble: u8| nibble + if nibble > 9 { b'a' - 10 } else { b'0' };
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = digit(byte >> 4);
        pair[1] = digit(byte & 15);
    }
    let mut text = [b'-'; 36];
    for (to, from) in [(0..8, 0..8), (9..13, 8..12), (14..18, 12..16), (19..23, 16..20), (24..36, 20..32)] {
        text[to].copy_from_slice(&digits[from]);
    }
    std::str::from_utf8(&text).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn is_uuid_v4(text: &str) -> bool {
        let groups: Vec<&str> = text.split('-').collect();
        groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
            && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f' | b'-'))
            && groups[2].starts_with('4')
            && groups[3].starts_with(['8', '9', 'a', 'b'])
    }

    #[test]
    fn uuids_have_their_form_and_differ() {
        assert_eq!(uuid_text([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid_text([0; 16]), "00000000-0000-4000-8000-000000000000");
        let many: HashSet<String> = (0..2_000).flat_map(|_| [uuid(), request_id()]).collect();
        assert_eq!(many.len(), 4_000);
        assert!(many.iter().all(|text| is_uuid_v4(text)));
    }

    #[test]
    fn request_ids_differ_between_threads() {
        let take = || (0..500).map(|_| request_id()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(take)).collect();
        let all: HashSet<String> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.len(), 2_000);
    }

    // Chi-square over the 62 characters; 120.6 is the 0.99999 quantile for 61 degrees of freedom.
    #[test]
    fn base62_is_uniform() {
        let text = base62(200_000);
        assert_eq!(text.len(), 200_000);
        let mut counts = [0_f64; 128];
        text.bytes().for_each(|c| counts[usize::from(c)] += 1.0);
        let expected = 200_000.0 / 62.0;
        let chi: f64 = BASE62.iter().map(|c| (counts[usize::from(*c)] - expected).powi(2) / expected).sum();
        assert!(chi < 121.0, "chi-square {chi}");
        assert_eq!(base62(0), "");
    }

    // Chi-square over 7 numbers; 35.9 is the 0.999997 quantile for 6 degrees of freedom.
    #[test]
    fn numbers_below_a_bound_are_uniform() {
        let mut counts = [0_f64; 7];
        (0..70_000).for_each(|_| counts[below(7)] += 1.0);
        let chi: f64 = counts.iter().map(|c| (c - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi < 35.9, "chi-square {chi}");
        assert_eq!(below(1), 0);
    }

    #[test]
    fn nonces_differ_within_and_between_blocks_and_threads() {
        let take =
            || (0..5_000).map(|i| if i % 3 == 0 { nonce::<24>()[..12].to_vec() } else { nonce::<12>().to_vec() });
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(move || take().collect::<Vec<_>>())).collect();
        let all: HashSet<Vec<u8>> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.len(), 20_000);
        assert!(!all.contains(&vec![0; 12]));
    }

    #[test]
    fn keys_differ() {
        assert_ne!(key().expose(), key().expose());
        assert_ne!(bytes::<32>(), [0; 32]);
    }
}
