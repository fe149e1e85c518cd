//! What a node is in the cluster that shares its storage.

use std::sync::Arc;

/// What a node is in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It takes commits.
    Leading,
    /// Another node takes commits; here they fail with [`StorageError::NotLeader`](crate::StorageError::NotLeader).
    Following {
        /// The node that leads; `None` while that is not known.
        leader: Option<Arc<Leader>>,
    },
}

/// Where clients and other nodes reach the node that leads.
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
