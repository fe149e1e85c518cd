//! The one plaintext record: how the root key is sealed.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::{Error, Result};
use keepfast_storage::{Backend, SealRecord};
use serde::{Deserialize, Serialize};

use super::{Seal, SealError, SealKind, Wrapped};

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

    /// Checks what a caller asks for; the error says why not, in OpenBao's words.
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

/// The stored seal configuration. Nothing in it is secret: the root key in it is wrapped by the seal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SealConfig {
    /// Version of this record.
    pub(crate) version: u32,
    /// The type of the seal.
    #[serde(rename = "custody")]
    pub(crate) kind: SealKind,
    /// How many shares.
    pub(crate) shape: SealShape,
    /// The root key as the seal has wrapped it, base64.
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

    /// The same with another root key, or another seal.
    pub(crate) async fn rewrapped(&self, seal: &dyn Seal, root: &Key256) -> Result<Self> {
        let sealed_root = wrap(seal, root).await?;
        Ok(SealConfig { kind: seal.kind(), sealed_root, ..self.clone() })
    }

    /// The seal with the key that these shares make; `None` when they make none.
    pub(crate) fn seal_from(&self, shares: &[SecretBytes]) -> Option<Arc<dyn Seal>> {
        self.kind.from_shares(self.shape, shares)
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

    #[test]
    fn shapes_are_refused_as_openbao_refuses_them() {
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
