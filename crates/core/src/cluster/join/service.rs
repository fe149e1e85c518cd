//! What other members use of a node that joins: it has no unsealed server yet.

use std::sync::Arc;

use async_trait::async_trait;
use keepfast_framework::Incoming;
use keepfast_storage::{Backend, Member, Origin};

use crate::Response;
use crate::cluster::port::{ComingRoot, PeerService};

/// The service of a node without the records of the cluster.
pub(super) struct JoiningService {
    pub(super) backend: Arc<dyn Backend>,
    /// The members when it joined.
    pub(super) members: Vec<Member>,
}

#[async_trait]
impl PeerService for JoiningService {
    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    fn is_member(&self, origin: &Origin) -> bool {
        let is_same = |m: &Member| m.node == origin.node && m.incarnation == origin.incarnation;
        let newer = self.backend.consensus().map(|consensus| consensus.status().members).unwrap_or_default();
        self.members.iter().chain(&newer).any(is_same)
    }

    fn expect_root(&self, _: &Origin, _: ComingRoot) -> bool {
        false
    }

    async fn handle_forwarded(&self, _: &Origin, request: Box<Incoming>) -> Result<(Response, u64), Box<Incoming>> {
        Err(request)
    }
}
