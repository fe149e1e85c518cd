//! `policy …`: commands for policies.

mod delete;
mod explain;
mod fmt;
mod known_mounts;
mod lint;
mod list;
mod read;
mod simulate;
mod write;

use write::source;

use crate::args::Node;

pub(super) const COMMANDS: &[Node] = &[
    Node::Leaf(&delete::COMMAND),
    Node::Leaf(&explain::COMMAND),
    Node::Leaf(&fmt::COMMAND),
    Node::Leaf(&lint::COMMAND),
    Node::Leaf(&list::COMMAND),
    Node::Leaf(&read::COMMAND),
    Node::Leaf(&simulate::COMMAND),
    Node::Leaf(&write::COMMAND),
];
