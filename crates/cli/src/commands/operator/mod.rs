//! `operator …`: commands to set up and maintain a server.

mod config_files;
mod diagnose;
mod generate_root;
mod init;
mod key_status;
mod members;
mod pgp_keys;
mod raft;
mod rotate;
mod rotate_keys;
mod seal;
mod seals;
mod shares;
mod step_down;
mod storage_downgrade;
mod unseal;
mod validate_config;

use crate::args::{Group, Node};

pub(super) const COMMANDS: &[Node] = &[
    Node::Leaf(&diagnose::COMMAND),
    Node::Leaf(&generate_root::COMMAND),
    Node::Leaf(&init::COMMAND),
    Node::Leaf(&key_status::COMMAND),
    Node::Leaf(&members::COMMAND),
    Node::Group(&raft::GROUP),
    Node::Leaf(&rotate_keys::REKEY),
    Node::Leaf(&rotate::COMMAND),
    Node::Leaf(&rotate_keys::COMMAND),
    Node::Leaf(&seal::COMMAND),
    Node::Group(&seals::GROUP),
    Node::Leaf(&step_down::COMMAND),
    Node::Group(&Group {
        name: "storage",
        about: "Maintain the data directory of a stopped server.",
        children: &[Node::Leaf(&storage_downgrade::COMMAND)],
    }),
    Node::Leaf(&unseal::COMMAND),
    Node::Leaf(&validate_config::COMMAND),
];
