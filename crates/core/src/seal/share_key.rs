//! The key that shares combine to: the unseal key, or the recovery key of a server with another seal.

use keepfast_crypto::compare;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_crypto::{random, shamir};
use keepfast_framework::{Error, Result};
use keepfast_storage::derive_key;

use super::shape::SealShape;

/// The purpose of the check value.
const CHECK: &[u8] = b"kf share check 2";

/// Creates a key and its shares.
pub(crate) fn generate(shape: SealShape) -> Result<(Key256, Vec<SecretBytes>)> {
    let key = random::key();
    // A single share is the key itself, as in OpenBao.
    let shares = if shape.shares == 1 {
        vec![SecretBytes::new(key.expose().to_vec())]
    } else {
        shamir::split(key.expose(), shape.shares, shape.threshold).map_err(Error::internal)?
    };
    Ok((key, shares))
}

/// The key of these shares; `None` when they do not combine.
pub(crate) fn combine(shape: SealShape, shares: &[SecretBytes]) -> Option<Key256> {
    match shares {
        [only] if shape.shares == 1 => Key256::from_slice(only.expose()),
        many => {
            let parts: Vec<&[u8]> = many.iter().map(|s| s.expose().as_slice()).collect();
            Key256::from_slice(shamir::combine(&parts).ok()?.expose())
        }
    }
}

/// A value by which a key is recognized. It shows nothing of a key of 256 random bits.
pub(crate) fn check_value(key: &Key256) -> String {
    hex::encode(derive_key(key, CHECK).expose())
}

/// Whether `check` is the check value of this key.
pub(super) fn has_check_value(key: &Key256, check: &str) -> bool {
    compare::equal(check_value(key).as_bytes(), check.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_quorum_of_shares_combines_and_fewer_do_not() {
        let shape = SealShape::new(5, 3).unwrap();
        let (key, shares) = generate(shape).unwrap();
        for (picked, combines) in [
            (&[0, 2, 4][..], true),
            (&[3, 1, 0], true),
            (&[0, 1, 2, 3, 4], true),
            (&[0, 1], false),
            (&[0], false),
            (&[1, 1, 1], false),
        ] {
            let picked: Vec<SecretBytes> = picked.iter().map(|i| shares[*i].clone()).collect();
            let combined = combine(shape, &picked).is_some_and(|found| found.expose() == key.expose());
            assert_eq!(combined, combines, "{} shares", picked.len());
        }
    }

    #[test]
    fn a_single_share_is_the_key() {
        let shape = SealShape::new(1, 1).unwrap();
        let (key, shares) = generate(shape).unwrap();
        assert!(shares.len() == 1 && shares[0].expose() == key.expose());
        assert!(combine(shape, &shares).unwrap().expose() == key.expose() && combine(shape, &[]).is_none());
    }

    #[test]
    fn a_check_value_belongs_to_one_key() {
        let (key, other) = (Key256::new([1; 32]), Key256::new([2; 32]));
        let check = check_value(&key);
        assert!(has_check_value(&key, &check) && !has_check_value(&other, &check));
        assert!(!has_check_value(&key, "") && !has_check_value(&key, &check[1..]));
    }
}
