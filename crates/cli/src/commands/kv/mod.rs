//! `kv …`: commands for key-value engines of both versions.

mod delete;
mod destroy;
mod enable_versioning;
pub(super) mod get;
pub(super) mod key_path;
mod list;
mod metadata;
mod patch;
mod put;
mod rollback;
mod scan;
mod undelete;
mod versions;

use crate::args::{Group, Node};

pub(super) const COMMANDS: &[Node] = &[
    Node::Leaf(&delete::COMMAND),
    Node::Leaf(&destroy::COMMAND),
    Node::Leaf(&enable_versioning::COMMAND),
    Node::Leaf(&get::COMMAND),
    Node::Leaf(&list::COMMAND),
    Node::Leaf(&patch::COMMAND),
    Node::Leaf(&put::COMMAND),
    Node::Leaf(&rollback::COMMAND),
    Node::Leaf(&scan::COMMAND),
    Node::Leaf(&undelete::COMMAND),
    Node::Group(&Group {
        name: "metadata",
        about: "Work with the metadata of keys in a versioned engine.",
        children: metadata::COMMANDS,
    }),
];
