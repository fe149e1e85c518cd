//! The memory of a connection that counts against the limit of unauthenticated connections.

use std::sync::Arc;

use super::Peer;

/// A number of bytes that a connection holds until this is dropped. They count only while the connection is
/// unauthenticated.
pub(crate) struct Charge {
    peer: Arc<Peer>,
    bytes: usize,
}

impl Charge {
    /// Counts bytes.
    pub(crate) fn new(peer: &Arc<Peer>, bytes: usize) -> Self {
        let mut charge = Charge { peer: peer.clone(), bytes: 0 };
        charge.set(bytes);
        charge
    }

    /// Sets the number of bytes. A connection that has authenticated adds none.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes && !self.peer.is_authenticated() {
            self.peer.hold(bytes - self.bytes);
            self.bytes = bytes;
        } else if bytes < self.bytes {
            self.peer.release(self.bytes - bytes);
            self.bytes = bytes;
        }
    }

    /// Adds bytes.
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
