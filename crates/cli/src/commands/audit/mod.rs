//! `audit …`: the audit devices of a server.

mod disable;
mod enable;
mod list;

use crate::args::Node;

pub(super) const COMMANDS: &[Node] =
    &[Node::Leaf(&disable::COMMAND), Node::Leaf(&enable::COMMAND), Node::Leaf(&list::COMMAND)];
