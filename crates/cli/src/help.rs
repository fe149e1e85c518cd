//! Help and usage texts, from the tables of commands and flags.

use crate::args::{Command, Flag, Group, Node};

const WIDTH: usize = 80;
const VARIABLES: &str = "Options can be written with one dash or two. Every variable with the prefix VAULT_ is also read \
    as KEEPFAST_ and BAO_; KEEPFAST_ takes precedence, then BAO_.";

/// The help of one command.
pub(crate) fn command(path: &str, command: &Command) -> String {
    let options = if command.flags.is_empty() { "" } else { " [options]" };
    let arguments = if command.usage.is_empty() { String::new() } else { format!(" {}", command.usage) };
    let mut help = format!("Usage: {path}{options}{arguments}\n\n{}", indented(command.about, 2));
    if !command.details.is_empty() {
        help.push_str(&format!("\n{}", verbatim(command.details)));
    }
    // The options of the command come first; those of the connection are the same everywhere.
    let mut sets: Vec<_> = command.flags.iter().collect();
    sets.sort_by_key(|set| match set.title {
        "Connection" => 2,
        "Output" => 1,
        _ => 0,
    });
    for set in sets {
        help.push_str(&format!("\n{} options:\n", set.title));
        let mut flags: Vec<&Flag> = set.flags.iter().collect();
        flags.sort_by_key(|flag| flag.name);
        for flag in flags {
            help.push_str(&format!("\n{}", of_flag(flag)));
        }
    }
    help.trim_end().to_owned()
}

/// The help of a group of commands.
pub(crate) fn group(path: &str, group: &Group) -> String {
    format!(
        "Usage: {path} <subcommand> [options] [args]\n\n{}\nSubcommands:\n{}",
        indented(group.about, 2),
        children(group.children)
    )
}

/// The help of the program.
pub(crate) fn program(name: &str, commands: &[Node]) -> String {
    format!(
        "Usage: {name} <command> [options] [args]\n\nCommands:\n{}\n\n{}",
        children(commands),
        indented(VARIABLES, 2).trim_end()
    )
}

fn children(nodes: &[Node]) -> String {
    let mut lines: Vec<(&str, &str)> = nodes.iter().map(|node| (node.name(), node.about())).collect();
    lines.sort_unstable();
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines
        .iter()
        .map(|(name, about)| format!("    {name:width$}    {}", first_sentence(about)))
        .collect::<Vec<_>>()
        .join("\n")
}

fn of_flag(flag: &Flag) -> String {
    let value = flag.kind.placeholder().map(|name| format!("=<{name}>")).unwrap_or_default();
    let alias = flag.alias.map(|alias| format!(", -{alias}{value}")).unwrap_or_default();
    format!("  -{}{value}{alias}\n{}", flag.name, indented(flag.help, 6))
}

/// Breaks a text into indented lines.
fn indented(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines
            .last()
            .is_some_and(|line| !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.iter().map(|line| format!("{}{line}\n", " ".repeat(indent))).collect()
}

/// A text with its lines unchanged, indented.
fn verbatim(text: &str) -> String {
    text.trim_matches('\n')
        .lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect()
}

fn first_sentence(text: &str) -> &str {
    text.split_once(". ").map_or(text.trim_end_matches('.'), |(first, _)| first)
}

impl Node {
    /// Its name on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Leaf(command) => command.name,
            Self::Group(group) => group.name,
        }
    }

    /// Its description.
    pub(crate) fn about(&self) -> &'static str {
        match self {
            Self::Leaf(command) => command.about,
            Self::Group(group) => group.about,
        }
    }
}
