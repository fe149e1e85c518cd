//! Links between nodes. Packets of one connection arrive in order; what an older connection still brings is dropped.

use keepfast_consensus::{
    Chance,
    sim::{Links, Rng},
};

use super::weather::Weather;

/// All links.
pub(super) struct Network {
    pub(super) links: Links,
    /// Packets that were lost.
    pub(super) lost: u64,
}

impl Network {
    pub(super) fn new(nodes: usize) -> Self {
        Self { links: Links::new(nodes), lost: 0 }
    }

    /// When a packet that is sent now arrives, and the generation of its connection; `None` when it is lost.
    pub(super) fn send(&mut self, from: usize, to: usize, now: u64, w: &Weather, rng: &mut Rng) -> Option<(u64, u32)> {
        let mut delay = rng.range(200, 4000);
        if rng.hits(w.late) {
            delay += rng.below(w.latest);
        }
        let is_lost = rng.hits(w.lost);
        let link = self.links.link(from, to);
        if is_lost || now < link.cut_until {
            self.lost += 1;
            return None;
        }
        link.busy_until = link.busy_until.max(now + delay) + 1;
        Some((link.busy_until, link.generation))
    }

    /// Whether the receiver takes a packet of this generation.
    pub(super) fn receives(&mut self, from: usize, to: usize, generation: u32) -> bool {
        let is_current = self.links.link(from, to).generation == generation;
        self.lost += u64::from(!is_current);
        is_current
    }
}
