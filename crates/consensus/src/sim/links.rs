//! The connections between simulated nodes, and what cuts them.

/// One direction between two nodes.
#[derive(Clone, Copy, Default)]
pub struct Link {
    /// Counts the connections.
    pub generation: u32,
    /// The newest generation that the receiver has seen, where the simulation needs it.
    pub seen: u32,
    /// When the last message of this generation arrives.
    pub busy_until: u64,
    /// Nothing passes until this time.
    pub cut_until: u64,
}

/// All links between some nodes. Times are microseconds.
pub struct Links {
    links: Vec<Link>,
    nodes: usize,
}

impl Links {
    /// The kinds of [`cut_some`](Self::cut_some).
    pub const CUTS: u64 = 5;

    /// The links between this number of nodes.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self { links: vec![Link::default(); nodes * nodes], nodes }
    }

    /// The link from one node to another.
    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.nodes + to]
    }

    /// A new connection. The simulation decides what becomes of messages that are under way on the old one.
    pub fn reset(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        link.generation += 1;
        link.busy_until = 0;
    }

    /// New connections to and from a node.
    pub fn reset_all(&mut self, node: usize) {
        for peer in 0..self.nodes {
            self.reset(node, peer);
            self.reset(peer, node);
        }
    }

    /// Nothing passes from one node to the other.
    pub fn cut(&mut self, from: usize, to: usize, until: u64) {
        let link = self.link(from, to);
        link.cut_until = link.cut_until.max(until);
        link.generation += 1;
    }

    /// Cuts, by a `kind` below [`CUTS`](Self::CUTS): one direction between two nodes, both, or one or both directions
    /// between a node and all others.
    pub fn cut_some(&mut self, kind: u64, victim: usize, other: usize, until: u64) {
        for peer in 0..self.nodes {
            let (is_in, is_out) = match kind {
                0 => (peer == other, false),
                1 => (peer == other, peer == other),
                2 => (true, false),
                3 => (false, true),
                _ => (true, true),
            };
            if is_in {
                self.cut(peer, victim, until);
            }
            if is_out {
                self.cut(victim, peer, until);
            }
        }
    }

    /// Ends all cuts.
    pub fn heal(&mut self) {
        self.links.iter_mut().for_each(|link| link.cut_until = 0);
    }
}
