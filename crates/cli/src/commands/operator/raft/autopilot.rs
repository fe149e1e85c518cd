//! `operator raft autopilot …`: the configuration of autopilot, and the health of the nodes.

use keepfast_client::{Method, Request, duration};
use serde_json::{Map, Value, json};

use super::read;
use crate::args::{Command, Flag, FlagSet, Group, Kind, Node};
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::{plain, sorted, with_header};
use crate::terminal;

pub(super) const GROUP: Group = Group {
    name: "autopilot",
    about: "Configure autopilot, and show the health of the nodes.",
    children: &[Node::Leaf(&GET_CONFIG), Node::Leaf(&SET_CONFIG), Node::Leaf(&STATE)],
};

const CONFIGURATION: &str = "sys/storage/raft/autopilot/configuration";

const GET_CONFIG: Command = Command {
    name: "get-config",
    usage: "",
    about: "Show the configuration of autopilot.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT],
    run: get_config,
};

const SET_CONFIG: Command = Command {
    name: "set-config",
    usage: "",
    about: "Change the configuration of autopilot.",
    details: "
    keepfast operator raft autopilot set-config -cleanup-dead-servers=true -min-quorum=3
",
    min: 0,
    max: Some(0),
    flags: &[
        HTTP,
        FlagSet {
            title: "Command",
            flags: &[
                Flag::new("cleanup-dead-servers", Kind::Bool, "Whether to remove nodes that are silent for long."),
                Flag::new(
                    "dead-server-last-contact-threshold",
                    Kind::Duration,
                    "The silence after which a node is removed, at least 1m.",
                ),
                Flag::new("last-contact-threshold", Kind::Duration, "The silence after which a node is unhealthy."),
                Flag::new("max-trailing-logs", Kind::Int, "The number of log entries that a healthy node may lack."),
                Flag::new(
                    "min-quorum",
                    Kind::Int,
                    "The number of voters that remain when nodes are removed, at least 3.",
                ),
                Flag::new(
                    "server-stabilization-time",
                    Kind::Duration,
                    "How long a node is healthy before it gets a vote.",
                ),
            ],
        },
    ],
    run: set_config,
};

const STATE: Command = Command {
    name: "state",
    usage: "",
    about: "Show the health of the nodes, as the leader sees it.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT],
    run: state,
};

/// The title and the field of each row of the configuration.
const ROWS: [(&str, &str); 6] = [
    ("Cleanup Dead Servers", "cleanup_dead_servers"),
    ("Last Contact Threshold", "last_contact_threshold"),
    ("Dead Server Last Contact Threshold", "dead_server_last_contact_threshold"),
    ("Server Stabilization Time", "server_stabilization_time"),
    ("Min Quorum", "min_quorum"),
    ("Max Trailing Logs", "max_trailing_logs"),
];

/// The title and the field of each line about a node.
const LINES: [(&str, &str); 10] = [
    ("Name:", "name"),
    ("Address:", "address"),
    ("Status:", "status"),
    ("Node Status:", "node_status"),
    ("Healthy:", "healthy"),
    ("Last Contact:", "last_contact"),
    ("Last Term:", "last_term"),
    ("Last Index:", "last_index"),
    ("Version:", "version"),
    ("Node Type:", "node_type"),
];

fn get_config(cx: &Cx) -> Outcome {
    let request = Request::new(Method::Get, CONFIGURATION);
    let secret = read(&cx.session()?, "Error reading the autopilot configuration", request, "min_quorum")?;
    let data = secret.data.unwrap_or_default();
    if !cx.output.is_table() {
        cx.output.document(sorted(&Value::Object(data)));
        return Ok(0);
    }
    let row =
        |(title, field): &(&str, &str)| vec![(*title).to_owned(), data.get(*field).map(plain).unwrap_or_default()];
    terminal::line(&with_header(&["Key", "Value"], &ROWS.iter().map(row).collect::<Vec<_>>()));
    Ok(0)
}

fn set_config(cx: &Cx) -> Outcome {
    let mut body = Map::new();
    if let Some(cleanup) = cx.words.truth("cleanup-dead-servers") {
        body.insert("cleanup_dead_servers".to_owned(), cleanup.into());
    }
    for flag in ["dead-server-last-contact-threshold", "last-contact-threshold", "server-stabilization-time"] {
        if let Some(time) = cx.words.duration(flag) {
            body.insert(flag.replace('-', "_"), duration::format(time).into());
        }
    }
    for flag in ["max-trailing-logs", "min-quorum"] {
        if let Some(number) = cx.words.int(flag) {
            body.insert(flag.replace('-', "_"), number.into());
        }
    }
    let request = Request::new(Method::Put, CONFIGURATION).with_body(Value::Object(body));
    cx.session()?.call("Error changing the autopilot configuration", &request)?;
    Ok(0)
}

