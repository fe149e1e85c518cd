//! Positions in the log, entries and votes.

use std::fmt;
use std::ops::Add;

use bytes::Bytes;

use crate::payload::Kind;
use crate::wire::{MAX_NUMBER, WireError};

/// The number of a member in votes and messages. It is the index of the entry that adds the member, so that it is never
/// reused; the first members of a cluster have ids up to the index at which it begins, and those of a recovered cluster
/// ids that no index reaches. A member that is removed and added again is another one (obligation O7; Ongaro §4.1
/// presumes that a server keeps its log and its vote for as long as it has its identity).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaftId(pub u64);

impl RaftId {
    /// No index has this bit, and messages may have it.
    const RECOVERED: u64 = MAX_NUMBER >> 1;

    /// The number of a member of a recovered cluster, from a digest.
    #[must_use]
    pub fn recovered(digest: u64) -> Self {
        Self(digest % Self::RECOVERED + Self::RECOVERED)
    }

    pub(crate) fn is_recovered(self) -> bool {
        self.0 >= Self::RECOVERED
    }
}

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point of a clock that never goes back and counts while the machine sleeps (CLOCK_BOOTTIME), in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// The microseconds since an earlier point; 0 if it is later.
    #[must_use]
    pub fn since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Mono {
    type Output = Mono;

    fn add(self, micros: u64) -> Mono {
        Mono(self.0.saturating_add(micros))
    }
}

/// The position of an entry: no two entries of a cluster have the same index and term (Ongaro §3.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term in which a leader created the entry.
    pub term: u64,
    /// The position in the log. The first entry of a cluster has at least 2 (obligation O8).
    pub index: u64,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its position.
    pub id: LogId,
    /// An encoded [`crate::Payload`]; empty for the blank entry with which a leader begins.
    pub payload: Bytes,
}

impl Entry {
    /// An entry with a payload of this kind.
    #[must_use]
    pub fn new(id: LogId, kind: Kind, body: &[u8]) -> Self {
        let payload = match kind {
            Kind::Blank => Bytes::new(),
            _ => [&[kind as u8], body].concat().into(),
        };
        Self { id, payload }
    }

    /// The kind of its payload.
    ///
    /// # Errors
    ///
    /// A first byte that no payload has.
    pub fn kind(&self) -> Result<Kind, WireError> {
        Kind::of(&self.payload)
    }

    /// Its payload without the kind; shares the memory.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.payload.slice(self.payload.len().min(1)..)
    }
}

/// The current term and the vote in it: what a node may not lose (Ongaro figure 3.1, "persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The newest term that the node has seen.
    pub term: u64,
    /// The candidate that it votes for in this term; 0 for none.
    pub candidate: RaftId,
}
