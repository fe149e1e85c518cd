//! `operator storage downgrade`: changes a data directory back to the earlier format.

use std::path::PathBuf;

use keepfast_server::config::Environment;

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "downgrade",
    usage: "",
    about: "Change the data directory back to the format of earlier versions.",
    details: "
The first start of a version with another storage format upgrades the data
directory, which earlier versions then refuse. This command reverts that, for
the node of a server without a cluster. Stop the server first, and run the
command as its user. Rotate the encryption key afterwards: an earlier version
does not know the encryptions that were counted since the upgrade.

    keepfast operator storage downgrade -config=/etc/keepfast/keepfast.hcl
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
    let downgraded = keepfast_server::downgrade_storage(&paths, &Environment::of_process());
    let path = downgraded.map_err(|error| CommandError::usage(error.to_string()))?;
    let path = path.ok_or_else(|| CommandError::usage("The configured storage has no data directory."))?;
    terminal::success(&format!("Success! Changed the format of {}.", path.display()));
    Ok(0)
}
