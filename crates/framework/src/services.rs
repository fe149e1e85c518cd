//! What core does for engines beyond storage and leases.

use std::path::PathBuf;

use async_trait::async_trait;
use keepfast_crypto::secret::SecretString;
use keepfast_storage::Tx;
use serde_json::Value;

use crate::error::Result;

/// Core's side of [`crate::Cx::password`] and [`crate::Cx::leased`].
#[async_trait]
pub trait Services: Send + Sync {
    /// A password after a policy of `sys/policies/password`.
    ///
    /// # Errors
    /// 400 when there is no such policy; when storage fails.
    async fn password(&self, tx: &mut Tx, policy: &str) -> Result<SecretString>;

    /// What `pick` takes of what engines of one type stored with their leases, of all their mounts and in whatever state a
    /// lease is.
    ///
    /// # Errors
    /// When storage fails, or when a record cannot be read: then what is leased is not known.
    async fn leased(&self, engine: &str, pick: Pick<'_>) -> Result<Vec<String>>;

    /// The directories below which the settings of a database connection may name local files and sockets. None by default.
    fn file_directories(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// Takes something of what an engine stored with a lease.
pub type Pick<'a> = &'a (dyn Fn(&Value) -> Option<String> + Send + Sync);
