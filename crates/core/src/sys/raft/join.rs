//! `sys/storage/raft/join`: makes a node that is not initialized join a cluster.

use keepfast_framework::fields::{Flag, Int, SecretText, Text};
use keepfast_framework::routes::Help;
use keepfast_framework::sealed::SealedResponse;
use keepfast_framework::{Error, Result, Routes, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::join::client::{JoinTarget, PemSource, SecretPemSource};
use crate::cluster::join::pending::Intent;
use crate::cluster::join::{joiner, retry};
use crate::lifecycle::Lifecycle;
use crate::self_init::run;
use crate::sys::System;

const HELP: Help = Help {
    synopsis: "Joins a node that is not initialized to a cluster.",
    description: "The node gets the configuration of the seal from the leader, and then takes the shares of the unseal key of the cluster at sys/unseal.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("storage/raft/join", HELP).unauthenticated().update_sealed(join).not_in_namespaces();
}

#[derive(Deserialize, JsonSchema)]
struct JoinRequest {
    /// The API address of the leader.
    #[serde(default)]
    leader_api_addr: Text,
    /// The CA of the certificate of the leader, in PEM format. Default: the CAs of the system.
    #[serde(default)]
    leader_ca_cert: Text,
    /// A client certificate for the leader, in PEM format.
    #[serde(default)]
    leader_client_cert: Text,
    /// The key of the client certificate, in PEM format.
    leader_client_key: Option<SecretText>,
    /// The host name in the certificate of the leader. Default: the host of its address.
    #[serde(default)]
    leader_tls_servername: Text,
    /// Whether to try again, in the background, until a leader responds. Default: false.
    #[serde(default)]
    retry: Flag,
    /// Whether the node gets no vote. Default: false.
    #[serde(default)]
    non_voter: Flag,
    /// Not supported: addresses are not discovered from a cloud.
    #[serde(default)]
    auto_join: Text,
    /// Not supported, like auto_join.
    #[serde(default)]
    auto_join_scheme: Text,
    /// Not supported, like auto_join.
    #[serde(default)]
    auto_join_port: Int,
}

#[derive(Serialize, JsonSchema)]
struct JoinResponse {
    /// Whether a leader has responded. The shares then unseal the node as a member.
    joined: bool,
}

async fn join(sys: &System, request: JoinRequest) -> Result<SealedResponse<JoinResponse>> {
    let server = sys.lifecycle()?;
    if server.parts.backend.consensus().is_none() {
        return Err(Error::new(Status::INTERNAL, "raft backend not in use"));
    }
    let (retries, non_voter) = (request.retry.0, request.non_voter.0);
    let target = target(request)?;
    let is_initialized = server.parts.seal_config().await?.is_some();
    if !is_initialized && run::initializes(&server) {
        return Err(Error::invalid("this node initializes itself by the initialize stanzas of its configuration"));
    }
    let target = if is_initialized { target } else { allowed(&server, target)? };
    if retries && !is_initialized {
        retry::start(&server, target, non_voter);
        return Ok(SealedResponse::ok(JoinResponse { joined: false }));
    }
    joiner::request(&server, Intent { targets: vec![target], non_voter }).await?;
    Ok(SealedResponse::ok(JoinResponse { joined: true }))
}

/// The leader to join. A node with seals joins without shares, so that `retry_join`, where it is configured, decides which
/// cluster it joins, and with which certificates, and not a request without a token.
fn allowed(server: &Lifecycle, target: JoinTarget) -> Result<JoinTarget> {
    let leaders = &server.parts.settings.join.retry;
    if server.seals.all().is_empty() || leaders.is_empty() {
        return Ok(target);
    }
    let address = |target: &JoinTarget| target.api_addr.trim_end_matches('/').to_owned();
    let configured = leaders.iter().find(|leader| address(leader) == address(&target));
    configured.cloned().ok_or_else(|| Error::invalid("this node joins the leaders of its configuration"))
}

fn target(request: JoinRequest) -> Result<JoinTarget> {
    if !request.auto_join.is_empty() || !request.auto_join_scheme.is_empty() || request.auto_join_port.0 != 0 {
        return Err(Error::invalid("auto_join is not supported by this server: set leader_api_addr"));
    }
    let key = request.leader_client_key.filter(|key| !key.expose().is_empty());
    if request.leader_client_cert.is_empty() != key.is_none() {
        return Err(Error::invalid("invalid certificate parameters"));
    }
    let pem = |text: Text| (!text.is_empty()).then(|| PemSource::Text(text.into()));
    let name = request.leader_tls_servername;
    Ok(JoinTarget {
        api_addr: request.leader_api_addr.into(),
        ca: pem(request.leader_ca_cert),
        any_certificate: false,
        client_certificate: pem(request.leader_client_cert),
        client_key: key.map(|key| SecretPemSource::Text(key.0)),
        tls_servername: (!name.is_empty()).then(|| name.into()),
    })
}
