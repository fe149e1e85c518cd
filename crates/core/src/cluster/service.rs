//! What the other members of the cluster use of this node.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use keepfast_crypto::hash::sha256;
use keepfast_framework::{ClusterPart, Incoming, Timestamp};
use keepfast_storage::{Backend, Consensus, Origin, PeerKind};

use super::clock_task;
use super::place::Site;
use super::port::{ComingRoot, PeerService};
use crate::lifecycle::Lifecycle;
use crate::request::Response;
use crate::seal::current::stored_record;
use crate::self_init::gate::Phase;
use crate::unseal::keeper::checked_slots;

/// The time in which the leader must confirm that it leads.
pub(crate) const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// Serves the other members of the cluster.
pub(crate) struct ServedPeers {
    lifecycle: Weak<Lifecycle>,
    backend: Arc<dyn Backend>,
    consensus: Arc<dyn Consensus>,
}

impl ServedPeers {
    /// The service of this server, whose storage is replicated by `consensus`.
    pub(crate) fn new(lifecycle: &Arc<Lifecycle>, consensus: Arc<dyn Consensus>) -> Self {
        ServedPeers { lifecycle: Arc::downgrade(lifecycle), backend: lifecycle.parts.backend.clone(), consensus }
    }

    fn is_leader(&self, origin: &Origin) -> bool {
        let leader = self.consensus.status().leader;
        leader.is_some_and(|it| it.node == origin.node && it.incarnation == origin.incarnation)
    }
}

#[async_trait]
impl PeerService for ServedPeers {
    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    fn peer_kind(&self, origin: &Origin) -> PeerKind {
        self.consensus.peer_kind(origin)
    }

    fn exchange_clock(&self, from: &Origin, leader: Timestamp) -> Option<Timestamp> {
        let lifecycle = self.lifecycle.upgrade().filter(|_| self.is_leader(from))?;
        Some(clock_task::exchange(&lifecycle.parts.membership, &*lifecycle.parts.clock, leader))
    }

    fn expect_root(&self, from: &Origin, coming: ComingRoot) -> bool {
        let Some(lifecycle) = self.lifecycle.upgrade().filter(|_| self.is_leader(from)) else { return false };
        let clock = lifecycle.parts.clock.clone();
        lifecycle.unsealed().is_some_and(|unsealed| unsealed.current_seal.expect(&unsealed.barrier, &coming, clock))
    }

    async fn open_slots(&self, from: &Origin, record: &[u8; 32]) -> Option<u64> {
        let lifecycle = self.lifecycle.upgrade().filter(|_| self.is_leader(from))?;
        let (stored, config) = stored_record(&lifecycle.unsealed()?.current_seal).await.ok()?;
        if sha256(&stored) != *record {
            return None;
        }
        Some(checked_slots(&lifecycle.seals, &config, &*lifecycle.parts.clock).await)
    }

    /// Runs the stages as for a request of this node's own listeners. What is judged where a request arrives, such as
    /// quotas, was judged there.
    async fn handle_forwarded(
        &self,
        from: &Origin,
        mut request: Box<Incoming>,
    ) -> Result<(Response, u64), Box<Incoming>> {
        let Some(lifecycle) = self.lifecycle.upgrade() else { return Err(request) };
        if !lifecycle.parts.is_active() {
            return Err(request);
        }
        let Ok(settled) = self.consensus.settled(SETTLES_WITHIN).await else { return Err(request) };
        if !lifecycle.parts.membership.taken_over.wait(&*lifecycle.parts.clock).await {
            return Err(request);
        }
        // The role may have changed meanwhile, and the node may have been sealed.
        let namespaces = lifecycle.namespaces().filter(|_| lifecycle.parts.is_active());
        let Some(namespaces) = namespaces else { return Err(request) };
        if lifecycle.self_init.phase() != Phase::Off
            && let Some(error) = Box::pin(lifecycle.self_init.refusal(&namespaces.root().server().barrier)).await
        {
            return Ok((Response::failed(&error), settled.0));
        }
        request.cluster =
            Some(Box::new(ClusterPart { forwarded_from: Some(from.node.clone()), ..ClusterPart::default() }));
        let response = match namespaces.resolve(&mut request).await {
            Ok(pipeline) => pipeline.handle(request, Site::Leader).await?,
            Err(error) => namespaces.root().refuse_unresolved(request, error).await,
        };
        let index = response.committed().unwrap_or(settled).max(settled);
        Ok((response, index.0))
    }
}
