//! What must hold after every step (Ongaro figure 3.2), known to a spectator who sees all nodes at once.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::rng::Trace;
use crate::entry::{Entry, LogId, RaftId};
use crate::member::{Incarnation, Member};
use crate::payload::Payload;

type Map<K, V> = HashMap<K, V, BuildHasherDefault<Fast>>;

/// The hash of the trace, for maps.
#[derive(Clone, Copy, Default)]
pub(super) struct Fast(Trace);

impl Hasher for Fast {
    fn finish(&self) -> u64 {
        self.0.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0.write_u64(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.0.write_usize(number);
    }
}

/// What the spectator knows.
#[derive(Default)]
pub(super) struct Checks {
    leaders: Map<u64, usize>,
    votes: Map<(u64, u64), RaftId>,
    /// For each position the payload and the position before.
    entries: Map<LogId, (u64, LogId)>,
    /// The committed entries: index → term and payload.
    applied: Map<u64, (u64, u64)>,
    /// Whose id it is, forever (obligation O7).
    ids: Map<u64, Incarnation>,
    /// Committed lists of members.
    pub(super) lists: BTreeMap<u64, (u64, Vec<Member>)>,
    /// The last committed entry.
    pub(super) committed: LogId,
    /// The last entry whose commit was acknowledged to a caller.
    pub(super) acknowledged: u64,
}

/// A broken rule, in words.
pub(super) type Broken = String;

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = Fast::default();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl Checks {
    /// Election safety: at most one leader per term.
    pub(super) fn leads(&mut self, node: usize, term: u64) -> Result<(), Broken> {
        match *self.leaders.entry(term).or_insert(node) {
            other if other == node => Ok(()),
            other => Err(format!("nodes {other} and {node} lead term {term}")),
        }
    }

    /// One vote per member and term.
    pub(super) fn votes(&mut self, voter: RaftId, term: u64, candidate: RaftId) -> Result<(), Broken> {
        match *self.votes.entry((voter.0, term)).or_insert(candidate) {
            other if other == candidate => Ok(()),
            other => Err(format!("member {voter} votes for {other} and {candidate} in term {term}")),
        }
    }

    /// Log matching: a position has one payload and one position before it, in every log.
    pub(super) fn appends(&mut self, node: usize, before: LogId, entries: &[Entry]) -> Result<(), Broken> {
        let mut before = before;
        for entry in entries {
            let new = (hash(&entry.payload), before);
            if *self.entries.entry(entry.id).or_insert(new) != new {
                return Err(format!("node {node} has another entry at {:?}", entry.id));
            }
            before = entry.id;
        }
        Ok(())
    }

    /// State-machine safety: all nodes apply the same entry at an index.
    pub(super) fn applies(&mut self, node: usize, entry: &Entry) -> Result<(), Broken> {
        let new = (entry.id.term, hash(&entry.payload));
        if *self.applied.entry(entry.id.index).or_insert(new) != new {
            return Err(format!("node {node} applies another entry at {:?}", entry.id));
        }
        if Payload::is_members(&entry.payload)
            && let Ok(Payload::Members(list)) = Payload::decode(&entry.payload)
        {
            for member in &list {
                if *self.ids.entry(member.id.0).or_insert(member.incarnation) != member.incarnation {
                    return Err(format!("id {} belongs to two members", member.id));
                }
            }
            self.lists.insert(entry.id.index, (entry.id.term, list));
        }
        Ok(())
    }

    /// A snapshot contains what others have applied.
    pub(super) fn installs(&self, node: usize, last: LogId) -> Result<(), Broken> {
        match self.applied.get(&last.index) {
            Some((term, _)) if *term != last.term => Err(format!("node {node} installs another state at {last:?}")),
            _ => Ok(()),
        }
    }

    /// A ReadIndex is not below what was acknowledged before the call.
    pub(super) fn reads(node: usize, index: u64, floor: u64) -> Result<(), Broken> {
        if index < floor { Err(format!("node {node} reads at {index}, and {floor} was acknowledged")) } else { Ok(()) }
    }

    /// The newest committed list.
    pub(super) fn newest_list(&self) -> Option<(LogId, &[Member])> {
        let (index, (term, list)) = self.lists.last_key_value()?;
        Some((LogId { term: *term, index: *index }, list))
    }
}
