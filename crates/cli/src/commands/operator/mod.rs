//! `operator …`: setting up and keeping a server.

mod init;
mod key_status;
mod rotate;
mod seal;
mod unseal;

use crate::args::Node;

pub(super) const COMMANDS: &[Node] = &[
    Node::Leaf(&init::COMMAND),
    Node::Leaf(&key_status::COMMAND),
    Node::Leaf(&rotate::COMMAND),
    Node::Leaf(&seal::COMMAND),
    Node::Leaf(&unseal::COMMAND),
];
