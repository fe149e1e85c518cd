//! The storage of a server, opened as its configuration demands.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keepfast_storage::{Backend, LocalBackend, LocalOptions, MemoryBackend, StorageError};

use crate::config::Storage;

/// Opens the storage. Returns it with the random name of its data directory if it has one.
pub(crate) fn open_storage(
    storage: Storage,
    election: Duration,
) -> Result<(Arc<dyn Backend>, Option<String>), StorageError> {
    let Some((path, options)) = local_options(storage, election) else {
        return Ok((Arc::new(MemoryBackend::new()), None));
    };
    let backend = LocalBackend::open(&path, options)?;
    let incarnation = backend.incarnation().to_owned();
    Ok((Arc::new(backend), Some(incarnation)))
}

/// The directory of a storage and how it is opened; `None` for one in memory.
fn local_options(storage: Storage, election: Duration) -> Option<(PathBuf, LocalOptions)> {
    match storage {
        Storage::Raft { path, node_id } => {
            let node_id = Some(node_id).filter(|name| !name.is_empty());
            Some((path, LocalOptions { node_id, clustered: true, election, ..LocalOptions::default() }))
        }
        Storage::File { path } => Some((path, LocalOptions::default())),
        Storage::InMemory => None,
    }
}

/// The identity of the data directory, which differs for a copy: inode and creation time of its lock file. Restoring or
/// copying the directory creates another file; mounting its volume elsewhere does not.
pub(crate) fn directory_identity(storage: &Storage) -> Option<String> {
    let (Storage::Raft { path, .. } | Storage::File { path }) = storage else { return None };
    let lock = std::fs::metadata(path.join("LOCK")).ok()?;
    let created = lock.created().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
    Some(format!("{}-{}", lock.ino(), created.as_nanos()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{self, Environment};

    #[test]
    fn performance_multiplier_is_the_election_timeout_of_the_storage() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.hcl");
        for (setting, millis) in [("", 600), ("performance_multiplier = 1", 300), ("performance_multiplier = 10", 3000)]
        {
            let storage = format!("storage \"raft\" {{\n path = \"/d\"\n node_id = \"n\"\n {setting}\n}}\n");
            std::fs::write(&file, storage + "listener \"tcp\" { tls_disable = 1 }\n").unwrap();
            let (config, _) = config::load(std::slice::from_ref(&file), &Environment::of(&[])).unwrap();
            let (path, options) = local_options(config.storage, config.raft.election).unwrap();
            assert_eq!((path.to_str(), options.node_id.as_deref(), options.clustered), (Some("/d"), Some("n"), true));
            assert_eq!(options.election, Duration::from_millis(millis), "{setting}");
        }
    }
}
