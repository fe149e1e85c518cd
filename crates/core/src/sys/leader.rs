//! `sys/leader` and `sys/step-down`: the active node of the cluster, and the step-down of it.

use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::sealed::SealedResponse;
use keepfast_framework::{Cx, Error, Result, Routes, Status, Timestamp};
use keepfast_storage::{Role, StorageError};
use schemars::JsonSchema;
use serde::Serialize;

use super::System;

const LEADER: Help = Help { synopsis: "Returns the active node of the cluster.", description: "" };
const STEP_DOWN: Help =
    Help { synopsis: "Makes the active node step down.", description: "A server without a cluster stays active." };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("leader", LEADER).unauthenticated().read_sealed(leader).node_wide();
    r.path("step-down", STEP_DOWN).update(step_down_in_cluster).update_sealed(step_down).sudo().not_in_namespaces();
}

#[derive(Serialize, JsonSchema)]
struct LeaderResponse {
    ha_enabled: bool,
    #[serde(flatten)]
    node: Option<ActiveNode>,
}

#[derive(Serialize, JsonSchema)]
struct ActiveNode {
    is_self: bool,
    /// Since when it is active; only on the active node, after its takeover.
    #[serde(skip_serializing_if = "Option::is_none")]
    active_time: Option<String>,
    /// Not there while no node is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader_cluster_address: Option<String>,
    /// Only on a replicated storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    raft_committed_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raft_applied_index: Option<u64>,
}

async fn leader(sys: &System, _: Nothing) -> Result<SealedResponse<LeaderResponse>> {
    let server = sys.lifecycle()?;
    let Some(role) = server.parts.role() else {
        return Ok(SealedResponse::ok(LeaderResponse { ha_enabled: false, node: None }));
    };
    if server.is_sealed() {
        return Err(Error::sealed());
    }
    let is_self = role.is_leading();
    let addresses = match role {
        Role::Leading => {
            let settings = &server.parts.settings;
            Some((settings.api_addr.clone(), settings.cluster_addr.clone()))
        }
        Role::Following { leader } => leader.map(|l| (l.api_addr.clone(), l.cluster_addr.clone())),
    };
    let (leader_address, leader_cluster_address) = addresses.unzip();
    let log = server.parts.membership.cluster_status();
    let node = ActiveNode {
        is_self,
        active_time: server.leads_since().filter(|_| is_self).map(Timestamp::rfc3339),
        leader_address,
        leader_cluster_address,
        raft_committed_index: log.as_ref().map(|log| log.committed),
        raft_applied_index: log.as_ref().map(|log| log.applied),
    };
    Ok(SealedResponse::ok(LeaderResponse { ha_enabled: true, node: Some(node) }))
}

/// A server without a cluster is always active, so a step-down changes nothing.
async fn step_down(sys: &System, _: Nothing) -> Result<SealedResponse<()>> {
    let server = sys.lifecycle()?;
    match (server.parts.role().is_some(), server.is_sealed()) {
        (true, _) => Ok(SealedResponse::Passed),
        (false, true) => Err(Error::sealed()),
        (false, false) => Ok(SealedResponse::Empty),
    }
}

/// Transfers the leadership to another node. The leader runs it; a node without others stays active.
async fn step_down_in_cluster(sys: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    let server = sys.lifecycle()?;
    let Some(consensus) = server.parts.membership.with_others() else { return Ok(()) };
    tracing::info!(request = %cx.request().id, "step-down requested");
    let started = server.parts.clock.now();
    match consensus.transfer(None).await {
        Ok(()) => {
            server.parts.metrics.cluster.step_down.record(server.parts.clock.now().since(started));
            Ok(())
        }
        // Another node leads already.
        Err(StorageError::NotLeader) => Ok(()),
        Err(StorageError::NoTarget) => {
            Err(Error::new(Status::UNAVAILABLE, "no other node of the cluster can become the leader"))
        }
        Err(error) => Err(error.into()),
    }
}
