//! Restores a snapshot at the leader: its records go through the log in parts, and replace all others at one entry.

use bytes::BufMut;
use keepfast_consensus::{MAX_ENTRY, Payload};
use keepfast_crypto::hash::{Sha256Stream, sha256};
use tokio::sync::oneshot;

use super::{
    event::{Event, Proposal, Request},
    node::Node,
    snapshot::Decoder,
};
use crate::{Index, RestoreMark, SnapshotHead, SnapshotParts, StorageError, local::image::Row};

/// A part has about this many bytes.
const PART: usize = 1 << 20;

/// Only one restore at a time, and no batch beside it.
struct Guard<'n> {
    node: &'n Node,
    is_over: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // The future was dropped. The entry comes before those of another restore.
            let (result, _) = oneshot::channel();
            let proposal = Proposal::other(&Payload::RestoreAbort);
            let _ = self.node.send(Event::Commit(Request { proposal, result }));
        }
        self.node.set_restoring(false);
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
        return Err(StorageError::InProgress);
    }
    let mut guard = Guard { node, is_over: false };
    let mut description = Vec::new();
    description.put_u64_le(head.term);
    description.put_u64_le(head.index.0);
    let mut restore = Restore { node, number: 0, digest: sha256(&description), records: Vec::new() };
    let restored = match restore.entry(&Payload::RestoreBegin(description.into())).await {
        Ok(_) => restore.all(parts, mark).await,
        Err(error) => Err(error),
    };
    if restored.is_err() {
        // Also when only the beginning has failed: its outcome may be unknown. If it cannot be dropped now, the leader
        // does it later.
        let _ = restore.entry(&Payload::RestoreAbort).await;
    }
    guard.is_over = true;
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
        let payload = Payload::RestorePart(self.number, std::mem::take(&mut self.records).into()).encode();
        let mut digest = Sha256Stream::default();
        digest.update(&self.digest);
        digest.update(payload.get(1..).unwrap_or_default());
        self.digest = digest.finish();
        self.node.submit(Proposal::Payload(payload, true)).await.map(drop)
    }
}
