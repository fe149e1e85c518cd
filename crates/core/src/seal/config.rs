//! The seal configuration, the only plaintext record of the storage: the shares, and the root key wrapped by the seal.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::{Error, Result};
use keepfast_storage::{Backend, SealRecord};
use serde::{Deserialize, Serialize};

use super::by_shares;
use super::kind::SealKind;
use super::shape::SealShape;
use super::wrap::{Seal, SealError, Wrapped};

/// The stored seal configuration. Nothing in it is secret: the root key in it is wrapped by the seal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SealConfig {
    /// Version of this record.
    pub(crate) version: u32,
    /// The type of the seal. Records have it under its first name, `custody`.
    #[serde(rename = "custody")]
    pub(crate) kind: SealKind,
    /// The number of shares and the threshold.
    pub(crate) shape: SealShape,
    /// The wrapped root key, base64.
    pub(crate) sealed_root: String,
    /// The cluster's name.
    pub(crate) cluster_name: String,
    /// The cluster's random id.
    pub(crate) cluster_id: String,
}

impl SealConfig {
    /// The stored seal configuration; `None` when the storage is not initialised.
    pub(crate) async fn load(backend: &dyn Backend) -> Result<Option<Self>> {
        SealRecord::load(backend).await?.map(|bytes| Self::from_bytes(&bytes)).transpose()
    }

    /// The record of a cluster whose root key `seal` wraps.
    pub(crate) async fn new(
        seal: &dyn Seal,
        root: &Key256,
        shape: SealShape,
        cluster_name: String,
        cluster_id: String,
    ) -> Result<Self> {
        let sealed_root = wrap(seal, root).await?;
        Ok(SealConfig { version: 1, kind: seal.kind(), shape, sealed_root, cluster_name, cluster_id })
    }

    /// A copy with another root key, or another seal.
    pub(crate) async fn rewrapped(&self, seal: &dyn Seal, root: &Key256) -> Result<Self> {
        let sealed_root = wrap(seal, root).await?;
        Ok(SealConfig { kind: seal.kind(), sealed_root, ..self.clone() })
    }

    /// The seal with the key of these shares; `None` when they do not combine.
    pub(crate) fn seal_from(&self, shares: &[SecretBytes]) -> Option<Arc<dyn Seal>> {
        by_shares::from_shares(self.kind, self.shape, shares)
    }

    /// Unwraps the root key; `None` when it was not wrapped under the key of this seal.
    pub(crate) async fn unwrap(&self, seal: &dyn Seal) -> Result<Option<Key256>> {
        let sealed =
            STANDARD.decode(&self.sealed_root).map_err(|_| Error::internal("the sealed root key is not base64"))?;
        match seal.unwrap(&Wrapped(sealed)).await {
            Ok(root) => Ok(Some(root)),
            Err(SealError::WrongKey) => Ok(None),
            Err(error) => Err(error.into()),
        }
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

async fn wrap(seal: &dyn Seal, root: &Key256) -> Result<String> {
    Ok(STANDARD.encode(seal.wrap(root).await?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_record_keeps_its_form() {
        let stored = r#"{"version":1,"custody":"shamir","shape":{"shares":3,"threshold":2},"sealed_root":"AAAA","cluster_name":"c","cluster_id":"i"}"#;
        let config = SealConfig::from_bytes(stored.as_bytes()).unwrap();
        assert_eq!((config.kind, config.shape), (SealKind::Shamir, SealShape { shares: 3, threshold: 2 }));
        assert_eq!(config.to_bytes().unwrap(), stored);
        assert!(SealConfig::from_bytes(stored.replace("shamir", "other").as_bytes()).is_err());
    }
}
