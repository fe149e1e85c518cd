//! `operator validate-config`: whether configuration files can be read, without a server.

use std::path::PathBuf;

use keepfast_server::config::{self, Environment};

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::cx::Cx;
use crate::halt::{Halt, Outcome};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "validate-config",
    usage: "",
    about: "Check configuration files, on any machine.",
    details: "
Syntax, unknown keys and values that cannot be are found; nothing is opened. The exit code is 0 when all is well, 2 when there
are warnings, 1 when a server would not start.

    keepfast operator validate-config -config=/etc/keepfast/keepfast.hcl
",
    min: 0,
    max: Some(0),
    flags: &[FlagSet {
        title: "Command",
        flags: &[Flag::new(
            "config",
            Kind::List,
            "A file, or a directory of .hcl and .json files; may be repeated, later ones win.",
        )],
    }],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let paths: Vec<PathBuf> = cx.words.list("config").into_iter().map(PathBuf::from).collect();
    if paths.is_empty() {
        return Err(Halt::usage("Must specify a configuration file using -config."));
    }
    let (_, warnings) =
        config::load(&paths, &Environment::of_process()).map_err(|error| Halt::usage(error.to_string()))?;
    for warning in &warnings {
        terminal::line(&warning.to_string());
    }
    if warnings.is_empty() {
        terminal::success("Success! The configuration is valid.");
    }
    Ok(if warnings.is_empty() { 0 } else { 2 })
}
