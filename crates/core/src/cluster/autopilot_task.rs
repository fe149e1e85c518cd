//! The ticks of autopilot on the leader, and the commits of the changes that they return.

use std::sync::{Arc, Weak};
use std::time::Duration;

use keepfast_framework::Result;
use keepfast_storage::{Barrier, Change, ClusterStatus, Consensus};

use super::autopilot::{AutopilotConfig, pause, tick};
use super::keys::changed;
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
        AutopilotTask(tokio::spawn(run(server)))
    }
}

// The lifecycle is not kept: a server that is dropped ends the ticks.
async fn run(server: Weak<Lifecycle>) {
    let consensus = server.upgrade().and_then(|server| server.parts.membership.consensus().cloned());
    let mut members = consensus.as_ref().and_then(|consensus| consensus.member_changes());
    while let Some((clock, pause)) = server.upgrade().map(|server| (server.parts.clock.clone(), pause_of(&server))) {
        tokio::select! {
            () = clock.sleep_until(clock.now().after(pause)) => {}
            // A learner may have joined.
            () = changed(members.as_mut()) => {}
        }
        let Some(server) = server.upgrade() else { return };
        if let Err(error) = advance(&server).await {
            let cause = error.cause().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, %cause, "autopilot cannot change the members");
        }
    }
}

/// The pause before the next tick.
fn pause_of(server: &Lifecycle) -> Duration {
    let interval = server.parts.settings.autopilot_interval;
    let status = server.parts.membership.cluster_status();
    status.map_or(interval, |status| pause(&status, &server.administration.autopilot.memory(), interval))
}

/// One tick, for the background tasks of the leader: commits the next change. Without a cluster it does nothing.
///
/// Fails when the change is not committed; the next tick tries again.
pub(crate) async fn advance(server: &Lifecycle) -> Result<()> {
    let Some((consensus, unsealed)) = server.parts.backend.consensus().zip(server.unsealed()) else { return Ok(()) };
    let config = AutopilotConfig::load(&unsealed.barrier).await?;
    let status = consensus.status();
    let change = tick(&status, &config, server.parts.clock.now(), &mut server.administration.autopilot.lock());
    match change {
        Some(change) => apply(server, &*consensus, &unsealed.barrier, &status, change).await,
        None => Ok(()),
    }
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
