//! The role of a node in the cluster that shares its storage. `storage "raft"` is a cluster of one node, which leads.

use std::sync::Arc;

/// The role of a node in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The node takes commits.
    Leading,
    /// Another node takes commits; here they fail with [`StorageError::NotLeader`](crate::StorageError::NotLeader).
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
    /// Whether the node takes commits.
    pub fn is_leading(&self) -> bool {
        matches!(self, Role::Leading)
    }
}
