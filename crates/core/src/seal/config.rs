//! The one plaintext record: how the root key is sealed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_crypto::{random, shamir};
use keepfast_framework::{Error, Result};
use keepfast_storage::{Backend, SealRecord};
use serde::{Deserialize, Serialize};

const CONTEXT: &[u8] = b"keepfast root key, sealed by shares";

/// How many shares there are and how many of them unseal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealShape {
    /// How many shares are handed out.
    pub(crate) shares: u8,
    /// How many of them unseal.
    pub(crate) threshold: u8,
}

impl SealShape {
    /// Checks what a caller asks for.
    pub(crate) fn new(shares: i64, threshold: i64) -> Result<Self> {
        Self::check(shares, threshold).map_err(|why| Error::invalid(format!("invalid seal configuration: {why}")))
    }

    /// Checks what a caller asks for; the error says why not, in the peer's words.
    ///
    /// Fails when no such shares can be made.
    pub(crate) fn check(shares: i64, threshold: i64) -> Result<Self, &'static str> {
        if shares < 1 {
            return Err("shares must be at least one");
        }
        if threshold < 1 {
            return Err("threshold must be at least one");
        }
        if shares > 1 && threshold == 1 {
            return Err("threshold must be greater than one for multiple shares");
        }
        if shares > 255 {
            return Err("shares must be less than 256");
        }
        if threshold > 255 {
            return Err("threshold must be less than 256");
        }
        if threshold > shares {
            return Err("threshold cannot be larger than shares");
        }
        Ok(SealShape { shares: shares as u8, threshold: threshold as u8 })
    }
}

/// The stored seal configuration. Nothing in it is secret: the root key in it is encrypted under the unseal key, which
/// is stored nowhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SealConfig {
    /// Version of this record.
    pub(crate) version: u32,
    /// `shamir`.
    pub(crate) custody: String,
    /// How many shares.
    pub(crate) shape: SealShape,
    /// The root key under the unseal key, base64.
    pub(crate) sealed_root: String,
    /// The cluster's name.
    pub(crate) cluster_name: String,
    /// The cluster's random id.
    pub(crate) cluster_id: String,
}

/// A root key that was just sealed.
pub(crate) struct Sealed {
    /// The record.
    pub(crate) config: SealConfig,
    /// What the record is sealed under.
    pub(crate) unseal_key: Key256,
    /// Its shares.
    pub(crate) shares: Vec<SecretBytes>,
}

impl SealConfig {
    /// The stored seal configuration; `None` when the storage is not initialised.
    pub(crate) async fn load(backend: &dyn Backend) -> Result<Option<Self>> {
        SealRecord::load(backend).await?.map(|bytes| Self::from_bytes(&bytes)).transpose()
    }

    /// Seals `root` under a fresh unseal key and hands out the shares of that.
    pub(crate) fn seal(root: &Key256, shape: SealShape, cluster_name: String, cluster_id: String) -> Result<Sealed> {
        let unseal_key = random::key();
        // One share is the key itself, as the peer has it.
        let shares = if shape.shares == 1 {
            vec![SecretBytes::new(unseal_key.expose().to_vec())]
        } else {
            shamir::split(unseal_key.expose(), shape.shares, shape.threshold).map_err(Error::internal)?
        };
        let config = SealConfig {
            version: 1,
            custody: "shamir".into(),
            shape,
            sealed_root: seal_under(&unseal_key, root),
            cluster_name,
            cluster_id,
        };
        Ok(Sealed { config, unseal_key, shares })
    }

    /// The same shares over another root key.
    #[must_use]
    pub(crate) fn over(&self, root: &Key256, unseal_key: &Key256) -> Self {
        SealConfig { sealed_root: seal_under(unseal_key, root), ..self.clone() }
    }

    /// The unseal key that these shares make; `None` when they make none. Whether it is the right one, only
    /// [`SealConfig::open`] tells.
    pub(crate) fn unseal_key(&self, shares: &[SecretBytes]) -> Option<Key256> {
        match shares {
            [only] if self.shape.shares == 1 => Key256::from_slice(only.expose()),
            many => {
                let parts: Vec<&[u8]> = many.iter().map(|s| s.expose().as_slice()).collect();
                Key256::from_slice(shamir::combine(&parts).ok()?.expose())
            }
        }
    }

    /// Opens the root key; `None` when this is not the unseal key.
    pub(crate) fn open(&self, unseal_key: &Key256) -> Result<Option<Key256>> {
        let sealed =
            STANDARD.decode(&self.sealed_root).map_err(|_| Error::internal("the sealed root key is not base64"))?;
        let Ok(root) = AeadKey::new(unseal_key).open(CONTEXT, &sealed) else { return Ok(None) };
        let root = SecretBytes::new(root);
        Ok(Key256::from_slice(root.expose()))
    }

    /// The record as stored.
    pub(crate) fn to_bytes(&self) -> Result<Bytes> {
        Ok(Bytes::from(serde_json::to_vec(self)?))
    }

    /// Reads the record.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

fn seal_under(unseal_key: &Key256, root: &Key256) -> String {
    STANDARD.encode(AeadKey::new(unseal_key).seal(CONTEXT, root.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_quorum_opens_and_fewer_do_not() {
        let root = random::key();
        let shape = SealShape::new(5, 3).unwrap();
        let Sealed { config, shares, .. } = SealConfig::seal(&root, shape, "c".into(), "id".into()).unwrap();
        let open = |picked: &[usize]| {
            let picked: Vec<SecretBytes> = picked.iter().map(|i| shares[*i].clone()).collect();
            let key = config.unseal_key(&picked);
            key.and_then(|k| config.open(&k).unwrap()).is_some_and(|k| k.expose() == root.expose())
        };
        assert!(open(&[0, 2, 4]) && open(&[3, 1, 0]) && open(&[0, 1, 2, 3, 4]));
        assert!(!open(&[0, 1]));
        assert!(!open(&[0]));
        let single = SealConfig::seal(&root, SealShape::new(1, 1).unwrap(), "c".into(), "id".into()).unwrap();
        let key = single.config.unseal_key(&single.shares).unwrap();
        assert!(single.config.open(&key).unwrap().is_some());
        assert!(single.config.unseal_key(&shares[..1]).is_none());
        // The same shares over another root key.
        let other = random::key();
        let moved = single.config.over(&other, &key);
        assert!(moved.open(&key).unwrap().is_some_and(|k| k.expose() == other.expose()));
    }

    #[test]
    fn shapes_are_judged_as_the_peer_judges_them() {
        let text = |s, t| SealShape::new(s, t).err().map(|e| e.public().to_owned());
        assert_eq!(text(5, 3), None);
        assert_eq!(text(1, 0).as_deref(), Some("invalid seal configuration: threshold must be at least one"));
        assert_eq!(text(1, 2).as_deref(), Some("invalid seal configuration: threshold cannot be larger than shares"));
        assert_eq!(
            text(2, 1).as_deref(),
            Some("invalid seal configuration: threshold must be greater than one for multiple shares")
        );
    }
}
