//! `version`: prints the version of the program.

use crate::args::Command;
use crate::command_error::Outcome;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "version",
    usage: "",
    about: "Print the version of this program.",
    details: "",
    min: 0,
    max: None,
    flags: &[],
    run: |_| print(),
};

/// Prints `Keepfast v<x.y.z> (<commit>), built <date>`. Scripts split the line at its blanks.
pub(crate) fn print() -> Outcome {
    let (version, commit, date) = (env!("CARGO_PKG_VERSION"), env!("KEEPFAST_COMMIT"), env!("KEEPFAST_BUILD_DATE"));
    terminal::line(&format!("Keepfast v{version} ({commit}), built {date}"));
    Ok(0)
}
