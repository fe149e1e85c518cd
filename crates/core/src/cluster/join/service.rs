//! What other members use of a node that joins: it has no unsealed server yet.

use std::sync::Arc;

use async_trait::async_trait;
use keepfast_framework::Incoming;
use keepfast_storage::{Backend, Member, Origin, PeerKind};

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

    fn peer_kind(&self, origin: &Origin) -> PeerKind {
        let is_same = |m: &Member| m.node == origin.node && m.incarnation == origin.incarnation;
        let kind = self.backend.consensus().map_or(PeerKind::Unknown, |consensus| consensus.peer_kind(origin));
        match kind {
            PeerKind::Unknown if self.members.iter().any(is_same) => PeerKind::Member,
            known => known,
        }
    }

    fn expect_root(&self, _: &Origin, _: ComingRoot) -> bool {
        false
    }

    async fn handle_forwarded(&self, _: &Origin, request: Box<Incoming>) -> Result<(Response, u64), Box<Incoming>> {
        Err(request)
    }
}
