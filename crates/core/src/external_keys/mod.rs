//! External keys: configs of other systems, keys in them, and grants by which a mount uses a key (`sys/external-keys`).
//!
//! | file | contents |
//! |---|---|
//! | `record.rs` | the stored configs and keys, and the values of their parameters |
//! | `parameters.rs` | checks parameters against those of the plugin; what a read returns |
//! | `connections.rs` | the open connections; limits and deadlines of their calls |

pub(crate) mod connections;
pub(crate) mod parameters;
pub(crate) mod record;

use std::sync::Arc;

use keepfast_framework::external_key::{ExternalKey, ExternalKeyPlugin, ExternalKeyPlugins, FoundPlugin};
use keepfast_framework::fields::Quoted;
use keepfast_framework::mount::MountInfo;
use keepfast_framework::rows::is_name;
use keepfast_framework::{Clock, Error, Result};
use keepfast_storage::{Barrier, ReadTx, View};

use crate::invalidation::{CacheOwner, CommittedChange};
use connections::Connections;
use record::{CONFIGS, ConfigRecord, KEYS, KeyRecord, key_name};

/// The external keys of the server.
pub(crate) struct ExternalKeys {
    barrier: Arc<Barrier>,
    /// The view of the records.
    system: View,
    /// `None` on a server without plugins.
    plugins: Option<Arc<dyn ExternalKeyPlugins>>,
    connections: Connections,
}

impl ExternalKeys {
    pub(crate) fn new(
        barrier: Arc<Barrier>,
        system: View,
        plugins: Option<Arc<dyn ExternalKeyPlugins>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        ExternalKeys { barrier, system, plugins, connections: Connections::new(clock) }
    }

    /// The plugin of this name.
    ///
    /// # Errors
    /// The text why there is none.
    pub(crate) fn plugin(&self, name: &str) -> Result<Arc<dyn ExternalKeyPlugin>, String> {
        match self.plugins.as_ref().map_or(FoundPlugin::Unknown, |plugins| plugins.find(name)) {
            FoundPlugin::Plugin(plugin) => Ok(plugin),
            FoundPlugin::Unsupported => Err(format!("plugin {} does not support external keys", Quoted(name))),
            FoundPlugin::Unknown => Err(format!("unknown plugin: {name}")),
        }
    }

    /// Checks that `CONFIG:KEY` exists and is granted to a mount.
    ///
    /// # Errors
    /// 400 with the reason; when storage fails.
    pub(crate) async fn check(&self, tx: &mut ReadTx, mount: &MountInfo, reference: &str) -> Result<Granted> {
        let (config, key) = split(reference)?;
        let missing = || Error::invalid(format!("key {} does not exist", Quoted(reference)));
        let config_record = CONFIGS.get_in(tx, &self.system, config).await?.ok_or_else(missing)?;
        let key_record = KEYS.get_in(tx, &self.system, &key_name(config, key)).await?.ok_or_else(missing)?;
        if !key_record.is_granted(&mount.path, &mount.uuid) {
            let (mount, key) = (Quoted(&mount.path), Quoted(reference));
            return Err(Error::invalid(format!("mount {mount} is missing grant for key {key}")));
        }
        Ok(Granted { config: config.to_owned(), key: key.to_owned(), config_record, key_record })
    }

    /// The key `CONFIG:KEY` for the calls of a mount, if it is granted to it.
    ///
    /// # Errors
    /// As for [`check`](Self::check); 400 when the stored parameters are invalid.
    pub(crate) async fn open(&self, mount: &MountInfo, reference: &str) -> Result<Arc<dyn ExternalKey>> {
        let read_in = self.connections.epoch();
        // Not in the transaction of the request: the calls of the key take long.
        let granted = self.check(&mut self.barrier.begin_read(), mount, reference).await?;
        let plugin = self.plugin(&granted.config_record.plugin).map_err(Error::invalid)?;
        self.connections.open_key(&plugin, &granted, read_in).await
    }
}

/// A key that a mount may use.
pub(crate) struct Granted {
    config: String,
    key: String,
    config_record: ConfigRecord,
    key_record: KeyRecord,
}

/// The config and the key of a reference.
fn split(reference: &str) -> Result<(&str, &str)> {
    let parts = reference.split_once(':').filter(|(config, key)| is_name(config) && is_name(key));
    parts.ok_or_else(|| Error::invalid("invalid key reference: must be \"<config name>:<key name>\""))
}

impl CacheOwner for ExternalKeys {
    /// Closes the connection of a config that was changed or deleted, so that its credentials leave memory.
    fn applied(&self, change: &CommittedChange<'_>) {
        self.connections.close(change.key);
    }

    fn drop_stale(&self, _: &CommittedChange<'_>) -> bool {
        self.connections.close_all();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_the_name_of_a_config_and_of_a_key() {
        for (reference, expected) in [
            ("c:k", Some(("c", "k"))),
            ("my-hsm:a.b", Some(("my-hsm", "a.b"))),
            ("c", None),
            (":", None),
            ("c:", None),
            ("c:a:b", None),
            ("c/d:k", None),
            ("../c:k", None),
            ("", None),
        ] {
            assert_eq!(split(reference).ok(), expected, "{reference}");
        }
    }
}
