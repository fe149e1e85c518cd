//! What is written to the log with one sync: a vote, entries, the committed index. One order for all of them, and none
//! of them without the others (obligations O3, O10).

use crate::entry::{Entry, Vote};

/// What is to be written, in one piece, and synced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Reported by `Input::Persisted` when this frame, and with it each earlier one, is synced.
    pub number: u64,
    /// The term and vote from here on, if they changed.
    pub vote: Option<Vote>,
    /// Entries without gaps. They void everything in the log from the index of the first one on.
    pub entries: Vec<Entry>,
    /// The committed index when the frame was made. It is a matter of safety, not of speed: an entry that follows a
    /// change of members is on a disk only together with the knowledge that the change is committed, so that no node
    /// campaigns under a list of members that is two changes old.
    pub committed: u64,
}

impl Frame {
    /// Adds a later frame, so that one sync serves both.
    pub fn merge(&mut self, later: Frame) {
        self.number = later.number;
        self.vote = later.vote.or(self.vote);
        self.committed = self.committed.max(later.committed);
        if let Some(first) = later.entries.first() {
            let kept = self.entries.partition_point(|entry| entry.id.index < first.id.index);
            self.entries.truncate(kept);
            self.entries.extend(later.entries);
        }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vote.is_none() && self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::entry::{LogId, RaftId};

    fn frame(number: u64, term: u64, indexes: std::ops::RangeInclusive<u64>) -> Frame {
        let entry = |index| Entry { id: LogId { term, index }, payload: Bytes::new() };
        Frame { number, vote: None, entries: indexes.map(entry).collect(), committed: number }
    }

    #[test]
    fn later_entries_void_earlier_ones_of_the_same_sync() {
        let mut merged = frame(1, 3, 5..=8);
        merged.merge(frame(2, 4, 7..=7));
        let ids: Vec<_> = merged.entries.iter().map(|entry| (entry.id.index, entry.id.term)).collect();
        assert_eq!(ids, [(5, 3), (6, 3), (7, 4)]);
        merged.merge(frame(3, 5, 2..=3));
        let ids: Vec<_> = merged.entries.iter().map(|entry| (entry.id.index, entry.id.term)).collect();
        assert_eq!(ids, [(2, 5), (3, 5)]);
        assert_eq!((merged.number, merged.committed), (3, 3));
    }

    #[test]
    fn the_last_vote_counts_and_none_is_lost() {
        let vote = |term| Some(Vote { term, candidate: RaftId(1) });
        let mut merged = Frame { vote: vote(3), ..frame(1, 3, 5..=5) };
        merged.merge(frame(2, 3, 6..=6));
        assert_eq!(merged.vote, vote(3));
        merged.merge(Frame { vote: vote(4), number: 3, ..Frame::default() });
        assert_eq!((merged.vote, merged.entries.len(), merged.committed), (vote(4), 2, 2));
    }
}
