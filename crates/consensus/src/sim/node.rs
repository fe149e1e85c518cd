//! A simulated node: its disk, its clock, and its process while it runs.

use std::collections::{HashMap, VecDeque};

use super::disk::Disk;
use super::world::{Event, TICK_MS};
use crate::entry::{LogId, Mono, RaftId};
use crate::frame::Frame;
use crate::member::{Incarnation, Member};
use crate::steps::Steps;

/// A clock with an error of rate and a beginning of its own.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) offset: u64,
    /// Millionths by which it runs, 1,000,000 for an exact one.
    pub(super) rate: u64,
}

impl Clock {
    pub(super) fn read(self, time: u64) -> Mono {
        Mono(self.offset + time * self.rate / 1_000_000)
    }
}

/// What a node is, as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It has an empty disk and belongs to no cluster.
    Spare,
    /// It has the disk of a member.
    Member,
    /// It has lost its disk and takes itself for the member that it was.
    Impostor,
}

/// A node.
pub(super) struct Node {
    pub(super) number: usize,
    pub(super) incarnation: u32,
    pub(super) place: Place,
    pub(super) id: RaftId,
    pub(super) disk: Disk,
    /// The disk that it has lost, of the incarnation before: what it acknowledged counts.
    pub(super) lost: Option<Disk>,
    pub(super) clock: Clock,
    pub(super) process: Option<Process>,
    /// Counts the processes, so that events of an older one are dropped.
    pub(super) run: u32,
    pub(super) paused_until: u64,
    /// The configured election timeout, in ticks.
    pub(super) election_ticks: u32,
    pub(super) backlog: VecDeque<Event>,
}

/// A ReadIndex call that a node works on.
#[derive(Clone, Copy)]
pub(super) struct Call {
    /// What was acknowledged before the call.
    pub(super) floor: u64,
}

/// What a crash destroys.
pub(super) struct Process {
    pub(super) steps: Steps,
    /// Frames that wait for the disk, and the one that is being synced.
    pub(super) waiting: Option<Frame>,
    pub(super) syncing: Option<Frame>,
    pub(super) commit: u64,
    pub(super) applied: u64,
    pub(super) members: Vec<Member>,
    /// Where messages of members came from that the list may lack.
    pub(super) senders: HashMap<RaftId, (usize, Incarnation)>,
    pub(super) is_applying: bool,
    /// Positions that callers wait for.
    pub(super) proposed: VecDeque<LogId>,
    pub(super) calls: HashMap<u64, Call>,
    pub(super) term: u64,
    pub(super) committed: u64,
}

impl Node {
    pub(super) fn name(number: usize) -> String {
        format!("node{number}")
    }

    pub(super) fn incarnation(number: usize, count: u32) -> Incarnation {
        let mut incarnation = [0; 16];
        incarnation[0] = number as u8 + 1;
        incarnation[1..5].copy_from_slice(&count.to_le_bytes());
        incarnation
    }

    /// The entry of this node in a list.
    pub(super) fn member(&self, id: RaftId, voter: bool) -> Member {
        Member {
            id,
            node: Self::name(self.number),
            incarnation: Self::incarnation(self.number, self.incarnation),
            cluster_addr: String::new(),
            api_addr: String::new(),
            voter,
            wants_vote: true,
            election_ms: self.election_ticks * TICK_MS,
            version: String::new(),
        }
    }

    pub(super) fn is_listed(&self, member: &Member) -> bool {
        member.incarnation == Self::incarnation(self.number, self.incarnation)
    }

    /// The disk of a member, or the one that it has lost.
    pub(super) fn disk_of(&self, member: &Member) -> Option<&Disk> {
        if self.is_listed(member) {
            return Some(&self.disk);
        }
        let before = self.incarnation.checked_sub(1).map(|count| Self::incarnation(self.number, count));
        self.lost.as_ref().filter(|_| before == Some(member.incarnation))
    }

    /// The number of the node of a member.
    pub(super) fn number_of(member: &Member) -> usize {
        usize::from(member.incarnation[0]) - 1
    }
}
