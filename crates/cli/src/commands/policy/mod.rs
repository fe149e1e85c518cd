//! `policy …`: commands for policies.

mod delete;
mod fmt;
mod list;
mod read;
mod write;

use crate::args::Node;

pub(super) const COMMANDS: &[Node] = &[
    Node::Leaf(&delete::COMMAND),
    Node::Leaf(&fmt::COMMAND),
    Node::Leaf(&list::COMMAND),
    Node::Leaf(&read::COMMAND),
    Node::Leaf(&write::COMMAND),
];
