//! Shell completion scripts, generated from the tables of commands.

use clap::{Arg, ArgAction};
use clap_complete::Shell;

use crate::args::{Command, Flag, Kind, Node};
use crate::command_error::CommandError;

/// The completion script of a shell for the program `name`.
pub(crate) fn script(shell: &str, name: &str, commands: &[Node]) -> Result<String, CommandError> {
    let shell = match shell {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        other => {
            return Err(CommandError::usage(format!("No completion for {other:?}: supported are bash, zsh and fish")));
        }
    };
    let mut program =
        clap::Command::new("keepfast").subcommands(commands.iter().map(described)).disable_help_subcommand(true);
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut program, name.to_owned(), &mut out);
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn described(node: &Node) -> clap::Command {
    let described = clap::Command::new(node.name()).about(node.about()).disable_help_subcommand(true);
    match node {
        Node::Group(group) => described.subcommands(group.children.iter().map(self::described)),
        Node::Leaf(command) => with_arguments(described, command),
    }
}

fn with_arguments(described: clap::Command, command: &Command) -> clap::Command {
    let flags = command.flags.iter().flat_map(|set| set.flags);
    let described = described.disable_help_flag(true).disable_version_flag(true).args(flags.map(argument));
    match command.max {
        Some(0) => described,
        _ => described.arg(Arg::new("arguments").num_args(0..).value_name("ARGUMENTS")),
    }
}

fn argument(flag: &'static Flag) -> Arg {
    let argument = Arg::new(flag.name).long(flag.name).help(flag.help);
    match flag.kind {
        Kind::Bool => argument.action(ArgAction::SetTrue),
        Kind::List | Kind::Pairs => argument.action(ArgAction::Append),
        _ if flag.name == "format" => argument.value_parser(["table", "json", "yaml"]),
        _ => argument.action(ArgAction::Set),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::commands::COMMANDS;

    fn flags_of(node: &Node, depth: usize, all: &mut Vec<&'static str>) {
        match node {
            Node::Group(group) if depth > 0 => group.children.iter().for_each(|child| flags_of(child, depth - 1, all)),
            Node::Group(_) => {}
            Node::Leaf(command) => all.extend(command.flags.iter().flat_map(|set| set.flags).map(|flag| flag.name)),
        }
    }

    /// The generator for fish supports two levels, so it ends at `kv metadata`.
    #[test]
    fn every_script_contains_every_command_and_flag() {
        for (shell, depth) in [("bash", 3), ("zsh", 3), ("fish", 1)] {
            let mut flags = Vec::new();
            COMMANDS.iter().for_each(|node| flags_of(node, depth, &mut flags));
            assert!(flags.len() > 500);
            let script = script(shell, "keepfast", COMMANDS).unwrap();
            for word in
                ["enable-versioning", "key-status", "path-help", "capabilities", "metadata"].into_iter().chain(flags)
            {
                assert!(script.contains(word), "{shell} does not know {word}");
            }
        }
    }
}
