//! The role of a node in its cluster. A node of `storage "raft"` without other members leads.

use std::sync::Arc;

/// The role of a node in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The node commits, and has applied all that was committed before.
    Leading,
    /// Another node leads, and commits are passed on to it; without one they fail with
    /// [`StorageError::NoLeader`](crate::StorageError::NoLeader).
    Following {
        /// The leader; `None` while it is unknown.
        leader: Option<Arc<Leader>>,
    },
}

/// The addresses of the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The address for clients.
    pub api_addr: String,
    /// The address for the other nodes.
    pub cluster_addr: String,
}

impl Role {
    /// Whether the node leads.
    pub fn is_leading(&self) -> bool {
        matches!(self, Role::Leading)
    }
}
