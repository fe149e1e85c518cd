//! Nodes that end and start again.

use std::sync::Arc;

use super::{Cluster, NAMES, Replica};
use crate::{Node, SealSet, Settings};

impl Cluster {
    /// A node in a new process with these seals, sealed. Its old process has given the leadership to another node.
    pub(in crate::tests) async fn restart(
        &mut self,
        name: &'static str,
        seals: SealSet,
        change: impl FnOnce(&mut Settings),
    ) {
        let at = NAMES.iter().position(|known| *known == name).unwrap();
        let server = &mut self.nodes[at];
        server.node.lifecycle.seal().await;
        change(&mut server.settings);
        let replica = Arc::new(Replica { shared: self.shared.clone(), name });
        let clock = Arc::new(server.clock.clone());
        server.node = Node::new(replica, keepfast_engines::all(), clock, (server.settings.clone(), seals));
        self.shared.servers.lock().insert(name, Arc::downgrade(&server.node));
    }
}
