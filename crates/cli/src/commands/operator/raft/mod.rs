//! `operator raft …`: the members of a cluster, autopilot and snapshots.

mod autopilot;
mod join;
mod list_peers;
mod members;
mod snapshot;
mod snapshot_get;

use keepfast_client::{Request, Secret};

use crate::args::{Group, Node};
use crate::command_error::CommandError;
use crate::session::Session;

pub(super) const GROUP: Group = Group {
    name: "raft",
    about: "Work with the nodes of a cluster.",
    children: &[
        Node::Group(&autopilot::GROUP),
        Node::Leaf(&members::DEMOTE),
        Node::Leaf(&join::COMMAND),
        Node::Leaf(&list_peers::COMMAND),
        Node::Leaf(&members::PROMOTE),
        Node::Leaf(&members::REMOVE),
        Node::Group(&snapshot::GROUP),
    ],
};

/// Sends a read whose data has this field. A server without a cluster does not have the path.
fn read(session: &Session, context: &str, request: Request, field: &str) -> Result<Secret, CommandError> {
    session.require(context, request, field).map_err(|error| match &error.message {
        Some(text) if text.contains("unsupported path") => CommandError::failed("No raft cluster configuration found"),
        _ => error,
    })
}
