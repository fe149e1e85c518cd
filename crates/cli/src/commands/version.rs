//! `version`: which program this is.

use crate::args::Command;
use crate::halt::Outcome;
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

/// Prints the version and, when the build knew it, the commit.
pub(crate) fn print() -> Outcome {
    let commit = option_env!("KEEPFAST_COMMIT").map(|commit| format!(" ({commit})")).unwrap_or_default();
    terminal::line(&format!(
        "Keepfast v{}{commit}, for {}/{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    ));
    Ok(0)
}
