//! The development server: initialised, unsealed and with a mount, in one call.

use std::collections::BTreeMap;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Kind, Result};

use crate::init::{self, Initialized};
use crate::node::Node;
use crate::seal::SealShape;

/// The mount of a development server.
pub struct DevMount {
    /// The path with its final slash.
    pub path: &'static str,
    /// The type of the secrets engine.
    pub engine: &'static str,
    /// The value of its option `version`.
    pub version: &'static str,
    /// Its description in `sys/mounts`.
    pub description: &'static str,
}

/// Initialises and unseals a development server with one share, and mounts an engine.
///
/// # Errors
/// When storage fails, and with 400 for an engine that this server does not have.
pub async fn init_dev(node: &Node, root_token: Option<SecretString>, mount: Option<DevMount>) -> Result<Initialized> {
    let server = &node.lifecycle;
    let made = init::initialize(server, Some(SealShape { shares: 1, threshold: 1 }), root_token, Ok).await?;
    server.unseal(&made.shares).await?;
    if let (Some(mount), Some(unsealed)) = (mount, server.unsealed()) {
        let options = BTreeMap::from([("version".to_owned(), mount.version.to_owned())]);
        let mut entry = unsealed.engines.mounts.entry(Kind::Secrets, mount.path, mount.engine, Some(options))?;
        entry.description = mount.description.to_owned();
        unsealed.engines.changes.mount(entry).await?;
    }
    Ok(made)
}
