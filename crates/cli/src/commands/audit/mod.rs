//! `audit …`: commands for audit devices.

mod disable;
mod enable;
mod list;

use crate::args::Node;

pub(super) const COMMANDS: &[Node] =
    &[Node::Leaf(&disable::COMMAND), Node::Leaf(&enable::COMMAND), Node::Leaf(&list::COMMAND)];
