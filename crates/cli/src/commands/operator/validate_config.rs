//! `operator validate-config`: checks whether a server would start with a configuration.

use std::path::PathBuf;

use keepfast_server::config::Environment;

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "validate-config",
    usage: "",
    about: "Check configuration files and the environment that they need.",
    details: "
Checks syntax, unknown keys and values, and on this machine: certificates and
their keys, addresses, the storage path, log and pid files. Run it as the user
of the server. Nothing is created, changed or served. The exit code is 0
without warnings, 2 with warnings, 1 when a server would not start.

    keepfast operator validate-config -config=/etc/keepfast/keepfast.hcl
",
    min: 0,
    max: Some(0),
    flags: &[FlagSet {
        title: "Command",
        flags: &[Flag::new(
            "config",
            Kind::List,
            "A file, or a directory of .hcl and .json files; may be repeated, later ones take precedence.",
        )],
    }],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let paths: Vec<PathBuf> = cx.words.list("config").into_iter().map(PathBuf::from).collect();
    if paths.is_empty() {
        return Err(CommandError::usage("Must specify a configuration file using -config."));
    }
    let checked = keepfast_server::validate(&paths, &Environment::of_process());
    let warnings = checked.map_err(|error| CommandError::usage(error.to_string()))?;
    for warning in &warnings {
        terminal::line(warning);
    }
    if warnings.is_empty() {
        terminal::success("Success! The configuration is valid.");
    }
    Ok(if warnings.is_empty() { 0 } else { 2 })
}
