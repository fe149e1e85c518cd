//! `operator validate-config`: checks whether a server would start with a configuration.

use keepfast_server::config::Environment;

use super::config_files;
use crate::args::Command;
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
    flags: &[config_files::FLAGS],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let paths = config_files::paths(cx)?;
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
