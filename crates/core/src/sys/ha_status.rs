//! `sys/ha-status`: the nodes of the cluster.

use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Result, Routes};
use keepfast_storage::Member;
use serde::Serialize;

use super::System;
use crate::cluster::announced::version_of;
use crate::lifecycle::Lifecycle;

const HELP: Help = Help { synopsis: "Lists the nodes of the cluster.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("ha-status", HELP).read(ha_status).forwarded();
}

#[derive(Serialize)]
struct HaStatusResponse {
    nodes: Vec<HaNode>,
}

#[derive(Serialize)]
struct HaNode {
    hostname: String,
    api_address: String,
    cluster_address: String,
    active_node: bool,
    last_echo: Option<String>,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    upgrade_version: Option<String>,
}

/// The leader runs it, because only the leader hears of all members.
async fn ha_status(sys: &System, cx: &mut Cx, _: Nothing) -> Result<Flat<HaStatusResponse>> {
    let server = sys.lifecycle()?;
    let Some(consensus) = server.parts.membership.with_others() else {
        return Ok(Flat(HaStatusResponse { nodes: vec![own(&server)] }));
    };
    let (status, identity, now) = (consensus.status(), consensus.identity(), cx.now());
    let member = |member: &Member| {
        if member.node == identity.node {
            return own(&server);
        }
        let heard = status.peers.iter().find(|peer| peer.id == member.id).and_then(|peer| peer.last_contact);
        HaNode {
            // Members do not exchange the names of their machines.
            hostname: member.node.clone(),
            api_address: member.api_addr.clone(),
            cluster_address: member.cluster_addr.clone(),
            active_node: status.leader.as_ref().is_some_and(|leader| leader.id == member.id),
            last_echo: heard.map(|span| now.before(span).rfc3339()),
            version: version_of(&member.version),
            upgrade_version: Some(version_of(&member.version)),
        }
    };
    Ok(Flat(HaStatusResponse { nodes: status.members.iter().map(member).collect() }))
}

/// This node.
fn own(server: &Lifecycle) -> HaNode {
    let settings = &server.parts.settings;
    HaNode {
        hostname: settings.hostname.clone(),
        api_address: settings.api_addr.clone(),
        cluster_address: settings.cluster_addr.clone(),
        active_node: server.parts.is_active(),
        last_echo: None,
        version: settings.version.clone(),
        upgrade_version: server.parts.role().map(|_| settings.version.clone()),
    }
}
