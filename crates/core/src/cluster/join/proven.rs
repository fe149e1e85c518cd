//! Nodes that have proved the root key to this one while no list here has them: a node that was away during a change of the
//! members and a rotation of the keyring has no keys of theirs, and learns from them where it gets the keys.

use std::time::Duration;

use keepfast_framework::Timestamp;
use keepfast_storage::Member;
use parking_lot::Mutex;

/// The most of them; the oldest are dropped first.
const MAX: usize = 16;
/// The time for which one is remembered: it repeats its request earlier.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The nodes that have proved the root key lately.
#[derive(Default)]
pub(crate) struct ProvenNodes(Mutex<Vec<(Timestamp, Member)>>);

impl ProvenNodes {
    /// Adds a node, as it has described itself.
    pub(super) fn add(&self, node: Member, now: Timestamp) {
        let mut nodes = self.0.lock();
        nodes.retain(|(_, known)| known.incarnation != node.incarnation);
        nodes.push((now, node));
        let surplus = nodes.len().saturating_sub(MAX);
        nodes.drain(..surplus);
    }

    /// Those that are remembered.
    pub(super) fn list(&self, now: Timestamp) -> Vec<Member> {
        let mut nodes = self.0.lock();
        nodes.retain(|(added, _)| now.since(*added) < REMEMBERED);
        nodes.iter().map(|(_, node)| node.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fake::member;

    #[test]
    fn proven_nodes_are_few_and_remembered_for_a_minute() {
        let nodes = ProvenNodes::default();
        let at = |seconds: i64| Timestamp::from_unix(1_000_000 + seconds);
        for number in 1..=20 {
            nodes.add(member(number), at(0));
        }
        let ids = |now| nodes.list(now).iter().map(|node| node.id.0).collect::<Vec<_>>();
        assert_eq!(ids(at(0)), (5..=20).collect::<Vec<_>>());
        nodes.add(member(7), at(30));
        assert_eq!((ids(at(59)).len(), ids(at(60)), ids(at(90))), (16, vec![7], vec![]));
    }
}
