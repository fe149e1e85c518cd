//! The file of a snapshot: a gzip-compressed tar archive, as Vault and OpenBao have it, so that their tools see its end.
//!
//! ```text
//! meta.json            index, term, members and size, with the names of Vault
//! state.bin            "KFSNAP01"  length:u32  head (JSON)  (length:u32 part)*  0:u32        numbers little-endian
//! SHA256SUMS           the digests of both
//! SHA256SUMS.sealed    term:u32  HMAC-SHA-256 of SHA256SUMS, under a key derived from the key of that term
//! ```
//!
//! The parts are those of the storage: records as they are stored, encrypted. The archive consists of three gzip members.
//! The first one is not compressed, so that it can be written again when the length of `state.bin` is known.

use std::io;

use keepfast_storage::{Index, Member, SnapshotHead, StorageError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cluster::members::WrittenMember;

/// The purpose of the key of `SHA256SUMS.sealed`, derived from the key of a term.
pub(crate) const SNAPSHOTS: &str = "keepfast snapshot 1";
/// The id in `meta.json`.
pub(super) const ID: &str = "keepfast-snapshot";
pub(super) const MAGIC: &[u8; 8] = b"KFSNAP01";
/// The names of the members of the archive, in their order.
pub(super) const NAMES: [&str; 4] = ["meta.json", "state.bin", "SHA256SUMS", "SHA256SUMS.sealed"];

/// Why a file is no snapshot that can be restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// It is not compressed by gzip.
    #[error("failed to decompress snapshot: gzip: invalid header")]
    NoGzip,
    /// It is one of Vault or OpenBao.
    #[error("this is a snapshot of Vault or OpenBao, which this server cannot restore")]
    Foreign,
    /// It ends too early, or its content does not match its digests.
    #[error("failed to read snapshot file: {0}")]
    Damaged(&'static str),
    /// It is larger than allowed.
    #[error("the snapshot is larger than {0} bytes")]
    TooLarge(u64),
    /// It cannot be written.
    #[error("failed to write snapshot file: {0}")]
    Write(io::Error),
    /// The storage has failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDetails {
    /// The id of the cluster.
    pub cluster_id: String,
    /// When it was taken, in RFC 3339.
    pub created: String,
    /// The version of the server that wrote it.
    pub version: String,
    /// The term of the key that authenticates it.
    pub key_term: u32,
    /// The term of the last entry of the log.
    pub term: u64,
    /// The index of that entry.
    pub index: u64,
    members: Vec<WrittenMember>,
}

impl SnapshotDetails {
    /// Describes a snapshot.
    pub(crate) fn new(head: SnapshotHead, cluster_id: String, created: String, version: String, key_term: u32) -> Self {
        let SnapshotHead { term, index: Index(index), members } = head;
        let members = members.into_iter().map(WrittenMember::from).collect();
        SnapshotDetails { cluster_id, created, version, key_term, term, index, members }
    }

    /// The description for the storage.
    pub(crate) fn head(&self) -> SnapshotHead {
        let members = self.members.iter().cloned().map(Member::from).collect();
        SnapshotHead { term: self.term, index: Index(self.index), members }
    }

    pub(super) fn meta(&self, size: u64) -> Vec<u8> {
        let server = |member: Member| {
            let address = member.cluster_addr.split_once("://").map_or(&*member.cluster_addr, |(_, rest)| rest);
            json!({ "Suffrage": u8::from(!member.voter), "ID": member.node, "Address": address })
        };
        let servers: Vec<_> = self.head().members.into_iter().map(server).collect();
        let meta = json!({
            "Version": 1, "ID": ID, "Index": self.index, "Term": self.term, "Peers": null,
            "Configuration": { "Servers": servers }, "ConfigurationIndex": 0, "Size": size
        });
        format!("{meta}\n").into_bytes()
    }
}

/// The text of `SHA256SUMS`.
pub(super) fn sums(meta: &[u8; 32], state: &[u8; 32]) -> String {
    format!("{}  {}\n{}  {}\n", hex::encode(meta), NAMES[0], hex::encode(state), NAMES[1])
}
