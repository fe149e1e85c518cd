//! `sys/ha-status`: the nodes of the cluster.

use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Result, Routes};
use serde::Serialize;

use super::System;

const HELP: Help = Help { synopsis: "Lists the nodes of the cluster.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("ha-status", HELP).read(ha_status).forwarded();
}

#[derive(Serialize)]
struct HaStatusResponse {
    nodes: [HaNode; 1],
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

async fn ha_status(sys: &System, _: &mut Cx, _: Nothing) -> Result<Flat<HaStatusResponse>> {
    let server = sys.lifecycle()?;
    let settings = &server.parts.settings;
    let node = HaNode {
        hostname: settings.hostname.clone(),
        api_address: settings.api_addr.clone(),
        cluster_address: settings.cluster_addr.clone(),
        active_node: server.parts.is_active(),
        last_echo: None,
        version: settings.version.clone(),
        upgrade_version: server.parts.role().map(|_| settings.version.clone()),
    };
    Ok(Flat(HaStatusResponse { nodes: [node] }))
}
