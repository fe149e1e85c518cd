//! Links between nodes. A message may be lost, late or doubled; those of one connection arrive in order. A connection
//! has a generation, and what an older one still brings is dropped by the receiver (obligation of the transport).

use super::links::Links;
use super::rng::Rng;
use super::weather::Weather;
use crate::steps::Chance;

/// What becomes of a message; a time of 0 is none.
pub(super) struct Sent {
    pub(super) generation: u32,
    pub(super) times: [u64; 2],
    pub(super) is_replaced: bool,
}

/// All links.
pub(super) struct Network {
    pub(super) links: Links,
    /// Messages that were lost, doubled or of an older connection.
    pub(super) faults: u64,
}

impl Network {
    pub(super) fn new(nodes: usize) -> Self {
        Self { links: Links::new(nodes), faults: 0 }
    }

    /// The times at which a message that is sent now arrives, the generation of its connection, and whether another
    /// connection takes its place.
    pub(super) fn send(&mut self, from: usize, to: usize, now: u64, w: &Weather, rng: &mut Rng) -> Sent {
        let link = self.links.link(from, to);
        if now < link.cut_until || rng.hits(w.drop) {
            self.faults += 1;
            return Sent { generation: link.generation, times: [0, 0], is_replaced: false };
        }
        let mut delay = rng.range(200, 4000);
        let is_late = rng.hits(w.late);
        if is_late {
            delay += rng.below(w.latest);
        }
        let at = link.busy_until.max(now + delay) + 1;
        let again = if rng.hits(w.double) { at + 1 } else { 0 };
        self.faults += u64::from(again > 0);
        link.busy_until = at.max(again);
        let generation = link.generation;
        // The sender takes a slow connection for a dead one and opens another.
        let is_replaced = is_late && rng.hits(4000);
        if is_replaced {
            self.links.reset(from, to);
        }
        Sent { generation, times: [at, again], is_replaced }
    }

    /// Whether the receiver takes a message of this generation.
    pub(super) fn receives(&mut self, from: usize, to: usize, generation: u32, takes_old: bool) -> bool {
        let link = self.links.link(from, to);
        let is_old = generation < link.seen;
        link.seen = link.seen.max(generation);
        self.faults += u64::from(is_old);
        !is_old || takes_old
    }
}
