//! The layout and the lock of a data directory.
//!
//! ```text
//! meta.json            {"format":2,"node_id":"…","incarnation":"…","cluster_id":…,"home":…,"joining":false,"joined":[…],
//!                       "removed":false,"announced_ms":…}
//! LOCK                 locked while a process uses the directory; holds its process id
//! log/<number>.log     entries, see `segment`         numbers go up, 20 digits
//! state.redb           the records, see `state`
//! raft/peers.json      of an operator: the members of a recovered cluster, see `recovery`
//! ```
//!
//! A directory of format 1 has only the first three fields, and segments as in `v1`; `upgrade` changes it to format 2.

use std::{
    io::{self, Read},
    path::Path,
};

use keepfast_crypto::{hash::sha256, random};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::disk::{self, Disk};
use crate::{Digest, Incarnation, NodeId, Origin, StorageError, simulated};

/// The format version of the whole directory.
const FORMAT: u32 = 2;
/// The format that an upgrade reads.
const FORMAT_BEFORE: u32 = 1;
/// The file with the format.
pub(super) const META: &str = "meta.json";
const META_NEW: &str = "meta.json.new";

/// The content of `meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    format: u32,
    /// Null where the configuration has none.
    pub(crate) node_id: Option<String>,
    /// Random name of the directory, set once. Older versions of format 1 wrote none.
    #[serde(default)]
    pub(crate) incarnation: String,
    /// The cluster that the directory has joined.
    #[serde(default)]
    pub(crate) cluster_id: Option<String>,
    /// Where the directory was at the last start. Reserved: no code sets it yet.
    #[serde(default)]
    pub(crate) home: Option<String>,
    /// Whether the node joins a cluster and has no complete state yet.
    #[serde(default)]
    pub(crate) joining: bool,
    /// While the node joins: the members that the leader has named, as the body of an entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) joined: Vec<u8>,
    /// Whether the node was removed from its cluster.
    #[serde(default)]
    pub(crate) removed: bool,
    /// The longest election timeout in milliseconds that another member may have in a list: it is stored before it is
    /// announced. 0 for a node that was never in a cluster.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) announced_ms: u32,
    /// While the cluster is recovered from `raft/peers.json`: its members, as the body of an entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) recovery: Vec<u8>,
    /// Nodes that were members of the cluster, the newest last: their names and incarnations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) removed_peers: Vec<(NodeId, Incarnation)>,
    /// The last index of the log before the last recovery.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub(crate) recovered: u64,
}

/// The bytes of a UUID; `None` for another text.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let (mut digits, mut count) = ([0; 32], 0);
    for digit in text.bytes().filter(|digit| *digit != b'-') {
        *digits.get_mut(count)? = digit;
        count += 1;
    }
    let digits = std::str::from_utf8(&digits).ok().filter(|digits| count == digits.len())?;
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_nothing(index: &u64) -> bool {
    *index == 0
}

impl Layout {
    /// Reads the layout of a directory, or creates one in an empty directory. The layout of a directory of format 1 is
    /// not stored before [`upgrade`](Self::upgrade).
    ///
    /// A node id in the configuration must equal the stored one; a directory without a node id accepts one later.
    pub(crate) fn open(disk: &dyn Disk, node_id: Option<&str>) -> Result<Self, StorageError> {
        let mut layout = match read(disk)? {
            Some(layout) => layout,
            None => return Self::create(disk, node_id),
        };
        layout.check_node_id(node_id)?;
        let is_named_now = layout.node_id.is_none() && node_id.is_some();
        layout.node_id = layout.node_id.or_else(|| node_id.map(str::to_owned));
        if layout.incarnation.is_empty() {
            layout.incarnation = random::uuid();
        }
        if is_named_now && !layout.needs_upgrade() {
            layout.write(disk)?;
        }
        Ok(layout)
    }

    /// Checks that a node id in the configuration equals the stored one, if there is one.
    pub(super) fn check_node_id(&self, given: Option<&str>) -> Result<(), StorageError> {
        if let (Some(stored), Some(given)) = (&self.node_id, given)
            && stored != given
        {
            return Err(StorageError::Layout(format!("it belongs to node '{stored}', not to '{given}'").into()));
        }
        Ok(())
    }

    fn create(disk: &dyn Disk, node_id: Option<&str>) -> Result<Self, StorageError> {
        let names = disk.names("").map_err(|error| StorageError::io("list the data directory", error))?;
        if names.iter().any(|name| name == super::state::FILE) {
            return Err(StorageError::Layout("it has data, but meta.json is missing".into()));
        }
        let layout = Self {
            format: FORMAT,
            node_id: node_id.map(str::to_owned),
            incarnation: simulated::uuid().unwrap_or_else(random::uuid),
            cluster_id: None,
            home: None,
            joining: false,
            joined: Vec::new(),
            removed: false,
            announced_ms: 0,
            recovery: Vec::new(),
            removed_peers: Vec::new(),
            recovered: 0,
        };
        layout.write(disk)?;
        Ok(layout)
    }

