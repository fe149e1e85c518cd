//! Completion candidates for `complete -C` of bash, zsh and others, one per line.
//!
//! The shell passes the line in `COMP_LINE` and the cursor in `COMP_POINT` (bash manual, "Programmable Completion").
//! Commands and flags come from the tables; mounts, paths and policies come from the server, if it responds in time.

use keepfast_client::{Method, Request, Secret};
use serde_json::Value;

use crate::args::{Command, Kind, Node, Words};
use crate::commands::COMMANDS;
use crate::session::Session;
use crate::terminal;

/// The maximum number of words of a line that are parsed.
const LONGEST: usize = 1024;

/// Prints the candidates. Prints no errors: the shell would insert them into the line.
pub(crate) fn print_candidates(line: &str, point: Option<&str>) {
    let point = point.and_then(|point| point.parse().ok()).unwrap_or(line.len());
    let line = line.get(..point.min(line.len())).unwrap_or(line);
    for candidate in candidates(line, &of_server) {
        terminal::line(&candidate);
    }
}

/// What the arguments of a command name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Names {
    AuthMounts,
    Mounts,
    Namespaces,
    Paths,
    Policies,
    SecretPaths,
}

/// The names that begin with the current word, in a namespace; `None` is the namespace of the environment.
type OfServer<'a> = &'a dyn Fn(Names, Option<&str>, &str) -> Vec<String>;

fn candidates(line: &str, of_server: OfServer<'_>) -> Vec<String> {
    let mut words: Vec<&str> = line.split_whitespace().take(LONGEST).collect();
    let current = if line.ends_with(char::is_whitespace) { "" } else { words.pop().unwrap_or_default() };
    let mut words = words.into_iter().skip(1);
    let (mut nodes, mut path) = (COMMANDS, Vec::new());
    let command = loop {
        let Some(word) = words.next() else {
            return matching(nodes.iter().map(|node| node.name().to_owned()), current);
        };
        match nodes.iter().find(|node| node.name() == word) {
            Some(Node::Group(group)) => nodes = group.children,
            Some(Node::Leaf(command)) => {
                path.push(word);
                break command;
            }
            None => return Vec::new(),
        }
        path.push(word);
    };
    if current.starts_with('-') {
        return flags(command, current);
    }
    let mut before: Vec<String> = words.map(str::to_owned).collect();
    let values = before.last().and_then(|word| flag_that_wants_a_value(command, word));
    if values.is_some() {
        before.pop();
    }
    let Ok(given) = Words::parse(command, &before) else { return Vec::new() };
    let names = |names| matching(of_server(names, given.text("namespace"), current), current);
    match (values, names_of(&path)) {
        (Some("format"), _) => matching(["table", "json", "yaml"].map(str::to_owned), current),
        (Some("mount"), _) => names(Names::Mounts),
        // Further arguments are not completed.
        (None, Some(first)) if given.arguments.is_empty() => names(first),
        _ => Vec::new(),
    }
}

fn matching(words: impl IntoIterator<Item = String>, start: &str) -> Vec<String> {
    let mut found: Vec<String> = words.into_iter().filter(|word| word.starts_with(start)).collect();
    found.sort();
    found
}

fn flags(command: &Command, current: &str) -> Vec<String> {
    let dashes = if current.starts_with("--") { "--" } else { "-" };
    let flags = command.flags.iter().flat_map(|set| set.flags);
    matching(flags.map(|flag| format!("{dashes}{}", flag.name)), current)
}

/// The name of the flag `word`, when the next word is its value.
fn flag_that_wants_a_value(command: &Command, word: &str) -> Option<&'static str> {
    let name = word.strip_prefix('-')?;
    let name = name.strip_prefix('-').unwrap_or(name);
    let flag = command.flag(name)?;
    (flag.kind != Kind::Bool).then_some(flag.name)
}

/// What the first argument of a command names.
fn names_of(path: &[&str]) -> Option<Names> {
    match path {
        ["kv", ..] => Some(Names::SecretPaths),
        ["read" | "write" | "delete" | "list" | "scan" | "patch" | "path-help"] => Some(Names::Paths),
        ["secrets", "disable" | "tune" | "move"] => Some(Names::Mounts),
        ["auth", "disable" | "tune" | "move" | "help"] => Some(Names::AuthMounts),
        ["namespace", "delete" | "lock" | "lookup" | "patch" | "unlock"] => Some(Names::Namespaces),
        ["policy", "read" | "write" | "delete" | "lint"] => Some(Names::Policies),
        _ => None,
    }
}

/// Names from the server that are plain words for a shell, which inserts a candidate into its line: `$(…)` would run.
fn of_server(names: Names, namespace: Option<&str>, current: &str) -> Vec<String> {
    query_server(names, namespace, current).into_iter().filter(|name| is_plain_word(name)).collect()
}

fn is_plain_word(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./@:+=,-".contains(c);
    !name.starts_with('-') && name.chars().all(is_plain)
}