fn state(cx: &Cx) -> Outcome {
    let request = Request::new(Method::Get, "sys/storage/raft/autopilot/state");
    let secret = read(&cx.session()?, "Error reading the autopilot state", request, "servers")?;
    let data = secret.data.unwrap_or_default();
    if cx.output.is_table() {
        terminal::print(&text_of(&data));
    } else {
        cx.output.document(document(&data));
    }
    Ok(0)
}

fn text_of(data: &Map<String, Value>) -> String {
    let field = |name: &str| data.get(name).map(plain).unwrap_or_default();
    let mut text = String::new();
    for (title, name) in [("Healthy:", "healthy"), ("Failure Tolerance:", "failure_tolerance"), ("Leader:", "leader")] {
        text.push_str(&format!("{title:<33}{}\n", field(name)));
    }
    for (title, name) in [("Voters:", "voters"), ("Non Voters:", "non_voters")] {
        let names = data.get(name).and_then(Value::as_array).filter(|names| !names.is_empty());
        if let Some(names) = names {
            text.push_str(&format!("{title}\n"));
            names.iter().for_each(|name| text.push_str(&format!("   {}\n", plain(name))));
        }
    }
    text.push_str("Servers:\n");
    let servers = data.get("servers").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut servers: Vec<_> = servers.into_iter().collect();
    servers.sort_by(|a, b| a.0.cmp(&b.0));
    for (id, server) in servers {
        text.push_str(&format!("   {id}\n"));
        for (title, field) in LINES {
            text.push_str(&format!("      {title:<19}{}\n", server.get(field).map(plain).unwrap_or_default()));
        }
    }
    text + "\n"
}

/// The document of Vault's command line, whose names are those of its client library.
fn document(data: &Map<String, Value>) -> Value {
    let of = |map: &Map<String, Value>, name: &str| map.get(name).cloned().unwrap_or_default();
    let server = |server: &Value| {
        let server = server.as_object().cloned().unwrap_or_default();
        json!({
            "ID": of(&server, "id"),
            "Name": of(&server, "name"),
            "Address": of(&server, "address"),
            "NodeStatus": of(&server, "node_status"),
            "LastContact": of(&server, "last_contact"),
            "LastTerm": of(&server, "last_term"),
            "LastIndex": of(&server, "last_index"),
            "Healthy": of(&server, "healthy"),
            "StableSince": of(&server, "stable_since"),
            "Status": of(&server, "status"),
            "Version": of(&server, "version"),
            "UpgradeVersion": "",
            "NodeType": of(&server, "node_type"),
        })
    };
    let servers = data.get("servers").and_then(Value::as_object).cloned().unwrap_or_default();
    let servers: Map<String, Value> = servers.iter().map(|(id, state)| (id.clone(), server(state))).collect();
    json!({
        "Healthy": of(data, "healthy"),
        "FailureTolerance": of(data, "failure_tolerance"),
        "Servers": servers,
        "Leader": of(data, "leader"),
        "Voters": of(data, "voters"),
        "NonVoters": of(data, "non_voters"),
        "Upgrade": null,
        "OptimisticFailureTolerance": 0,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn data() -> Map<String, Value> {
        let node = json!({
            "id": "node-a", "name": "node-a", "address": "127.0.0.1:8301", "node_status": "alive", "last_contact": "0s",
            "last_term": 3, "last_index": 48, "healthy": true, "stable_since": "2026-11-30T13:43:26.627392845Z",
            "status": "leader", "version": "2.7.2", "node_type": "non-voter"
        });
        let data = json!({
            "healthy": true, "failure_tolerance": 0, "leader": "node-a", "voters": ["node-a"], "non_voters": ["node-a"],
            "servers": { "node-a": node }
        });
        data.as_object().cloned().unwrap()
    }

    /// What `bao operator raft autopilot state` of OpenBao 2.7.2 prints for this response.
    #[test]
    fn the_state_is_printed_as_by_openbao() {
        let expected = "\
Healthy:                         true
Failure Tolerance:               0
Leader:                          node-a
Voters:
   node-a
Non Voters:
   node-a
Servers:
   node-a
      Name:              node-a
      Address:           127.0.0.1:8301
      Status:            leader
      Node Status:       alive
      Healthy:           true
      Last Contact:      0s
      Last Term:         3
      Last Index:        48
      Version:           2.7.2
      Node Type:         non-voter

";
        assert_eq!(text_of(&data()), expected);
    }

    #[test]
    fn the_document_has_the_names_of_vaults_client() {
        let document = document(&data());
        assert_eq!((&document["NonVoters"], &document["Upgrade"]), (&json!(["node-a"]), &Value::Null));
        let server = document["Servers"]["node-a"].as_object().unwrap();
        let names: Vec<&str> = server.keys().map(String::as_str).collect();
        let expected = [
            "ID",
            "Name",
            "Address",
            "NodeStatus",
            "LastContact",
            "LastTerm",
            "LastIndex",
            "Healthy",
            "StableSince",
            "Status",
            "Version",
            "UpgradeVersion",
            "NodeType",
        ];
        assert_eq!(names, expected);
    }
}
