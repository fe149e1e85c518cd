//! Commands and flags as tables, and the parser of command lines.
//!
//! One table describes the arguments of a command; parsing, help and shell completion use it. Flags have
//! one dash or two, `-flag=value` or `-flag value`, before or after the arguments; `--` ends them.

use std::time::Duration;

use keepfast_client::duration;
use keepfast_client::environment::truth;
use serde_json::{Map, Value};

use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;

/// An entry of the command tree.
#[derive(Clone, Copy)]
pub(crate) enum Node {
    /// A command.
    Leaf(&'static Command),
    /// A group of commands.
    Group(&'static Group),
}

/// Commands with a common first word.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) children: &'static [Node],
}

/// A command: its arguments and its function.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// The arguments in a usage line.
    pub(crate) usage: &'static str,
    /// A description of one line.
    pub(crate) about: &'static str,
    /// A longer description with examples; may be empty.
    pub(crate) details: &'static str,
    /// The minimum number of arguments.
    pub(crate) min: usize,
    /// The maximum number of arguments; `None` means no maximum.
    pub(crate) max: Option<usize>,
    /// The flags, in groups with titles.
    pub(crate) flags: &'static [FlagSet],
    pub(crate) run: fn(&Cx) -> Outcome,
}

/// Flags under one title of the help.
#[derive(Clone, Copy)]
pub(crate) struct FlagSet {
    pub(crate) title: &'static str,
    pub(crate) flags: &'static [Flag],
}

/// A flag.
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) alias: Option<&'static str>,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
}

/// The type of a flag's value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A switch; `-flag=false` turns it off.
    Bool,
    /// Any text.
    Text,
    /// An integer.
    Int,
    /// `90`, `90s`, `1h30m`.
    Duration,
    /// A text; the flag may be repeated.
    List,
    /// `key=value`; the flag may be repeated.
    Pairs,
}

impl Kind {
    /// The name of the value in the help.
    pub(crate) fn placeholder(self) -> Option<&'static str> {
        match self {
            Self::Bool => None,
            Self::Text | Self::List => Some("string"),
            Self::Int => Some("int"),
            Self::Duration => Some("duration"),
            Self::Pairs => Some("key=value"),
        }
    }
}

impl Flag {
    /// A flag with one name.
    pub(crate) const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, alias: None, kind, help }
    }

    /// A flag with two names.
    pub(crate) const fn aliased(name: &'static str, alias: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, alias: Some(alias), kind, help }
    }
}

/// A parsed command line: flags and arguments. Values have been checked against the kinds of their flags.
#[derive(Default, Debug)]
pub(crate) struct Words {
    given: Vec<(&'static str, String)>,
    pub(crate) arguments: Vec<String>,
    /// Whether `-h` or `-help` is present.
    pub(crate) help: bool,
}

impl Words {
    /// Parses `words` by the table of `command`.
    pub(crate) fn parse(command: &Command, words: &[String]) -> Result<Self, CommandError> {
        let mut sorted = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                sorted.arguments.extend(rest.cloned());
                break;
            }
            let Some(flag) = word.strip_prefix('-').filter(|name| !name.is_empty()) else {
                sorted.arguments.push(word.clone());
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) =
                flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value.to_owned())));
            if matches!(name, "h" | "help") {
                sorted.help = true;
                continue;
            }
            let Some(known) = command.flag(name) else {
                let known: Vec<&str> = command.flags.iter().flat_map(|set| set.flags).map(|flag| flag.name).collect();
                let hint = keepfast_hcl::nearest(name, &known)
                    .map(|near| format!(". Did you mean -{near}?"))
                    .unwrap_or_default();
                return Err(CommandError::usage(format!("flag provided but not defined: -{name}{hint}")));
            };
            let value = match (value, known.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true".to_owned(),
                (None, _) => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| CommandError::usage(format!("flag needs an argument: -{name}")))?,
            };
            check(known, &value)?;
            sorted.given.push((known.name, value));
        }
        Ok(sorted)
    }

    /// Fails when there are too few or too many arguments.
    pub(crate) fn count(&self, command: &Command) -> Result<(), CommandError> {
        let got = self.arguments.len();
        let expected = match (command.min, command.max) {
            (min, None) => format!("at least {min}"),
            (min, Some(max)) if min == max => min.to_string(),
            (min, Some(max)) => format!("{min}-{max}"),
        };
        if got < command.min {
            return Err(CommandError::usage(format!("Not enough arguments (expected {expected}, got {got})")));
        }
        if command.max.is_some_and(|max| got > max) {
            return Err(CommandError::usage(format!("Too many arguments (expected {expected}, got {got})")));
        }
        Ok(())
    }

    /// The last value of a flag.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.given.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// Whether a flag is present.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// Whether a boolean flag is on.
    pub(crate) fn on(&self, name: &str) -> bool {
        self.truth(name).unwrap_or(false)
    }

    /// The value of a boolean flag, if it is present.
    pub(crate) fn truth(&self, name: &str) -> Option<bool> {
        self.text(name).and_then(truth)
    }

    /// The value of an integer flag, if it is present.
    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(|value| value.parse().ok())
    }

    /// The value of a duration flag, if it is present.
    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        self.text(name).and_then(duration::parse)
    }

    /// All values of a flag.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        self.given.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.as_str()).collect()
    }

    /// All `key=value` pairs of a flag.
    pub(crate) fn pairs(&self, name: &str) -> Map<String, Value> {
        let pairs = self.list(name).into_iter().filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.trim().to_owned(), Value::from(value))).collect()
    }
}

