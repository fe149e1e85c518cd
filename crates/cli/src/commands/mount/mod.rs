//! `secrets …` and `auth …`: engines and auth methods, which are mounted alike.

mod disable;
mod enable;
mod list;
mod relocate;
mod settings;
mod tune;

use crate::args::Node;

/// What differs between the two.
struct Kind {
    /// Where they are listed, enabled and disabled.
    api: &'static str,
    /// Where they are tuned, and what comes before a path when it is moved.
    prefix: &'static str,
    /// One of them, in a sentence.
    noun: &'static str,
    /// Several.
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
