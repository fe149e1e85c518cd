//! `sys/storage/raft/autopilot/state`: the health of the members, as the leader sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use keepfast_framework::reply::Described;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Result, Routes, duration};
use keepfast_storage::{ClusterStatus, Member};
use schemars::JsonSchema;
use serde::Serialize;

use super::peers::host_and_port;
use crate::cluster::announced::version_of;
use crate::cluster::autopilot::{AutopilotConfig, Memory, failure_tolerance, is_healthy, matched};
use crate::cluster::members::silence;
use crate::sys::system::{System, consensus, unsealed};

const HELP: Help = Help { synopsis: "Returns the health of the members of the cluster.", description: "" };

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("storage/raft/autopilot/state", HELP).read(state).forwarded().not_in_namespaces();
}

#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct StateResponse {
    failure_tolerance: usize,
    healthy: bool,
    leader: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    non_voters: Vec<String>,
    servers: BTreeMap<String, ServerState>,
    voters: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct ServerState {
    id: String,
    name: String,
    address: String,
    node_status: &'static str,
    last_contact: String,
    last_term: u64,
    last_index: u64,
    healthy: bool,
    stable_since: String,
    status: &'static str,
    version: String,
    node_type: &'static str,
}

async fn state(sys: &System, cx: &mut Cx, _: Nothing) -> Result<Described<StateResponse>> {
    let status = consensus(sys)?.status();
    let server = sys.lifecycle()?;
    let config = AutopilotConfig::load(&unsealed(cx)?.barrier).await?;
    let memory = server.administration.autopilot.observed(&status, &config, server.parts.clock.now());
    Ok(Described(of(&status, &config, &memory)))
}

fn of(status: &ClusterStatus, config: &AutopilotConfig, memory: &Memory) -> StateResponse {
    let names = |voter: bool| {
        let mut names: Vec<String> =
            status.members.iter().filter(|m| m.voter == voter).map(|member| member.node.clone()).collect();
        names.sort();
        names
    };
    StateResponse {
        failure_tolerance: failure_tolerance(status, config),
        healthy: status.members.iter().all(|member| is_healthy(status, config, member)),
        leader: status.leader.as_ref().map(|leader| leader.node.clone()).unwrap_or_default(),
        non_voters: names(false),
        servers: status.members.iter().map(|m| (m.node.clone(), server(status, config, memory, m))).collect(),
        voters: names(true),
    }
}

fn server(status: &ClusterStatus, config: &AutopilotConfig, memory: &Memory, member: &Member) -> ServerState {
    let silence = silence(status, member);
    let dead = Duration::from_secs(config.dead_server_last_contact_threshold);
    let leads = status.leader.as_ref().is_some_and(|leader| leader.id == member.id);
    ServerState {
        id: member.node.clone(),
        name: member.node.clone(),
        address: host_and_port(&member.cluster_addr).to_owned(),
        node_status: if silence.is_some_and(|silence| silence >= dead) { "failed" } else { "alive" },
        last_contact: short(silence.unwrap_or_default()),
        last_term: status.term,
        last_index: matched(status, member),
        healthy: is_healthy(status, config, member),
        stable_since: memory.healthy_since(member).map_or_else(|| NEVER.to_owned(), |since| since.rfc3339()),
        status: if leads { "leader" } else { kind(member.voter) },
        version: version_of(&member.version),
        node_type: kind(member.voter || member.wants_vote),
    }
}

/// A duration as Go writes it, down to milliseconds.
fn short(duration: Duration) -> String {
    let millis = duration.as_nanos() % 1_000_000_000;
    if duration.as_secs() > 0 || millis == 0 {
        return duration::format(duration);
    }
    let fraction = format!("{:06}", millis % 1_000_000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}ms", millis / 1_000_000)
}

fn kind(voter: bool) -> &'static str {
    if voter { "voter" } else { "non-voter" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_of_less_than_a_second_is_in_milliseconds() {
        let text = |nanos| short(Duration::from_nanos(nanos));
        assert_eq!([text(0), text(715_420_432), text(400_000_000)], ["0s", "715.420432ms", "400ms"]);
        assert_eq!([text(50_000), text(2_715_490_014), text(90_000_000_000)], ["0.05ms", "2.715490014s", "1m30s"]);
    }
}