impl Command {
    /// The flag with this name or alias.
    pub(crate) fn flag(&self, name: &str) -> Option<&'static Flag> {
        self.flags.iter().flat_map(|set| set.flags).find(|flag| flag.name == name || flag.alias == Some(name))
    }
}

/// Fails when a value does not have its flag's kind.
fn check(flag: &Flag, value: &str) -> Result<(), CommandError> {
    let expected = match flag.kind {
        Kind::Bool if truth(value).is_none() => "true or false",
        Kind::Int if value.parse::<i64>().is_err() => "a whole number",
        Kind::Duration if duration::parse(value).is_none() => "a duration such as 90s or 1h30m",
        Kind::Pairs if !value.contains('=') => "key=value",
        _ => return Ok(()),
    };
    Err(CommandError::usage(format!("invalid value {value:?} for flag -{}: expected {expected}", flag.name)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::aliased("force", "f", Kind::Bool, ""),
        Flag::new("mount", Kind::Text, ""),
        Flag::new("cas", Kind::Int, ""),
        Flag::new("ttl", Kind::Duration, ""),
        Flag::new("policy", Kind::List, ""),
        Flag::new("metadata", Kind::Pairs, ""),
    ];
    const COMMAND: Command = Command {
        name: "x",
        usage: "",
        about: "",
        details: "",
        min: 1,
        max: Some(2),
        flags: &[FlagSet { title: "", flags: FLAGS }],
        run: |_| Ok(0),
    };

    fn parse(line: &str) -> Result<Words, CommandError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Words::parse(&COMMAND, &words)
    }

    #[test]
    fn parses_every_form_of_a_flag() {
        for line in ["-mount=a -cas 5 p", "--mount a p --cas=5", "p -mount a -cas=5"] {
            let words = parse(line).unwrap();
            assert_eq!((words.text("mount"), words.int("cas")), (Some("a"), Some(5)), "{line}");
            assert_eq!(words.arguments, ["p"]);
        }
        let words = parse("-f p k=v -force=false -policy=a -policy b -metadata=k=v=w - -- -x").unwrap();
        assert!(!words.on("force") && words.has("force"));
        assert_eq!(words.list("policy"), ["a", "b"]);
        assert_eq!(words.pairs("metadata")["k"], "v=w");
        assert_eq!(words.arguments, ["p", "k=v", "-", "-x"]);
        assert!(parse("p -h").unwrap().help);
    }

    #[test]
    fn errors_name_the_flag() {
        for (line, message) in [
            ("-nope", "flag provided but not defined: -nope"),
            ("p -mount", "flag needs an argument: -mount"),
            ("-cas=x", "invalid value \"x\" for flag -cas: expected a whole number"),
            ("-ttl=bad", "invalid value \"bad\" for flag -ttl: expected a duration such as 90s or 1h30m"),
            ("-f=perhaps", "invalid value \"perhaps\" for flag -force: expected true or false"),
            ("-metadata=k", "invalid value \"k\" for flag -metadata: expected key=value"),
        ] {
            let halt = parse(line).unwrap_err();
            assert_eq!((halt.code, halt.message.as_deref()), (1, Some(message)));
        }
        let too_few = parse("").unwrap().count(&COMMAND).unwrap_err();
        assert_eq!(too_few.message.as_deref(), Some("Not enough arguments (expected 1-2, got 0)"));
        let too_many = parse("a b c").unwrap().count(&COMMAND).unwrap_err();
        assert_eq!(too_many.message.as_deref(), Some("Too many arguments (expected 1-2, got 3)"));
    }
}
