//! Services of core for engines, in addition to storage and leases.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use keepfast_crypto::secret::SecretString;
use keepfast_storage::Tx;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::external_key::ExternalKey;
use crate::mount::MountInfo;

/// The implementation of [`crate::Cx::password`], [`crate::Cx::leased`] and [`crate::Cx::external_key`] in core.
#[async_trait]
pub trait Services: Send + Sync {
    /// Generates a password by a policy of `sys/policies/password`.
    ///
    /// # Errors
    /// 400 when there is no such policy; when storage fails.
    async fn password(&self, tx: &mut Tx, policy: &str) -> Result<SecretString>;

    /// Applies `extract` to the data that engines of one type stored with their leases, for all their mounts and leases in
    /// any state, and returns the results.
    ///
    /// # Errors
    /// When storage fails, or when a record cannot be read: the set of leases is then unknown.
    async fn leased(&self, engine: &str, extract: Extract<'_>) -> Result<Vec<String>>;

    /// The directories that may contain the local files and sockets named in the settings of a database connection.
    /// None by default.
    fn file_directories(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Checks in a transaction that `CONFIG:KEY` exists and is granted to a mount. Sends nothing.
    ///
    /// # Errors
    /// 400 when the mount may not use the key; when storage fails.
    async fn check_external_key(&self, _tx: &mut Tx, _mount: &MountInfo, _reference: &str) -> Result<()> {
        Err(Error::invalid(NO_EXTERNAL_KEYS))
    }

    /// The external key `CONFIG:KEY`, if it is granted to a mount.
    ///
    /// # Errors
    /// As for [`check_external_key`](Self::check_external_key).
    async fn external_key(&self, _mount: &MountInfo, _reference: &str) -> Result<Arc<dyn ExternalKey>> {
        Err(Error::invalid(NO_EXTERNAL_KEYS))
    }
}

/// The error of a context without external keys.
const NO_EXTERNAL_KEYS: &str = "there are no external keys";

/// Extracts a value from the data that an engine stored with a lease.
pub type Extract<'a> = &'a (dyn Fn(&Value) -> Option<String> + Send + Sync);
