//! The commands, one per file, and their table.

mod audit;
mod auth_help;
mod completion;
mod delete;
mod install;
mod kv;
mod lease;
mod list;
mod listing;
mod login;
mod mount;
mod namespace;
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
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::session::own_name;
use crate::{help, terminal, unsupported};

/// All commands.
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
    Node::Group(&Group { name: "kv", about: "Work with key-value engines of both versions.", children: kv::COMMANDS }),
    Node::Group(&Group { name: "lease", about: "Work with leases.", children: lease::COMMANDS }),
    Node::Group(&Group { name: "namespace", about: "Work with namespaces.", children: namespace::COMMANDS }),
    Node::Group(&Group {
        name: "operator",
        about: "Set up, unseal and maintain a server.",
        children: operator::COMMANDS,
    }),
    Node::Group(&Group {
        name: "plugin",
        about: "Show the built-in plugins of the server.",
        children: plugin::COMMANDS,
    }),
    Node::Group(&Group { name: "policy", about: "Work with policies.", children: policy::COMMANDS }),
    Node::Group(&Group {
        name: "print",
        about: "Print settings of the command line.",
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

/// Finds and runs the command of the arguments.
pub(crate) fn dispatch(words: &[String]) -> Outcome {
    let name = own_name();
    match words.first().map(String::as_str) {
        Some("-v" | "-version" | "--version") => return version::print(),
        Some("-h" | "-help" | "--help" | "help") => return help_of(&words[1..], COMMANDS, name),
        Some("-autocomplete-install") => return install::install(&name),
        Some("-autocomplete-uninstall") => return install::uninstall(&name),
        Some(flag) if flag.starts_with('-') => {
            let flag = flag.split('=').next().unwrap_or_default();
            return Err(CommandError::usage(format!(
                "flag provided but not defined: {flag}. Options follow the command."
            )));
        }
        _ => {}
    }
    find(words, COMMANDS, name)
}

/// The help of the command, or group of commands, that the arguments begin with.
fn help_of(words: &[String], nodes: &'static [Node], path: String) -> Outcome {
    let Some(word) = words.iter().find(|word| !word.starts_with('-')) else {
        terminal::line(&help::program(&path, nodes));
        return Ok(0);
    };
    let (mut path, mut nodes, mut node) = (path, nodes, None);
    for word in words.iter().filter(|word| !word.starts_with('-')) {
        let Some(found) = nodes.iter().find(|found| found.name() == word) else { break };
        path = format!("{path} {}", found.name());
        node = Some(found);
        match found {
            Node::Group(group) => nodes = group.children,
            Node::Leaf(_) => break,
        }
    }
    match node {
        None => return Err(unknown(&path, word, nodes, true)),
        Some(Node::Leaf(command)) => terminal::line(&help::command(&path, command)),
        Some(Node::Group(group)) => terminal::line(&help::group(&path, group)),
    }
    Ok(0)
}

/// The error for an unknown command: one line with its name and a suggestion.
fn unknown(path: &str, word: &str, nodes: &'static [Node], top: bool) -> CommandError {
    let names: Vec<&str> = nodes.iter().map(Node::name).collect();
    let whole = path.split_once(' ').map_or_else(|| word.to_owned(), |(_, group)| format!("{group} {word}"));
    let hint = match (unsupported::reason(&whole), keepfast_hcl::nearest(word, &names)) {
        (Some(reason), _) => format!("{reason}. "),
        (None, Some(near)) => format!("Did you mean \"{near}\"? "),
        (None, None) => String::new(),
    };
    let code = if top { UNKNOWN } else { 1 };
    CommandError {
        code,
        message: Some(format!("Unknown command {whole:?}. {hint}\"{path} -help\" lists the commands.")),
    }
}

// recursion: bounded by the tree of commands
fn find(words: &[String], nodes: &'static [Node], path: String) -> Outcome {
    let known = words.first().and_then(|word| nodes.iter().find(|node| node.name() == word));
    let Some(node) = known else {
        return Err(match words.first() {
            Some(word) => unknown(&path, word, nodes, true),
            None => CommandError { code: UNKNOWN, message: Some(help::program(&path, nodes)) },
        });
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
            Some(word) if !word.starts_with('-') => Err(unknown(&path, word, group.children, false)),
            _ => Err(CommandError::usage(help::group(&path, group))),
        },
    }
}
