//! The first leader of a recovered cluster: an operator has replaced the list of members of a cluster without a quorum, on
//! each node that is left. A node had applied its whole log before, and begins a new one after it (obligation O12).
//!
//! Logs that end with the same entry have the same state. A leader whose log ends with another one replaces the state of
//! this node by a snapshot. But a leader whose log is shorter sends entries at indexes that this node has applied: to
//! acknowledge them would count for a log that this node does not have, so it must stop. Once an entry of the recovered
//! cluster is applied here, every later leader has all that this node had.

use super::Steps;
use crate::message::{Body, Message};

impl Steps {
    /// Whether a message shows that its leader lacks entries that this node has applied. The node then stops.
    pub(super) fn is_behind_recovery(&mut self, message: &Message) -> bool {
        if self.recovered == 0 || self.applied > self.recovered || message.term < self.node.raft.term {
            return false;
        }
        let index = match &message.body {
            Body::Append { previous, .. } => previous.index,
            Body::Snapshot { last, .. } => last.index,
            _ => return false,
        };
        let is_behind = index < self.recovered;
        if is_behind {
            self.fault = Some(format!(
                "the recovered cluster has a leader without entries that this node has, up to {}: empty the data \
                 directory of this node, and let it join",
                self.recovered
            ));
        }
        is_behind
    }
}
