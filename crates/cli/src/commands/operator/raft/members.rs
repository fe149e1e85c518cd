//! `operator raft remove-peer`, `promote` and `demote`: change the members of the cluster.

use keepfast_client::{Method, Request};
use serde_json::json;

use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const REMOVE: Command = Command {
    name: "remove-peer",
    usage: "NODE",
    about: "Remove a node from the cluster.",
    details: "
Its data directory cannot join again. Rekey if the node could have disclosed the
root key.

    keepfast operator raft remove-peer node-3
",
    min: 1,
    max: Some(1),
    flags: &[HTTP],
    run: |cx| change(cx, "remove-peer", "Error removing the peer from raft cluster", "Peer removed successfully!"),
};

pub(crate) const PROMOTE: Command = Command {
    name: "promote",
    usage: "NODE",
    about: "Give a non-voter a vote.",
    details: "
Autopilot promotes the node once it is in contact and has the log.

    keepfast operator raft promote node-3
",
    min: 1,
    max: Some(1),
    flags: &[HTTP],
    run: |cx| change(cx, "promote", "Error promoting server", "Server promoted successfully!"),
};

pub(crate) const DEMOTE: Command = Command {
    name: "demote",
    usage: "NODE",
    about: "Make a voter a permanent non-voter.",
    details: "
    keepfast operator raft demote node-3
",
    min: 1,
    max: Some(1),
    flags: &[HTTP],
    run: |cx| change(cx, "demote", "Error demoting server", "Server demoted successfully!"),
};

fn change(cx: &Cx, action: &str, context: &str, done: &str) -> Outcome {
    let body = json!({ "server_id": cx.argument(0) });
    let request = Request::new(Method::Put, format!("sys/storage/raft/{action}")).with_body(body);
    cx.session()?.call(context, &request)?;
    terminal::success(done);
    Ok(0)
}
