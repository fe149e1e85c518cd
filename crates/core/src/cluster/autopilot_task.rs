//! The ticks of autopilot on the leader, and the commits of the changes that they return.

use std::sync::{Arc, Weak};

use keepfast_framework::Result;
use keepfast_storage::{Barrier, Change, ClusterStatus, Consensus};

use super::autopilot::{AutopilotConfig, tick};
use super::members::{change as change_members, find, remove};
use crate::lifecycle::Lifecycle;

/// The ticks of the leader; they stop when this is dropped.
pub(crate) struct AutopilotTask(tokio::task::JoinHandle<()>);

impl Drop for AutopilotTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl AutopilotTask {
    /// Starts the ticks of this server.
    pub(crate) fn start(server: Weak<Lifecycle>) -> Self {
        AutopilotTask(tokio::spawn(async move {
            let parts_of =
                |server: Arc<Lifecycle>| (server.parts.clock.clone(), server.parts.settings.autopilot_interval);
            while let Some((clock, interval)) = server.upgrade().map(parts_of) {
                clock.sleep_until(clock.now().after(interval)).await;
                let Some(server) = server.upgrade() else { return };
                if let Err(error) = advance(&server).await {
                    let cause = error.cause().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, %cause, "autopilot cannot change the members");
                }
            }
        }))
    }
}

/// One tick, for the background tasks of the leader: commits the change that is due. Without a cluster it does nothing.
///
/// Fails when the change is not committed; the next tick tries again.
pub(crate) async fn advance(server: &Lifecycle) -> Result<()> {
    let Some((consensus, unsealed)) = server.parts.backend.consensus().zip(server.unsealed()) else { return Ok(()) };
    let config = AutopilotConfig::load(&unsealed.barrier).await?;
    let status = consensus.status();
    let changes = tick(&status, &config, server.parts.clock.now(), &mut server.administration.autopilot.lock());
    for change in changes {
        apply(server, &*consensus, &unsealed.barrier, &status, change).await?;
    }
    Ok(())
}

async fn apply(
    server: &Lifecycle,
    consensus: &dyn Consensus,
    barrier: &Arc<Barrier>,
    status: &ClusterStatus,
    change: Change,
) -> Result<()> {
    match &change {
        Change::Remove(node) => {
            let Some(member) = find(status, node) else { return Ok(()) };
            tracing::warn!(node, "autopilot removes a member that was silent for long");
            remove(consensus, barrier, &*server.parts.clock, member).await
        }
        Change::Promote(node) => {
            tracing::info!(node, "autopilot promotes a member to a voter");
            change_members(consensus, change).await
        }
        _ => change_members(consensus, change).await,
    }
}