    /// The name of this node in a cluster.
    pub(crate) fn name(&self) -> &str {
        self.node_id.as_deref().unwrap_or(&self.incarnation)
    }

    /// The data directory of this node in a cluster.
    pub(crate) fn origin(&self) -> Origin {
        let incarnation = uuid(&self.incarnation).unwrap_or_else(|| Digest::of(&sha256(self.incarnation.as_bytes())).0);
        Origin { node: self.name().to_owned(), incarnation }
    }

    /// Ends the joining, durably: the state is that of a snapshot.
    pub(crate) fn complete(&mut self, disk: &dyn Disk) -> Result<(), StorageError> {
        self.joining = false;
        self.joined = Vec::new();
        self.write(disk)
    }

    /// Stores that this node may announce an election timeout, durably.
    pub(crate) fn announce(&mut self, disk: &dyn Disk, election_ms: u32) -> Result<(), StorageError> {
        if election_ms <= self.announced_ms {
            return Ok(());
        }
        self.announced_ms = election_ms;
        self.write(disk)
    }

    /// Stores that no list has a longer election timeout of this node any more.
    pub(crate) fn lower(&mut self, disk: &dyn Disk, election_ms: u32) -> Result<(), StorageError> {
        if election_ms >= self.announced_ms {
            return Ok(());
        }
        self.announced_ms = election_ms;
        self.write(disk)
    }

    /// Stores that this node was removed, durably.
    pub(crate) fn remove(&mut self, disk: &dyn Disk) -> Result<(), StorageError> {
        self.removed = true;
        self.write(disk)
    }

    /// Stores which nodes were members.
    pub(crate) fn note_removed(
        &mut self,
        disk: &dyn Disk,
        removed: Vec<(NodeId, Incarnation)>,
    ) -> Result<(), StorageError> {
        self.removed_peers = removed;
        self.write(disk)
    }

    /// Whether the directory has format 1.
    pub(crate) fn needs_upgrade(&self) -> bool {
        self.format == FORMAT_BEFORE
    }

    /// Changes the format to 2, durably. The log and the state must have it already.
    pub(crate) fn upgrade(&mut self, disk: &dyn Disk) -> Result<(), StorageError> {
        self.format = FORMAT;
        self.write(disk)
    }

    /// Changes the format to 1, durably. The log and the state must have it already.
    pub(crate) fn downgrade(&mut self, disk: &dyn Disk) -> Result<(), StorageError> {
        self.format = FORMAT_BEFORE;
        self.write(disk)
    }

    /// Stores it, durably.
    pub(crate) fn write(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        let text = serde_json::to_vec(self).map_err(|error| StorageError::corrupt(error.to_string()))?;
        replace(disk, &text).map_err(|error| StorageError::io("write meta.json", error))
    }
}

fn read(disk: &dyn Disk) -> Result<Option<Layout>, StorageError> {
    let failed = |error| StorageError::io("read meta.json", error);
    let Some(file) = disk.open(META, false).map_err(failed)? else {
        return Ok(None);
    };
    let mut text = vec![0; file.len().map_err(failed)? as usize];
    file.read_at(0, &mut text).map_err(failed)?;
    parse(&text).map(Some)
}

/// Reads the content of `meta.json`.
pub(super) fn parse(text: &[u8]) -> Result<Layout, StorageError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let unreadable = |error: serde_json::Error| StorageError::corrupt(format!("meta.json: {error}"));
    let version: Version = serde_json::from_slice(text).map_err(unreadable)?;
    if ![FORMAT_BEFORE, FORMAT].contains(&version.format) {
        let found = version.format;
        let text = format!("it has format {found}; this program reads format {FORMAT} and upgrades {FORMAT_BEFORE}");
        return Err(StorageError::Layout(text.into()));
    }
    serde_json::from_slice(text).map_err(unreadable)
}

/// Writes a new file and renames it over the old one, so that a complete file always exists.
fn replace(disk: &dyn Disk, text: &[u8]) -> io::Result<()> {
    let file = disk.open(META_NEW, true)?.ok_or(io::ErrorKind::NotFound)?;
    file.set_len(0)?;
    file.write_at(0, text)?;
    file.sync()?;
    disk.rename(META_NEW, META)?;
    disk.sync_directory("")
}

/// Excludes other processes from a data directory until it is dropped.
pub(crate) struct DirectoryLock {
    _file: std::fs::File,
}

impl DirectoryLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`StorageError::InUse`] when another process holds it.
    pub(crate) fn take(directory: &Path) -> Result<Self, StorageError> {
        let failed = |error| StorageError::io(format!("lock {}", directory.display()), error);
        let mut file = disk::private_file(&directory.join("LOCK"), true).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only for the message; the file may be empty for a moment.
                let known = file.read_to_string(&mut holder).is_ok() && !holder.is_empty();
                let holder = if known { format!("process {}", holder.trim()) } else { "another process".into() };
                let directory = directory.display().to_string().into();
                return Err(StorageError::InUse { directory, holder: holder.into() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let id = std::process::id().to_string();
        file.set_len(0).map_err(failed)?;
        std::os::unix::fs::FileExt::write_all_at(&file, id.as_bytes(), 0).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
