//! `sys/storage/raft/configuration`, `remove-peer`, `promote` and `demote`: the members of the cluster.

use keepfast_framework::fields::Text;
use keepfast_framework::reply::Described;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, Result, Routes};
use keepfast_storage::{Change, Member};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::members::{self, framed};
use crate::sys::system::{System, consensus, unsealed};

const CONFIGURATION: Help = Help { synopsis: "Returns the members of the cluster.", description: "" };
const REMOVE: Help = Help {
    synopsis: "Removes a member from the cluster.",
    description: "Its data directory cannot join again. The keyring is rotated, so that it cannot read later records.",
};
const PROMOTE: Help = Help {
    synopsis: "Gives a non-voter a vote.",
    description: "Autopilot promotes it once it is in contact and has the log, for server_stabilization_time.",
};
const DEMOTE: Help = Help { synopsis: "Makes a voter a permanent non-voter.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("storage/raft/configuration", CONFIGURATION).read(configuration).not_in_namespaces();
    r.path("storage/raft/remove-peer", REMOVE).update(remove).once().not_in_namespaces();
    r.path("storage/raft/promote", PROMOTE).update(promote).once().not_in_namespaces();
    r.path("storage/raft/demote", DEMOTE).update(demote).once().not_in_namespaces();
}

#[derive(Deserialize, JsonSchema)]
struct MemberRequest {
    /// The name of the node.
    #[serde(default)]
    server_id: Text,
}

#[derive(Serialize, JsonSchema)]
struct ConfigurationResponse {
    config: Configuration,
}

#[derive(Serialize, JsonSchema)]
struct Configuration {
    servers: Vec<Server>,
    /// Always 0, as in OpenBao.
    index: u64,
}

#[derive(Serialize, JsonSchema)]
struct Server {
    node_id: String,
    address: String,
    leader: bool,
    /// The version of OpenBao's protocol, which clients show.
    protocol_version: &'static str,
    voter: bool,
}

async fn configuration(sys: &System, _: &mut Cx, _: Nothing) -> Result<Described<ConfigurationResponse>> {
    let status = consensus(sys)?.status();
    let leader = status.leader.map(|leader| leader.id);
    let server = |member: Member| Server {
        leader: Some(member.id) == leader,
        address: host_and_port(&member.cluster_addr).to_owned(),
        node_id: member.node,
        protocol_version: "3",
        voter: member.voter,
    };
    let servers = status.members.into_iter().map(server).collect();
    Ok(Described(ConfigurationResponse { config: Configuration { servers, index: 0 } }))
}

/// The host and port of a cluster address.
pub(super) fn host_and_port(address: &str) -> &str {
    address.split_once("://").map_or(address, |(_, rest)| rest)
}

fn named(request: &MemberRequest) -> Result<&str> {
    if request.server_id.is_empty() { Err(Error::invalid("no server id provided")) } else { Ok(&request.server_id) }
}

/// A name that no member has is no error, as in OpenBao.
async fn remove(sys: &System, cx: &mut Cx, request: MemberRequest) -> Result<()> {
    let consensus = consensus(sys)?;
    let status = consensus.status();
    let Some(member) = members::find(&status, named(&request)?) else { return Ok(()) };
    members::check_quorum_without(&status, member)?;
    let barrier = &unsealed(cx)?.barrier;
    members::remove(&*consensus, barrier, &**cx.clock(), member).await
}

async fn promote(sys: &System, _: &mut Cx, request: MemberRequest) -> Result<()> {
    let consensus = consensus(sys)?;
    let status = consensus.status();
    let member = found(members::find(&status, named(&request)?))?;
    if member.voter || member.wants_vote {
        return Err(framed("server is not a non-voter"));
    }
    members::change(&*consensus, Change::Update(Member { wants_vote: true, ..member.clone() })).await
}

async fn demote(sys: &System, _: &mut Cx, request: MemberRequest) -> Result<()> {
    let consensus = consensus(sys)?;
    let status = consensus.status();
    let member = found(members::find(&status, named(&request)?))?;
    if !member.voter && !member.wants_vote {
        return Err(framed("server is already a non-voter"));
    }
    members::check_quorum_without(&status, member)?;
    if member.wants_vote {
        members::change(&*consensus, Change::Update(Member { wants_vote: false, ..member.clone() })).await?;
    }
    if member.voter {
        members::change(&*consensus, Change::Demote(member.node.clone())).await?;
    }
    Ok(())
}

fn found(member: Option<&Member>) -> Result<&Member> {
    // OpenBao's text has the name.
    member.ok_or_else(|| framed("server not found in raft configuration"))
}
