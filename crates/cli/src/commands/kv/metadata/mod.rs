//! `kv metadata …`: commands for the metadata of keys in a versioned engine.

mod delete;
mod get;
mod patch;
mod put;
mod settings;

use crate::args::Node;

pub(super) const COMMANDS: &[Node] =
    &[Node::Leaf(&delete::COMMAND), Node::Leaf(&get::COMMAND), Node::Leaf(&patch::COMMAND), Node::Leaf(&put::COMMAND)];
