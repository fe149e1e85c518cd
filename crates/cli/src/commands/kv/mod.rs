//! `kv …`: one set of commands for both versions of key-value engines.

mod delete;
mod destroy;
mod enable_versioning;
mod get;
mod list;
mod metadata;
mod patch;
mod place;
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
        about: "Work with what a versioned engine keeps about its keys.",
        children: metadata::COMMANDS,
    }),
];
