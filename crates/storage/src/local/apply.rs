//! Applies entries to the state, in the order of the log.
//!
//! Each replica evaluates a batch by the reads in its entry, and so decides alike. A group of entries becomes visible at
//! once; then the watchers receive it, and then its last index is published as applied.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use arc_swap::{ArcSwap, Guard};
use keepfast_consensus::Payload;
use tokio::sync::watch;

use super::{
    entry::{Entry, Kind, LogId},
    log::ReadLog,
    restore,
    state::{Change, Position, Records, State},
};
use crate::{Batch, Index, Read, StorageError, Write, barrier, watch::Watchers};

/// A replay reads about this many bytes of entries at a time.
const REPLAY_BYTES: usize = 4 << 20;

/// The last entry that a replay applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upto {
    /// The last entry known to be committed: other voters may replace the later ones.
    Committed,
    /// The last entry: for the only voter of a cluster, what is durable is committed.
    Last,
    /// The last entry, also where there are other voters: none of them decides any more.
    Whole,
}

/// The state, and all that follows it.
pub(crate) struct Applier {
    state: ArcSwap<State>,
    pub(crate) watchers: Watchers,
    /// The index of the last entry that is visible and that every watcher has received.
    pub(crate) applied: watch::Sender<Index>,
    /// Why no more is applied.
    pub(crate) stopped: OnceLock<Arc<str>>,
    /// What a planted bug has kept from the watchers.
    #[cfg(any(test, feature = "suite"))]
    late: parking_lot::Mutex<Vec<(Index, Notice)>>,
}

/// The result of applying an entry. It is the same on each replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The entry has taken effect.
    Passed,
    /// A read of the batch no longer held, or a restore has begun before it: the entry has changed nothing.
    Conflict,
    /// The entry does not fit to the restore before it, and has changed nothing.
    Refused,
}

/// What a watcher receives for an entry.
pub(crate) enum Notice {
    /// The writes of a batch.
    Writes(Vec<Write>),
    /// All records were replaced.
    Replaced,
}

/// Entries that are being applied: an uncommitted change and its position.
pub(crate) struct Group<'c> {
    change: &'c Change,
    records: Records<'c>,
    position: Position,
    /// Encryptions under other key terms than that of the position.
    encryptions: BTreeMap<u32, u64>,
}

impl Applier {
    /// What follows `state`.
    pub(crate) fn new(state: State) -> Self {
        let (applied, _) = watch::channel(Index(state.position().id.index));
        Self {
            state: ArcSwap::from_pointee(state),
            watchers: Watchers::default(),
            applied,
            stopped: OnceLock::new(),
            #[cfg(any(test, feature = "suite"))]
            late: parking_lot::Mutex::default(),
        }
    }

    /// The current state. A snapshot replaces it.
    pub(crate) fn state(&self) -> Guard<Arc<State>> {
        self.state.load()
    }

    /// Replaces the state by that of a snapshot. Called by the thread that applies entries.
    pub(crate) fn replace(&self, state: State) {
        let index = Index(state.position().id.index);
        self.state.store(Arc::new(state));
        if !planted!(ReplacedUnnoticed) {
            self.watchers.notify_replaced(index);
        }
        self.applied.send_replace(index);
    }

    /// Stops all writes and logs the reason.
    pub(crate) fn stop(&self, error: &StorageError) -> StorageError {
        let reason: Arc<str> = error.to_string().into();
        tracing::error!(error = &*reason, "the storage stops: the last writes may not be durable");
        StorageError::Stopped(self.stopped.get_or_init(|| reason).clone())
    }

    /// As [`stop`](Self::stop), if nothing has stopped it before.
    pub(crate) fn stop_once(&self, error: &StorageError) {
        if self.stopped.get().is_none() {
            self.stop(error);
        }
    }

    /// The error of each use after a stop.
    pub(crate) fn stopped(&self) -> Option<StorageError> {
        self.stopped.get().cloned().map(StorageError::Stopped)
    }

    /// Applies committed entries as one group, and returns the result of each.
    ///
    /// # Errors
    /// Those of the state; [`StorageError::Corrupt`] for an entry that is not the next one or cannot be decoded.
    pub(crate) fn apply(&self, entries: Vec<Entry>) -> Result<Vec<Decision>, StorageError> {
        let state = self.state();
        let change = state.begin()?;
        let mut decisions = Vec::with_capacity(entries.len());
        let mut notices = Vec::new();
        let mut group = Group::begin(&state, &change)?;
        for entry in entries {
            let index = Index(entry.id.index);
            let (decision, change) = group.entry(entry)?;
            decisions.push(decision);
            notices.extend(change.map(|change| (index, change)));
        }
        let position = group.end()?;
        #[cfg(any(test, feature = "suite"))]
        if planted!(AppliedBeforeWatchers) {
            // In one thread nothing else runs between the two: the watchers receive the group before the next one.
            self.notify(&std::mem::replace(&mut *self.late.lock(), notices));
            self.publish(change, position, |_| {})?;
            return Ok(decisions);
        }
        self.publish(change, position, |applier| applier.notify(&notices))?;
        Ok(decisions)
    }

    fn notify(&self, notices: &[(Index, Notice)]) {
        for (index, notice) in notices {
            match notice {
                Notice::Writes(writes) => self.watchers.notify(*index, writes),
                Notice::Replaced => self.watchers.notify_replaced(*index),
            }
        }
    }

