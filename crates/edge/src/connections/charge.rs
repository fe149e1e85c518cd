//! Memory that a connection holds, counted against the bound of strangers.

use std::sync::Arc;

use super::Peer;

/// So many bytes of memory, held by a connection until this is dropped. Only what a stranger's connection holds counts.
pub(crate) struct Charge {
    peer: Arc<Peer>,
    bytes: usize,
}

impl Charge {
    /// Counts so many bytes.
    pub(crate) fn new(peer: &Arc<Peer>, bytes: usize) -> Self {
        let mut charge = Charge { peer: peer.clone(), bytes: 0 };
        charge.set(bytes);
        charge
    }

    /// Counts as many bytes from now on. A connection that has become known adds none.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes && !self.peer.is_known() {
            self.peer.hold(bytes - self.bytes);
            self.bytes = bytes;
        } else if bytes < self.bytes {
            self.peer.release(self.bytes - bytes);
            self.bytes = bytes;
        }
    }

    /// Counts so many bytes more.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_add(bytes));
    }

    /// Whether it counts any bytes.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.peer.release(self.bytes);
        }
    }
}