/// Names from the server; empty when it does not respond.
fn query_server(names: Names, namespace: Option<&str>, current: &str) -> Vec<String> {
    let Some(session) = Session::for_completion(namespace) else { return Vec::new() };
    let ask = |request: Request| session.preflight(request).ok().flatten();
    match names {
        Names::Namespaces => keys(ask(listing("sys/namespaces")).as_ref()),
        Names::Policies => keys(ask(listing("sys/policies/acl")).as_ref()),
        Names::Mounts => mounts(ask(Request::new(Method::Get, "sys/internal/ui/mounts")).as_ref(), "secret"),
        Names::AuthMounts => mounts(ask(Request::new(Method::Get, "sys/internal/ui/mounts")).as_ref(), "auth"),
        Names::Paths | Names::SecretPaths => {
            let Some((directory, _)) = current.rsplit_once('/') else {
                return mounts(ask(Request::new(Method::Get, "sys/internal/ui/mounts")).as_ref(), "secret");
            };
            let place = if names == Names::SecretPaths { metadata_of(&ask, directory) } else { directory.to_owned() };
            keys(ask(listing(&place)).as_ref()).into_iter().map(|key| format!("{directory}/{key}")).collect()
        }
    }
}

fn listing(path: &str) -> Request {
    Request::new(Method::Get, path).with_query("list", "true")
}

/// The path that lists the names below a directory of a KV engine.
fn metadata_of(ask: &dyn Fn(Request) -> Option<Secret>, directory: &str) -> String {
    let found = ask(Request::new(Method::Get, format!("sys/internal/ui/mounts/{directory}")));
    let mount = found.as_ref().and_then(|secret| secret.text("path")).unwrap_or_default().trim_matches('/').to_owned();
    let options = found.as_ref().and_then(|secret| secret.data_field("options"));
    let versioned = options.and_then(|options| options.get("version")).is_some_and(|version| version == "2");
    match directory.strip_prefix(&mount) {
        Some(rest) if versioned => format!("{mount}/metadata{rest}"),
        _ => directory.to_owned(),
    }
}

fn keys(secret: Option<&Secret>) -> Vec<String> {
    let keys = secret.and_then(|secret| secret.data_field("keys")).and_then(Value::as_array);
    keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn mounts(secret: Option<&Secret>, class: &str) -> Vec<String> {
    let mounts = secret.and_then(|secret| secret.data_field(class)).and_then(Value::as_object);
    mounts.into_iter().flat_map(|mounts| mounts.keys().cloned()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn completed(line: &str) -> Vec<String> {
        candidates(line, &|names, namespace, current| {
            vec![format!("{current}{names:?}{}", namespace.map(|name| format!("@{name}")).unwrap_or_default())]
        })
    }

    #[test]
    fn completes_commands_and_flags_from_the_tables() {
        assert_eq!(completed("keepfast sta"), ["status"]);
        assert_eq!(completed("keepfast kv m"), ["metadata"]);
        assert_eq!(completed("keepfast kv get -mou"), ["-mount"]);
        assert_eq!(completed("keepfast kv get --mou"), ["--mount"]);
        assert_eq!(completed("keepfast kv get -format "), ["json", "table", "yaml"]);
        assert!(completed("keepfast ").len() > 20 && completed("keepfast nonsense ").is_empty());
    }

    #[test]
    fn completes_the_first_argument_with_names_of_the_server() {
        assert_eq!(completed("keepfast policy read de"), ["dePolicies"]);
        assert_eq!(completed("keepfast secrets disable "), ["Mounts"]);
        assert_eq!(completed("keepfast auth tune x"), ["xAuthMounts"]);
        assert_eq!(completed("keepfast read sys/"), ["sys/Paths"]);
        assert_eq!(completed("keepfast kv get -field=a sec"), ["secSecretPaths"]);
        assert_eq!(completed("keepfast kv get -mount "), ["Mounts"]);
        assert_eq!(completed("keepfast namespace delete te"), ["teNamespaces"]);
        assert!(completed("keepfast kv put secret/a ").is_empty() && completed("keepfast kv get -version ").is_empty());
    }

    #[test]
    fn names_come_from_the_namespace_of_the_line() {
        assert_eq!(completed("keepfast kv get -ns team a/"), ["a/SecretPaths@team"]);
        assert_eq!(completed("keepfast kv get --namespace=team -mount "), ["Mounts@team"]);
        assert!(completed("keepfast kv get -ns ").is_empty() && completed("keepfast kv get -nope a").is_empty());
    }

    #[test]
    fn sec_kf13_no_name_of_the_server_is_code_for_the_shell() {
        for name in [
            "app/prod$(touch${IFS}x)",
            "a;b",
            "a`b`",
            "a b",
            "a\nb",
            "a\u{1b}[2J",
            "-rf",
            "a'b",
            "a\"b",
            "a|b",
            "a>b",
            "~a",
            "a*",
        ] {
            assert!(!is_plain_word(name), "{name:?}");
        }
        assert!(is_plain_word("secret/app.d/db-1@eu:5432"));
    }

    #[test]
    fn a_cursor_inside_a_character_does_not_panic() {
        print_candidates("keepfast \u{e9}", Some("10"));
        print_candidates("", Some("99999999999999999999"));
    }
}
