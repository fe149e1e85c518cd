//! Log entries, and the state that a log keeps besides them.

use bytes::Bytes;

use crate::StorageError;

/// The term and the index of a log entry. Two logs with the same id have the same entries up to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogId {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

/// The id before the first entry of a new log. It is not 0, so that a node that joins later begins with a snapshot and
/// not at the first entry.
pub(crate) const FOUNDING: LogId = LogId { term: 1, index: 1 };

/// The member that created the log of a node without a cluster.
pub(crate) const FOUNDER: u64 = 1;

/// A log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: LogId,
    pub(crate) kind: Kind,
    pub(crate) body: Bytes,
}

/// The kind of a log entry. The log does not interpret the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// No change: a leader begins its term with it.
    Blank = 1,
    /// A [`Batch`](crate::Batch) with its reads.
    Batch = 2,
    /// The members of the cluster.
    Members = 3,
    /// Begins a restore: later parts are staged.
    RestoreBegin = 4,
    /// Records of a restore.
    RestorePart = 5,
    /// Replaces all records by the staged ones.
    RestoreEnd = 6,
    /// Drops the staged parts.
    RestoreAbort = 7,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Blank,
        Self::Batch,
        Self::Members,
        Self::RestoreBegin,
        Self::RestorePart,
        Self::RestoreEnd,
        Self::RestoreAbort,
    ];

    /// Decodes a stored kind.
    ///
    /// # Errors
    /// [`StorageError::Layout`] for a kind that this program does not know: a newer one has written it.
    pub(crate) fn decode(byte: u8) -> Result<Self, StorageError> {
        let known = Self::ALL.into_iter().find(|kind| *kind as u8 == byte);
        known.ok_or_else(|| {
            StorageError::Layout(
                format!("its log has an entry of kind {byte}, which this program does not know").into(),
            )
        })
    }
}

/// The vote of this node in a term.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Vote {
    pub(crate) term: u64,
    /// The id of the member that got the vote; 0 for none.
    pub(crate) candidate: u64,
}

/// The state that a node of a cluster makes durable besides entries ("hard state").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HardState {
    pub(crate) vote: Vote,
    /// An index up to which entries are committed. A hint: more may be.
    pub(crate) committed: u64,
}

impl HardState {
    /// The state of a new log of a lone voter, whose entries up to `committed` are committed.
    pub(crate) fn lone(committed: LogId) -> Self {
        Self { vote: Vote { term: committed.term, candidate: FOUNDER }, committed: committed.index }
    }

    /// The newer of both in each part. Neither part ever goes back.
    #[must_use]
    pub(crate) fn merged(self, other: Self) -> Self {
        let (own, new) = (self.vote, other.vote);
        let is_newer = new.term > own.term || (new.term == own.term && own.candidate == 0);
        Self { vote: if is_newer { new } else { own }, committed: self.committed.max(other.committed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_kinds_never_change() {
        for (byte, kind) in (1..).zip(Kind::ALL) {
            assert_eq!((kind as u8, Kind::decode(byte).unwrap()), (byte, kind));
        }
        for unknown in [0, 8, 255] {
            assert!(matches!(Kind::decode(unknown), Err(StorageError::Layout(_))));
        }
    }

    #[test]
    fn a_hard_state_never_goes_back() {
        let state = |term, candidate, committed| HardState { vote: Vote { term, candidate }, committed };
        assert_eq!(state(2, 1, 9).merged(state(1, 3, 10)), state(2, 1, 10));
        assert_eq!(state(2, 0, 9).merged(state(2, 3, 8)), state(2, 3, 9));
        assert_eq!(state(2, 1, 9).merged(state(3, 0, 9)), state(3, 0, 9));
    }
}
