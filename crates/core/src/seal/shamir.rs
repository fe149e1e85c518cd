//! The seal `shamir`: the root key is encrypted under an unseal key, which is split into shares (Shamir's secret
//! sharing) and never stored.

use async_trait::async_trait;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_crypto::{random, shamir};
use keepfast_framework::{Error, Result};

use super::kind::SealKind;
use super::shape::SealShape;
use super::wrap::{Seal, SealError, Wrapped};

/// The associated data of each wrapped key. Stored data depends on it.
const CONTEXT: &[u8] = b"keepfast root key, sealed by shares";

/// The seal with the unseal key of a quorum.
pub(super) struct Shamir {
    unseal_key: Key256,
}

impl Shamir {
    /// Creates an unseal key and its shares.
    pub(super) fn generate(shape: SealShape) -> Result<(Self, Vec<SecretBytes>)> {
        let unseal_key = random::key();
        // A single share is the key itself, as in OpenBao.
        let shares = if shape.shares == 1 {
            vec![SecretBytes::new(unseal_key.expose().to_vec())]
        } else {
            shamir::split(unseal_key.expose(), shape.shares, shape.threshold).map_err(Error::internal)?
        };
        Ok((Shamir { unseal_key }, shares))
    }

    /// The unseal key of these shares; `None` when they do not combine.
    pub(super) fn from_shares(shape: SealShape, shares: &[SecretBytes]) -> Option<Self> {
        let unseal_key = match shares {
            [only] if shape.shares == 1 => Key256::from_slice(only.expose()),
            many => {
                let parts: Vec<&[u8]> = many.iter().map(|s| s.expose().as_slice()).collect();
                Key256::from_slice(shamir::combine(&parts).ok()?.expose())
            }
        };
        unseal_key.map(|unseal_key| Shamir { unseal_key })
    }

    /// The seal with this unseal key; `None` for bytes of another length.
    pub(super) fn from_key(key: &SecretBytes) -> Option<Self> {
        Key256::from_slice(key.expose()).map(|unseal_key| Shamir { unseal_key })
    }
}

#[async_trait]
impl Seal for Shamir {
    fn kind(&self) -> SealKind {
        SealKind::Shamir
    }

    async fn wrap(&self, key: &Key256) -> Result<Wrapped, SealError> {
        Ok(Wrapped(AeadKey::new(&self.unseal_key).seal(CONTEXT, key.expose())))
    }

    async fn unwrap(&self, wrapped: &Wrapped) -> Result<Key256, SealError> {
        let key = AeadKey::new(&self.unseal_key).open(CONTEXT, &wrapped.0).map_err(|_| SealError::WrongKey)?;
        Key256::from_slice(SecretBytes::new(key).expose()).ok_or(SealError::NoKey)
    }

    fn key(&self) -> SecretBytes {
        SecretBytes::new(self.unseal_key.expose().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::seal::suite::seal_suite;

    seal_suite!(shamir_seal, || {
        let (seal, _) = Shamir::generate(SealShape { shares: 3, threshold: 2 }).unwrap();
        Arc::new(seal)
    });

    #[tokio::test]
    async fn any_quorum_of_shares_combines_and_fewer_do_not() {
        let root = random::key();
        let shape = SealShape::new(5, 3).unwrap();
        let (seal, shares) = Shamir::generate(shape).unwrap();
        let wrapped = seal.wrap(&root).await.unwrap();
        for (picked, opens) in [
            (&[0, 2, 4][..], true),
            (&[3, 1, 0], true),
            (&[0, 1, 2, 3, 4], true),
            (&[0, 1], false),
            (&[0], false),
            (&[1, 1, 1], false),
        ] {
            let picked: Vec<SecretBytes> = picked.iter().map(|i| shares[*i].clone()).collect();
            let opened = match Shamir::from_shares(shape, &picked) {
                Some(seal) => seal.unwrap(&wrapped).await.is_ok_and(|key| key.expose() == root.expose()),
                None => false,
            };
            assert_eq!(opened, opens, "{} shares", picked.len());
        }
    }

    #[tokio::test]
    async fn a_single_share_is_the_unseal_key() {
        let shape = SealShape::new(1, 1).unwrap();
        let (seal, shares) = Shamir::generate(shape).unwrap();
        assert!(shares.len() == 1 && shares[0].expose() == seal.unseal_key.expose());
        let wrapped = seal.wrap(&random::key()).await.unwrap();
        assert!(Shamir::from_shares(shape, &shares).unwrap().unwrap(&wrapped).await.is_ok());
        assert!(Shamir::from_shares(shape, &[]).is_none());
    }

    /// The unseal key is 00 01 … 1f, the root key 20 21 … 3f, the nonce 64 65 … 6f.
    #[tokio::test]
    async fn the_stored_form_of_the_wrapped_key_stays_readable() {
        let unseal_key = Key256::from_slice(&(0..32).collect::<Vec<u8>>()).unwrap();
        let stored = hex::decode(STORED).unwrap();
        let root = Shamir { unseal_key }.unwrap(&Wrapped(stored)).await.unwrap();
        assert_eq!(root.expose().as_slice(), (32..64).collect::<Vec<u8>>());
    }

    const STORED: &str = "6465666768696a6b6c6d6e6f683afc455dcc70b9164b75c3f64844d272f33439bf59c5459fe89673c79e9b773a1d059d5aa1aacf3f2c3545eaa39ed4";
}
