//! The place of this node in its cluster, if its storage has one.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::Clock;
use keepfast_storage::{Backend, ClusterStatus, Consensus, Role};
use tokio::sync::watch;

use super::clocks::Clocks;
use super::port::ClusterPort;
use super::taken_over::TakenOver;
use crate::settings::Settings;

/// The time in which a node without other members becomes the leader.
const LEADS_WITHIN: Duration = Duration::from_secs(5);

/// The place of this node in its cluster.
pub(crate) struct Membership {
    /// `None` on a storage without a cluster.
    roles: Option<watch::Receiver<Role>>,
    /// `None` on a storage that is not replicated.
    consensus: Option<Arc<dyn Consensus>>,
    /// `None` without a cluster port.
    port: Option<Arc<dyn ClusterPort>>,
    /// Whether this node has taken over as the leader.
    pub(crate) taken_over: TakenOver,
    /// The differences between the clocks of the members.
    pub(crate) clocks: Arc<Clocks>,
}

impl Membership {
    /// The place of the node with this storage.
    pub(crate) fn new(backend: &dyn Backend, settings: &Settings) -> Self {
        Membership {
            roles: backend.roles(),
            consensus: backend.consensus(),
            port: settings.cluster_port.clone(),
            taken_over: TakenOver::default(),
            clocks: Arc::default(),
        }
    }

    /// The role of this node; `None` when the storage has no cluster.
    pub(crate) fn role(&self) -> Option<Role> {
        self.roles.as_ref().map(|roles| roles.borrow().clone())
    }

    /// The role and its changes.
    pub(crate) fn roles(&self) -> Option<watch::Receiver<Role>> {
        self.roles.clone()
    }

    /// Whether this node takes the commits of this storage.
    pub(crate) fn is_active(&self) -> bool {
        self.roles.as_ref().is_none_or(|roles| roles.borrow().is_leading())
    }

    /// Whether no other node takes the commits of this storage: it has no cluster, one without other members, or one
    /// whose roles do not change.
    pub(crate) fn is_alone(&self) -> bool {
        match (&self.consensus, &self.roles) {
            (Some(consensus), _) => consensus.is_alone(),
            (None, roles) => roles.as_ref().is_none_or(|roles| roles.has_changed().is_err()),
        }
    }

    /// Whether this node leads now. A node without other members is the leader as soon as it has started.
    pub(crate) async fn leads_soon(&self, clock: &dyn Clock) -> bool {
        let Some(roles) = &self.roles else { return true };
        if self.consensus.is_some() && self.is_alone() {
            let mut roles = roles.clone();
            tokio::select! {
                _ = roles.wait_for(Role::is_leading) => {}
                () = clock.sleep_until(clock.now().after(LEADS_WITHIN)) => {}
            }
        }
        self.is_active()
    }

    /// The state of the log and the members; `None` on a storage that is not replicated.
    pub(crate) fn cluster_status(&self) -> Option<ClusterStatus> {
        self.consensus.as_ref().map(|consensus| consensus.status())
    }

    /// The members and the log of a replicated storage.
    pub(crate) fn consensus(&self) -> Option<&Arc<dyn Consensus>> {
        self.consensus.as_ref()
    }

    /// The same if there are other members. Costs one check of a flag.
    pub(crate) fn with_others(&self) -> Option<&Arc<dyn Consensus>> {
        self.consensus.as_ref().filter(|consensus| !consensus.is_alone())
    }

    /// The cluster port.
    pub(crate) fn port(&self) -> Option<&Arc<dyn ClusterPort>> {
        self.port.as_ref()
    }
}
