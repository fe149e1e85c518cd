//! Nodes with a certificate of the cluster that no list of this node has. This node may lack the part of the log that adds
//! them, and without their messages it may never get it: one of them can be the only node that can lead. They send
//! messages of Raft and snapshots, nothing else.

use std::collections::HashMap;
use std::time::Duration;

use keepfast_framework::Timestamp;
use keepfast_storage::Origin;
use parking_lot::Mutex;

/// The most of them.
const MAX: usize = 16;
/// The time without a message after which one is dropped.
const SILENCE: Duration = Duration::from_secs(60);

/// The nodes that no list has.
#[derive(Default)]
pub(super) struct UnknownNodes(Mutex<HashMap<Origin, Unknown>>);

struct Unknown {
    /// Its `cluster_addr`, as it has sent it.
    address: String,
    heard: Timestamp,
}

impl Unknown {
    fn is_silent(&self, now: Timestamp) -> bool {
        now.since(self.heard) >= SILENCE
    }
}

impl UnknownNodes {
    /// Adds a node, or its new address. Returns false when there are too many.
    pub(super) fn admit(&self, origin: &Origin, address: &str, now: Timestamp) -> bool {
        let mut nodes = self.0.lock();
        if !nodes.contains_key(origin) && nodes.len() >= MAX {
            return false;
        }
        nodes.insert(origin.clone(), Unknown { address: address.to_owned(), heard: now });
        true
    }

    /// Notes a message, if the node is one of them.
    pub(super) fn heard(&self, origin: &Origin, now: Timestamp) {
        if let Some(node) = self.0.lock().get_mut(origin) {
            node.heard = now;
        }
    }

    /// Whether a node is one of them, and was heard within a minute.
    pub(super) fn contains(&self, origin: &Origin, now: Timestamp) -> bool {
        self.0.lock().get(origin).is_some_and(|node| !node.is_silent(now))
    }

    /// The address of one of them.
    pub(super) fn address(&self, origin: &Origin) -> Option<String> {
        self.0.lock().get(origin).map(|node| node.address.clone()).filter(|address| !address.is_empty())
    }

    /// Drops those that are silent, and those that are not unknown any more.
    pub(super) fn retain(&self, now: Timestamp, is_unknown: impl Fn(&Origin) -> bool) {
        self.0.lock().retain(|origin, node| !node.is_silent(now) && is_unknown(origin));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(number: usize) -> Origin {
        Origin { node: format!("n{number}"), incarnation: [number as u8; 16] }
    }

    #[test]
    fn sec_unknown_nodes_are_few_and_silent_ones_make_room() {
        let nodes = UnknownNodes::default();
        let at = |seconds: i64| Timestamp::from_unix(1_000_000 + seconds);
        assert!((0..MAX).all(|number| nodes.admit(&origin(number), "a:1", at(0))));
        assert!(!nodes.admit(&origin(MAX), "a:1", at(0)) && nodes.admit(&origin(0), "b:1", at(0)));
        assert_eq!(nodes.address(&origin(0)).as_deref(), Some("b:1"));
        nodes.heard(&origin(0), at(30));
        assert!(nodes.contains(&origin(1), at(59)) && !nodes.contains(&origin(1), at(60)));
        nodes.retain(at(60), |_| true);
        assert!(nodes.contains(&origin(0), at(60)) && !nodes.contains(&origin(MAX), at(60)));
        assert!(nodes.admit(&origin(MAX), "", at(60)) && nodes.address(&origin(MAX)).is_none());
        nodes.retain(at(60), |known| *known != origin(0));
        assert!(!nodes.contains(&origin(0), at(60)));
    }
}
