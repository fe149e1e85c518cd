//! What the leader does after a restore of a snapshot, before it serves: the keys and the removed members of before must
//! not come back with the records, and after a restore by force no lease is revoked.

use std::sync::Arc;

use bytes::Bytes;
use keepfast_framework::{Error, Result, Timestamp};
use keepfast_storage::{Backend, Barrier, RestoreMark};
use serde::{Deserialize, Serialize};

use super::members::{RemovedDirectories, removed_directories};
use crate::layout::{SYSTEM_STORAGE, TOKEN_STORAGE};
use crate::lease::quarantine;

/// The content of a [`RestoreMark`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Whether the snapshot may be of another cluster.
    forced: bool,
    /// The newest term of the keyring before the restore.
    term: u32,
    /// The removed data directories before the restore.
    removed: RemovedDirectories,
}

/// The mark of a restore that replaces the records of this barrier.
pub(crate) async fn mark(barrier: &Arc<Barrier>, forced: bool) -> Result<Bytes> {
    let (term, removed) = (barrier.key_status()?.term, removed_directories(barrier).await?);
    Ok(serde_json::to_vec(&Mark { forced, term, removed })?.into())
}

/// Whether a restore by force is to be completed, so that no lease may be revoked.
pub(crate) async fn holds_leases(backend: &dyn Backend) -> Result<bool> {
    Ok(load(backend).await?.is_some_and(|(_, mark)| mark.forced))
}

/// Completes a restore, if there was one. May be repeated.
pub(crate) async fn complete(backend: &dyn Backend, barrier: &Arc<Barrier>, now: Timestamp) -> Result<()> {
    let Some((loaded, mark)) = load(backend).await? else { return Ok(()) };
    // A term of before has other keys, which members that were down still have.
    let term = loop {
        let term = barrier.rotate(now.unix()).await?;
        if term > mark.term {
            break term;
        }
    };
    let (mark, system, tokens) = (&mark, &barrier.view(SYSTEM_STORAGE), &barrier.view(TOKEN_STORAGE));
    barrier
        .transact(|mut tx| async move {
            mark.removed.add_to_stored(&mut tx, system).await?;
            if mark.forced {
                quarantine::start(&mut tx, tokens, "a snapshot was restored by force", now).await?;
            }
            Ok::<_, Error>((tx, ()))
        })
        .await?;
    RestoreMark::delete(backend, &loaded).await?;
    tracing::warn!(term, forced = mark.forced, "the keyring was rotated after the restore of a snapshot");
    Ok(())
}

/// The mark as stored, and its content. One that cannot be read counts as that of a restore by force.
async fn load(backend: &dyn Backend) -> Result<Option<(Bytes, Mark)>> {
    let Some(loaded) = RestoreMark::load(backend).await? else { return Ok(None) };
    let mark = serde_json::from_slice(&loaded).unwrap_or_else(|error| {
        tracing::error!(%error, "the mark of a restore cannot be read");
        Mark { forced: true, term: 0, removed: RemovedDirectories::default() }
    });
    Ok(Some((loaded, mark)))
}
