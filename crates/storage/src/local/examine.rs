//! Reads a data directory without a change, for a check before a start.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;

use redb::{DatabaseError, ReadOnlyDatabase, StorageError as TreeError};
use rustix::fs::{FlockOperation, flock};

use super::{layout, state};
use crate::StorageError;

/// The state of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Examined {
    /// It is missing or empty: the first start creates it.
    New,
    /// A process uses it.
    InUse,
    /// It can be opened.
    Closed,
    /// It can be opened; its last process has not closed it, and the next start replays more of the log.
    NotClosed,
    /// It has the format of earlier versions, and the next start upgrades it.
    Earlier,
}

/// Examines a directory. `node_id` is the configured name of the node, if it has one.
///
/// # Errors
/// As for [`LocalBackend::open`](super::LocalBackend::open), except that a process may use it. The log is not read.
pub fn examine(path: &Path, node_id: Option<&str>) -> Result<Examined, StorageError> {
    let failed = |what: &str| {
        let what = format!("{what} in {}", path.display());
        move |error: io::Error| StorageError::io(what, error)
    };
    let Some(mut meta) = existing(&path.join(layout::META)).map_err(failed("open meta.json"))? else {
        return match path.join(state::FILE).exists() {
            true => Err(StorageError::Layout("it has data, but meta.json is missing".into())),
            false => Ok(Examined::New),
        };
    };
    let mut text = Vec::new();
    meta.read_to_end(&mut text).map_err(failed("read meta.json"))?;
    let layout = layout::parse(&text)?;
    layout.check_node_id(node_id)?;
    // The lock ends with the file.
    let lock = existing(&path.join("LOCK")).map_err(failed("open LOCK"))?;
    if let Some(lock) = &lock {
        match flock(lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Examined::InUse),
            Err(error) => return Err(failed("lock LOCK")(error.into())),
        }
    }
    if layout.needs_upgrade() {
        return Ok(Examined::Earlier);
    }
    let tree = path.join(state::FILE);
    if !tree.exists() {
        return Ok(Examined::NotClosed);
    }
    // The server writes to it: a file that it cannot write to is found here.
    OpenOptions::new().read(true).write(true).open(&tree).map_err(failed("open state.redb"))?;
    match ReadOnlyDatabase::open(&tree) {
        Ok(_) => Ok(Examined::Closed),
        Err(DatabaseError::RepairAborted) => Ok(Examined::NotClosed),
        Err(DatabaseError::Storage(TreeError::Io(error))) => Err(failed("open state.redb")(error)),
        Err(error) => Err(StorageError::corrupt(format!("state.redb: {error}"))),
    }
}

fn existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LocalBackend, LocalOptions};
    use super::*;

    #[test]
    fn a_directory_is_examined_without_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        assert_eq!(examine(&path, None).unwrap(), Examined::New);
        assert!(!path.exists());
        let named = || LocalOptions { node_id: Some("a".into()), ..LocalOptions::default() };
        let backend = LocalBackend::open(&path, named()).unwrap();
        assert_eq!(examine(&path, Some("a")).unwrap(), Examined::InUse);
        backend.close();
        drop(backend);
        let names = || {
            let entries = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap());
            let mut names: Vec<_> = entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().len())).collect();
            names.sort();
            names
        };
        let before = names();
        assert_eq!(examine(&path, Some("a")).unwrap(), Examined::Closed);
        assert_eq!(examine(&path, None).unwrap(), Examined::Closed);
        assert!(examine(&path, Some("b")).unwrap_err().to_string().contains("belongs to node 'a'"));
        assert_eq!(names(), before);
        assert!(LocalBackend::open(&path, named()).is_ok(), "it is not locked any more");
    }

    #[test]
    fn damaged_and_foreign_directories_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            examine(dir.path(), None).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(of("state.redb", "x").contains("meta.json is missing"));
        assert!(of("meta.json", "{").contains("meta.json"));
        assert!(of("meta.json", r#"{"format":9}"#).contains("it has format 9"));
        assert!(of("meta.json", r#"{"format":2,"node_id":null,"incarnation":"x"}"#).contains("state.redb"));
        let meta = r#"{"format":1,"node_id":null,"incarnation":"x"}"#;
        std::fs::write(dir.path().join("meta.json"), meta).unwrap();
        assert_eq!(examine(dir.path(), None).unwrap(), Examined::Earlier);
    }
}