    /// Applies the entries of a log after the position of the state, and makes the state durable.
    ///
    /// What a node has as the only voter is committed. Once it applies a list with another voter, the rest is only what
    /// the log knows to be committed.
    ///
    /// # Errors
    /// As [`apply`](Self::apply), and those of the log.
    pub(crate) fn replay(&self, log: &impl ReadLog, mut upto: Upto) -> Result<(), StorageError> {
        loop {
            let last = match upto {
                Upto::Committed => log.hard_state().committed,
                Upto::Last | Upto::Whole => log.last().index,
            };
            let next = self.state().position().id.index + 1;
            if next > last {
                return self.state().flush();
            }
            let mut entries = log.entries(next..last + 1, REPLAY_BYTES)?;
            let list = entries.iter().position(|entry| entry.kind() == Ok(Kind::Members));
            entries.truncate(list.map_or(entries.len(), |at| at + 1));
            let decisions = self.apply(entries)?;
            let members = self.state().members()?;
            // A node that never was in a cluster logs only batches that pass.
            if matches!(upto, Upto::Last) && members.is_none() && decisions.contains(&Decision::Conflict) {
                let last = next - 1;
                return Err(StorageError::corrupt(format!("a batch after entry {last} of the log does not apply")));
            }
            if upto == Upto::Last && list.is_some() && members.is_some_and(|members| members.list.len() > 1) {
                upto = Upto::Committed;
            }
        }
    }

    /// Makes a change visible, passes it to the watchers with `notify`, and then publishes its index.
    pub(crate) fn publish(
        &self,
        change: Change,
        position: Position,
        notify: impl FnOnce(&Self),
    ) -> Result<(), StorageError> {
        self.state().commit(change, position)?;
        notify(self);
        self.applied.send_replace(Index(position.id.index));
        Ok(())
    }
}

impl<'c> Group<'c> {
    /// Begins a group after what `state` has applied.
    pub(crate) fn begin(state: &State, change: &'c Change) -> Result<Self, StorageError> {
        Ok(Self { change, records: change.records()?, position: state.position(), encryptions: BTreeMap::new() })
    }

    /// Whether reads hold after the entries so far. During a restore none do.
    pub(crate) fn holds(&self, reads: &[Read]) -> Result<bool, StorageError> {
        Ok(!self.change.is_restoring() && self.records.reads_hold(reads)?)
    }

    /// Applies the entry `id`, a batch whose reads [hold](Self::holds).
    pub(crate) fn write(&mut self, id: LogId, writes: &[Write]) -> Result<(), StorageError> {
        self.count(writes);
        self.position.id = id;
        self.records.apply(writes)
    }

    /// Applies an entry. Also returns what the watchers receive.
    pub(crate) fn entry(&mut self, entry: Entry) -> Result<(Decision, Option<Notice>), StorageError> {
        let (id, body) = (entry.id, entry.body());
        if id.index != self.position.id.index + 1 {
            let last = self.position.id.index;
            return Err(StorageError::corrupt(format!("entry {} after entry {last}", id.index)));
        }
        let kind = entry.kind().map_err(|error| StorageError::corrupt(format!("entry {}: {error}", id.index)))?;
        let decision = match kind {
            Kind::Blank => Decision::Passed,
            Kind::Batch => return self.batch(id, Batch::decode(body)?),
            Kind::Members => {
                let list = Payload::decode_list(&body).map_err(|error| StorageError::corrupt(error.to_string()))?;
                self.change.set_members(id.index, &list)?;
                Decision::Passed
            }
            Kind::RestoreBegin => restore::begin(self.change, &body)?,
            Kind::RestorePart => restore::part(self.change, &body)?,
            Kind::RestoreEnd => restore::end(self.change, &body, &mut self.records)?,
            Kind::RestoreAbort => restore::abort(self.change)?,
        };
        self.position.id = id;
        let is_replaced = kind == Kind::RestoreEnd && decision == Decision::Passed;
        Ok((decision, is_replaced.then_some(Notice::Replaced)))
    }

    fn batch(&mut self, id: LogId, batch: Batch) -> Result<(Decision, Option<Notice>), StorageError> {
        if self.holds(&batch.reads)? || planted!(ReadsDropped) {
            self.write(id, &batch.writes)?;
            return Ok((Decision::Passed, Some(Notice::Writes(batch.writes))));
        }
        // The values were encrypted although they are not stored.
        self.count(&batch.writes);
        self.position.id = id;
        Ok((Decision::Conflict, None))
    }

    /// Counts the encryptions of an entry.
    fn count(&mut self, writes: &[Write]) {
        for write in writes {
            let Write::Put { value, .. } = write else { continue };
            let Some(term) = barrier::key_term(value) else { continue };
            if term == self.position.key_term {
                self.position.encryptions += 1;
                continue;
            }
            *self.encryptions.entry(term).or_default() += 1;
        }
    }

    /// Ends the group, and returns the position to be committed with its change.
    pub(crate) fn end(self) -> Result<Position, StorageError> {
        let Self { change, mut position, encryptions, .. } = self;
        for (term, count) in encryptions {
            if term < position.key_term {
                change.add_encryptions(term, count)?;
                continue;
            }
            if term > position.key_term {
                if position.encryptions > 0 {
                    change.add_encryptions(position.key_term, position.encryptions)?;
                }
                (position.key_term, position.encryptions) = (term, 0);
            }
            position.encryptions += count;
        }
        Ok(position)
    }
}
