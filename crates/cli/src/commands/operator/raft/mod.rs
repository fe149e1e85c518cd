//! `operator raft …`: the members of a cluster, autopilot and snapshots.

mod autopilot;
mod join;
mod list_peers;
mod members;
mod snapshot;

use keepfast_client::{Request, Secret};

use crate::args::{Group, Node};
use crate::command_error::CommandError;
use crate::session::{Session, request_error};

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
    match session.attempt(&request.required())? {
        Ok(secret) => secret.filter(|secret| secret.data_field(field).is_some()).ok_or_else(|| {
            CommandError::failed(format!(
                "{context}: the response has no field {field}: does VAULT_ADDR name the server?"
            ))
        }),
        Err(error) if error.status() == Some(404) => Err(CommandError::failed("No raft cluster configuration found")),
        Err(error) => Err(request_error(context, &error)),
    }
}
