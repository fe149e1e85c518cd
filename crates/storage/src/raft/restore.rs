//! Restores a snapshot at the leader: its records go through the log in parts, and replace all others at one entry.

use bytes::{BufMut, Bytes};
use keepfast_consensus::{MAX_ENTRY, Payload};
use keepfast_crypto::hash::sha256;

use super::{event::Proposal, node::Node, snapshot::Decoder};
use crate::{Index, RestoreMark, SnapshotHead, SnapshotParts, StorageError, local::image::Row};

/// A part has about this many bytes.
const PART: usize = 1 << 20;

/// Only one restore at a time, and no batch beside it.
struct Guard<'n>(&'n Node);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.set_restoring(false);
    }
}

/// The restore, as far as it is in the log.
struct Restore<'n> {
    node: &'n Node,
    number: u32,
    digest: [u8; 32],
    records: Vec<u8>,
}

/// Replaces all records. Those of before stay when it fails.
pub(super) async fn run(
    node: &Node,
    head: &SnapshotHead,
    parts: &mut dyn SnapshotParts,
    mark: &[u8],
) -> Result<Index, StorageError> {
    if !node.published.view.borrow().accepts {
        return Err(StorageError::NotLeader);
    }
    if node.set_restoring(true) {
        return Err(StorageError::Contended);
    }
    let _guard = Guard(node);
    let mut description = Vec::new();
    description.put_u64_le(head.term);
    description.put_u64_le(head.index.0);
    let mut restore = Restore { node, number: 0, digest: sha256(&description), records: Vec::new() };
    restore.entry(&Payload::RestoreBegin(description.into())).await?;
    let restored = restore.all(parts, mark).await;
    if restored.is_err() {
        // If it cannot be dropped now, the next leader does it.
        let _ = restore.entry(&Payload::RestoreAbort).await;
    }
    restored
}

impl Restore<'_> {
    async fn entry(&self, payload: &Payload) -> Result<Index, StorageError> {
        self.node.submit(Proposal::other(payload)).await
    }

    async fn all(&mut self, parts: &mut dyn SnapshotParts, mark: &[u8]) -> Result<Index, StorageError> {
        let mut decoder = Decoder::new();
        while let Some(part) = parts.next().await? {
            for row in decoder.part(&part)? {
                // The counts of encryptions go on, and what is staged in the snapshot never took effect.
                if let Row::Record(path, value) = row {
                    self.record(&path, &value).await?;
                }
            }
        }
        decoder.finish()?;
        // The last one, so that it replaces that of a snapshot which was saved before a restore was complete.
        self.record(RestoreMark::key()?.as_str(), mark).await?;
        self.part().await?;
        self.entry(&Payload::RestoreEnd(self.digest)).await
    }

    async fn record(&mut self, path: &str, value: &[u8]) -> Result<(), StorageError> {
        let size = 8 + path.len() + value.len();
        // With the kind and the number of the part.
        if size + 5 > MAX_ENTRY {
            return Err(StorageError::TooLarge { size, limit: MAX_ENTRY - 5 });
        }
        if !self.records.is_empty() && self.records.len() + size > PART {
            self.part().await?;
        }
        for text in [path.as_bytes(), value] {
            self.records.put_u32_le(text.len() as u32);
            self.records.extend_from_slice(text);
        }
        Ok(())
    }

    /// Writes the records that were collected.
    async fn part(&mut self) -> Result<(), StorageError> {
        self.number += 1;
        let payload = Payload::RestorePart(self.number, Bytes::from(std::mem::take(&mut self.records)));
        let body = payload.encode().slice(1..);
        self.digest = sha256(&[&self.digest[..], &body].concat());
        self.entry(&payload).await.map(drop)
    }
}
