//! `lease …`: leases.

mod lookup;
mod renew;
mod revoke;

use crate::args::Node;

pub(super) const COMMANDS: &[Node] =
    &[Node::Leaf(&lookup::COMMAND), Node::Leaf(&renew::COMMAND), Node::Leaf(&revoke::COMMAND)];
