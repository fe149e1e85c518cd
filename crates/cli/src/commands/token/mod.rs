//! `token …`: commands for tokens.

mod capabilities;
mod create;
mod lookup;
mod renew;
mod revoke;

use crate::args::{Flag, Kind, Node};

pub(super) const COMMANDS: &[Node] = &[
    Node::Leaf(&capabilities::COMMAND),
    Node::Leaf(&create::COMMAND),
    Node::Leaf(&lookup::COMMAND),
    Node::Leaf(&renew::COMMAND),
    Node::Leaf(&revoke::COMMAND),
];

/// Marks the argument as an accessor.
const ACCESSOR: Flag = Flag::new("accessor", Kind::Bool, "The argument is a token's accessor instead of the token.");
