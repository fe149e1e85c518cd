//! The `-config` flag of commands that read the configuration of a server on this machine.

use std::path::PathBuf;

use crate::args::{Flag, FlagSet, Kind};
use crate::command_error::CommandError;
use crate::cx::Cx;

/// The flags of such a command.
pub(super) const FLAGS: FlagSet = FlagSet {
    title: "Command",
    flags: &[Flag::new(
        "config",
        Kind::List,
        "A file, or a directory of .hcl and .json files; may be repeated, later ones take precedence.",
    )],
};

/// The paths of the configuration.
///
/// # Errors
/// A usage error when there is none.
pub(super) fn paths(cx: &Cx) -> Result<Vec<PathBuf>, CommandError> {
    let paths: Vec<PathBuf> = cx.words.list("config").into_iter().map(PathBuf::from).collect();
    if paths.is_empty() {
        return Err(CommandError::usage("Must specify a configuration file using -config."));
    }
    Ok(paths)
}
