//! `sys/leader` and `sys/step-down`: the active node of the cluster, and the step-down of it.

use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::sealed::SealedResponse;
use keepfast_framework::{Cx, Error, Result, Routes};
use keepfast_storage::Role;
use schemars::JsonSchema;
use serde::Serialize;

use super::System;

const LEADER: Help = Help { synopsis: "Returns the active node of the cluster.", description: "" };
const STEP_DOWN: Help =
    Help { synopsis: "Makes the active node step down.", description: "A server without a cluster stays active." };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("leader", LEADER).unauthenticated().read_sealed(leader);
    r.path("step-down", STEP_DOWN).update(step_down_in_cluster).update_sealed(step_down).sudo();
}

/// Go's zero time: the `active_time` of a node that is not active.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Serialize, JsonSchema)]
struct LeaderResponse {
    ha_enabled: bool,
    #[serde(flatten)]
    node: Option<ActiveNode>,
}

#[derive(Serialize, JsonSchema)]
struct ActiveNode {
    is_self: bool,
    active_time: String,
    leader_address: String,
    leader_cluster_address: String,
}

async fn leader(sys: &System, _: Nothing) -> Result<SealedResponse<LeaderResponse>> {
    let server = sys.lifecycle()?;
    let Some(role) = server.parts.role() else {
        return Ok(SealedResponse::ok(LeaderResponse { ha_enabled: false, node: None }));
    };
    let since = server.since().ok_or_else(Error::sealed)?;
    let node = match role {
        Role::Leading => ActiveNode {
            is_self: true,
            active_time: since.rfc3339(),
            leader_address: server.parts.settings.api_addr.clone(),
            leader_cluster_address: server.parts.settings.cluster_addr.clone(),
        },
        Role::Following { leader } => {
            let addresses = leader.map(|leader| (leader.api_addr.clone(), leader.cluster_addr.clone()));
            let (leader_address, leader_cluster_address) = addresses.unwrap_or_default();
            ActiveNode { is_self: false, active_time: NEVER.to_owned(), leader_address, leader_cluster_address }
        }
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

/// Not supported: a node of a cluster does not step down.
async fn step_down_in_cluster(_: &System, _: &mut Cx, _: Nothing) -> Result<()> {
    Err(Error::unsupported_path())
}
