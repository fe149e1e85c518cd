//! Links between nodes. Packets of one connection arrive in order; what an older connection still brings is dropped.

use keepfast_consensus::{Chance, sim::Rng};

use super::weather::Weather;

/// One direction between two nodes.
#[derive(Clone, Copy, Default)]
struct Link {
    generation: u32,
    /// When the last packet of this generation arrives.
    busy_until: u64,
    cut_until: u64,
}

/// All links.
pub(super) struct Network {
    links: Vec<Link>,
    nodes: usize,
    /// Packets that were lost.
    pub(super) lost: u64,
}

impl Network {
    pub(super) fn new(nodes: usize) -> Self {
        Self { links: vec![Link::default(); nodes * nodes], nodes, lost: 0 }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.nodes + to]
    }

    /// When a packet that is sent now arrives, and the generation of its connection; `None` when it is lost.
    pub(super) fn send(&mut self, from: usize, to: usize, now: u64, w: &Weather, rng: &mut Rng) -> Option<(u64, u32)> {
        let mut delay = rng.range(200, 4000);
        if rng.hits(w.late) {
            delay += rng.below(w.latest);
        }
        let is_lost = rng.hits(w.lost);
        let link = self.link(from, to);
        if is_lost || now < link.cut_until {
            self.lost += 1;
            return None;
        }
        link.busy_until = link.busy_until.max(now + delay) + 1;
        Some((link.busy_until, link.generation))
    }

    /// Whether the receiver takes a packet of this generation.
    pub(super) fn receives(&mut self, from: usize, to: usize, generation: u32) -> bool {
        let is_current = self.link(from, to).generation == generation;
        self.lost += u64::from(!is_current);
        is_current
    }

    /// A new connection.
    pub(super) fn reset(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        link.generation += 1;
        link.busy_until = 0;
    }

    /// Nothing passes from one node to the other.
    pub(super) fn cut(&mut self, from: usize, to: usize, until: u64) {
        let link = self.link(from, to);
        link.cut_until = link.cut_until.max(until);
        link.generation += 1;
    }

    pub(super) fn heal(&mut self) {
        self.links.iter_mut().for_each(|link| link.cut_until = 0);
    }
}
