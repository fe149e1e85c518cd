//! `lease …`: commands for leases.

mod lookup;
mod quarantine;
mod renew;
mod revoke;

use crate::args::Node;

pub(super) const COMMANDS: &[Node] = &[
    Node::Leaf(&lookup::COMMAND),
    Node::Leaf(&quarantine::COMMAND),
    Node::Leaf(&renew::COMMAND),
    Node::Leaf(&revoke::COMMAND),
];
