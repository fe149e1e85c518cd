//! The commands, one a file, and the table that names them.

mod audit;
mod auth_help;
mod completion;
mod delete;
mod kv;
mod lease;
mod list;
mod listing;
mod login;
mod mount;
mod operator;
mod patch;
mod path_help;
mod plugin;
mod policy;
mod print_token;
mod read;
mod scan;
mod server;
mod status;
mod token;
mod transit;
mod unwrap;
mod version;
mod version_history;
mod write;

use crate::args::{Group, Node, Words};
use crate::cx::Cx;
use crate::halt::{Halt, Outcome};
use crate::session::own_name;
use crate::{help, terminal};

/// Everything that can follow the program's name.
pub(crate) const COMMANDS: &[Node] = &[
    Node::Leaf(&completion::COMMAND),
    Node::Leaf(&delete::COMMAND),
    Node::Leaf(&list::COMMAND),
    Node::Leaf(&login::COMMAND),
    Node::Leaf(&patch::COMMAND),
    Node::Leaf(&path_help::COMMAND),
    Node::Leaf(&read::COMMAND),
    Node::Leaf(&scan::COMMAND),
    Node::Leaf(&server::COMMAND),
    Node::Leaf(&status::COMMAND),
    Node::Leaf(&unwrap::COMMAND),
    Node::Leaf(&version::COMMAND),
    Node::Leaf(&version_history::COMMAND),
    Node::Leaf(&write::COMMAND),
    Node::Group(&Group { name: "audit", about: "Work with audit devices.", children: audit::COMMANDS }),
    Node::Group(&Group { name: "auth", about: "Work with auth methods.", children: mount::AUTH }),
    Node::Group(&Group {
        name: "kv",
        about: "Work with key-value engines, of either version.",
        children: kv::COMMANDS,
    }),
    Node::Group(&Group { name: "lease", about: "Work with leases.", children: lease::COMMANDS }),
    Node::Group(&Group {
        name: "operator",
        about: "Set up, unseal and maintain a server.",
        children: operator::COMMANDS,
    }),
    Node::Group(&Group { name: "plugin", about: "Look at what the server has built in.", children: plugin::COMMANDS }),
    Node::Group(&Group { name: "policy", about: "Work with policies.", children: policy::COMMANDS }),
    Node::Group(&Group {
        name: "print",
        about: "Print what commands would use.",
        children: &[Node::Leaf(&print_token::COMMAND)],
    }),
    Node::Group(&Group { name: "secrets", about: "Work with secrets engines.", children: mount::SECRETS }),
    Node::Group(&Group { name: "token", about: "Work with tokens.", children: token::COMMANDS }),
    Node::Group(&Group {
        name: "transit",
        about: "Import keys to a transit engine, and encrypt files with its keys.",
        children: transit::COMMANDS,
    }),
];

/// The exit code for a command that does not exist.
const UNKNOWN: u8 = 127;

/// Finds the command that the words name and runs it.
pub(crate) fn dispatch(words: &[String]) -> Outcome {
    let name = own_name();
    match words.first().map(String::as_str) {
        Some("-v" | "-version" | "--version") => return version::print(),
        Some("-h" | "-help" | "--help" | "help") => {
            terminal::line(&help::program(&name, COMMANDS));
            return Ok(0);
        }
        Some("-autocomplete-install" | "-autocomplete-uninstall") => return completion::explain(&name),
        _ => {}
    }
    find(words, COMMANDS, name)
}

fn find(words: &[String], nodes: &'static [Node], path: String) -> Outcome {
    let known = words.first().and_then(|word| nodes.iter().find(|node| node.name() == word));
    let Some(node) = known else {
        return Err(Halt { code: UNKNOWN, message: Some(help::program(&path, nodes)) });
    };
    let (path, rest) = (format!("{path} {}", node.name()), &words[1..]);
    match node {
        Node::Leaf(command) => {
            let words = Words::parse(command, rest)?;
            if words.help {
                terminal::line(&help::command(&path, command));
                return Ok(0);
            }
            (command.run)(&Cx::new(command, words)?)
        }
        Node::Group(group) => match rest.first().map(String::as_str) {
            Some("-h" | "-help" | "--help") => {
                terminal::line(&help::group(&path, group));
                Ok(0)
            }
            Some(word) if group.children.iter().any(|node| node.name() == word) => find(rest, group.children, path),
            _ => Err(Halt::usage(help::group(&path, group))),
        },
    }
}
