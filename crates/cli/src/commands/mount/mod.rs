//! `secrets …` and `auth …`: commands for secrets engines and auth methods.

mod disable;
mod enable;
mod list;
mod relocate;
mod settings;
mod tune;

use crate::args::Node;

/// The differences between secrets engines and auth methods.
struct Kind {
    /// The API path to list, enable and disable.
    api: &'static str,
    /// The prefix of a mount path for tuning and moving.
    prefix: &'static str,
    /// The name of one in a sentence.
    noun: &'static str,
    /// The plural.
    nouns: &'static str,
}

const ENGINES: Kind = Kind { api: "sys/mounts", prefix: "", noun: "secrets engine", nouns: "secrets engines" };
const METHODS: Kind = Kind { api: "sys/auth", prefix: "auth/", noun: "auth method", nouns: "auth methods" };

pub(super) const SECRETS: &[Node] = &[
    Node::Leaf(&disable::SECRETS),
    Node::Leaf(&enable::SECRETS),
    Node::Leaf(&list::SECRETS),
    Node::Leaf(&relocate::SECRETS),
    Node::Leaf(&tune::SECRETS),
];

pub(super) const AUTH: &[Node] = &[
    Node::Leaf(&disable::AUTH),
    Node::Leaf(&enable::AUTH),
    Node::Leaf(&super::auth_help::COMMAND),
    Node::Leaf(&list::AUTH),
    Node::Leaf(&relocate::AUTH),
    Node::Leaf(&tune::AUTH),
];
