//! `operator raft list-peers`: lists the members of the cluster.

use keepfast_client::{Method, Request};
use serde_json::Value;

use super::read;
use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::{plain, with_header};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "list-peers",
    usage: "",
    about: "List the members of the cluster.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let request = Request::new(Method::Get, "sys/storage/raft/configuration");
    let secret = read(&cx.session()?, "Error reading the raft cluster configuration", request, "config")?;
    if !cx.output.is_table() {
        return cx.output.secret(&secret);
    }
    let servers = secret.data_field("config").and_then(|config| config.get("servers"));
    let servers = servers.and_then(Value::as_array).cloned().unwrap_or_default();
    let rows: Vec<Vec<String>> = servers.iter().map(row).collect();
    terminal::line(&with_header(&["Node", "Address", "State", "Voter"], &rows));
    Ok(0)
}

fn row(server: &Value) -> Vec<String> {
    let text = |field: &str| server.get(field).map(plain).unwrap_or_default();
    let state = if text("leader") == "true" { "leader" } else { "follower" };
    vec![text("node_id"), text("address"), state.to_owned(), text("voter")]
}
