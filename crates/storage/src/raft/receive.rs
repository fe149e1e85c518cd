//! Receives a snapshot beside the current state.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use keepfast_consensus::{Body, LogId, Message};

use super::{
    event::Reply,
    snapshot::{Decoder, damaged},
};
use crate::{
    Member, Origin, SnapshotParts, StorageError, blocking,
    local::{
        disk::{Disk, has_room},
        image::{NewState, Row},
        state::{FILE_NEW, Position, State},
    },
};

/// Rows are written in groups of about this many bytes.
const GROUP_BYTES: usize = 4 << 20;

/// A snapshot that is complete and durable beside the current state.
pub(crate) struct Received {
    pub(super) origin: Origin,
    /// Its head.
    pub(super) message: Message,
    /// `None` once it is being installed.
    pub(super) state: Option<State>,
    pub(super) result: Reply<()>,
    /// Until it is dropped no other one is received.
    pub(super) turn: Arc<Turn>,
}

impl Received {
    /// Returns that it is not wanted. The file is overwritten by the next one.
    pub(crate) fn refuse(self) {
        self.finish(Err(StorageError::NoLeader));
    }

    /// Deletes the state, and returns the result.
    pub(super) fn discard(mut self, disk: &dyn Disk, result: Result<(), StorageError>) {
        drop(self.state.take());
        // One that stays is overwritten by the next.
        let _ = disk.remove(FILE_NEW);
        self.finish(result);
    }

    /// Returns the result; the caller may then pass the next one.
    pub(super) fn finish(self, result: Result<(), StorageError>) {
        let Self { state, turn, result: reply, .. } = self;
        drop((state, turn));
        let _ = reply.send(result);
    }
}

/// Only one snapshot at a time has the file.
pub(crate) struct Turn {
    is_taken: Arc<AtomicBool>,
}

impl Turn {
    /// `None` while another one has it.
    pub(super) fn take(is_taken: &Arc<AtomicBool>) -> Option<Arc<Self>> {
        (!is_taken.swap(true, Ordering::AcqRel)).then(|| Arc::new(Self { is_taken: is_taken.clone() }))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.is_taken.store(false, Ordering::Release);
    }
}

/// The position and the members of a snapshot.
pub(super) fn head(message: &Message) -> Option<(LogId, &[Member])> {
    match &message.body {
        Body::Snapshot { last, members } => Some((*last, members)),
        _ => None,
    }
}

/// Stores the parts of a snapshot; verified and durable when it returns.
///
/// The turn lasts until the last write, also when the future is dropped.
pub(super) async fn store(
    turn: &Arc<Turn>,
    disk: Arc<dyn Disk>,
    message: &Message,
    parts: &mut dyn SnapshotParts,
    reserve_bytes: u64,
    cache_bytes: usize,
) -> Result<State, StorageError> {
    let mut partial = Partial { turn, disk: disk.clone(), state: None, is_over: false };
    let stored = partial.store(message, parts, reserve_bytes, cache_bytes).await;
    partial.is_over = true;
    if stored.is_err() {
        // Before the turn ends.
        let _ = work(turn, partial.deletion()).await;
    }
    stored
}

/// A state that is not complete. It is deleted when storing fails, or its future is dropped.
struct Partial<'t> {
    turn: &'t Arc<Turn>,
    disk: Arc<dyn Disk>,
    /// `None` while rows are written.
    state: Option<NewState>,
    is_over: bool,
}

impl Partial<'_> {
    async fn store(
        &mut self,
        message: &Message,
        parts: &mut dyn SnapshotParts,
        reserve_bytes: u64,
        cache_bytes: usize,
    ) -> Result<State, StorageError> {
        let (last, members) = head(message).ok_or_else(damaged)?;
        let members = members.to_vec();
        let disk = self.disk.clone();
        self.state = Some(work(self.turn, move || NewState::begin(&*disk, cache_bytes)).await?);
        let mut decoder = Decoder::new();
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(part) = parts.next().await? {
            bytes += part.len();
            rows.extend(decoder.part(&part)?);
            if bytes >= GROUP_BYTES {
                if !has_room(&*self.disk, reserve_bytes, bytes as u64) {
                    return Err(StorageError::Full);
                }
                self.add(std::mem::take(&mut rows)).await?;
                bytes = 0;
            }
        }
        let counts = decoder.finish()?;
        self.add(rows).await?;
        let state = self.state.take().ok_or_else(damaged)?;
        let position = Position { id: last, key_term: counts.key_term, encryptions: counts.encryptions };
        work(self.turn, move || state.finish(position, &members)).await
    }

    async fn add(&mut self, rows: Vec<Row>) -> Result<(), StorageError> {
        let state = self.state.take().ok_or_else(damaged)?;
        self.state = Some(work(self.turn, move || state.add(&rows).map(|()| state)).await?);
        Ok(())
    }

    /// Closes and deletes the file.
    fn deletion(&mut self) -> impl FnOnce() -> Result<(), StorageError> + Send + use<> {
        let (state, disk) = (self.state.take(), self.disk.clone());
        move || {
            drop(state);
            disk.remove(FILE_NEW).map_err(|error| StorageError::io("delete a snapshot", error))
        }
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (deletion, turn) = (self.deletion(), self.turn.clone());
        // Also the one that still runs when the future is dropped has the turn.
        blocking::detach(move || (deletion(), turn));
    }
}

async fn work<T: Send + 'static>(
    turn: &Arc<Turn>,
    act: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let turn = turn.clone();
    // If nobody waits any more, the turn ends after what the work has returned.
    let done = blocking::run(move || (act(), turn)).await.map(|(done, _)| done);
    done.unwrap_or_else(|_| Err(StorageError::corrupt("storing a snapshot has panicked")))
}
