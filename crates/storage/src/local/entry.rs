//! Log entries, and the state that a log keeps besides them.

pub(crate) use keepfast_consensus::{Entry, Kind, LogId, RaftId, Vote};

/// The id before the first entry of a new log. It is not 0, so that a node that joins later begins with a snapshot and
/// not at the first entry.
pub(crate) const FOUNDING: LogId = LogId { term: 1, index: 1 };

/// The member that created the log of a node without a cluster.
pub(crate) const FOUNDER: RaftId = RaftId(1);

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
        let is_newer = new.term > own.term || (new.term == own.term && own.candidate == RaftId(0));
        Self { vote: if is_newer { new } else { own }, committed: self.committed.max(other.committed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_state_never_goes_back() {
        let state =
            |term, candidate, committed| HardState { vote: Vote { term, candidate: RaftId(candidate) }, committed };
        assert_eq!(state(2, 1, 9).merged(state(1, 3, 10)), state(2, 1, 10));
        assert_eq!(state(2, 0, 9).merged(state(2, 3, 8)), state(2, 3, 9));
        assert_eq!(state(2, 1, 9).merged(state(3, 0, 9)), state(3, 0, 9));
    }
}
