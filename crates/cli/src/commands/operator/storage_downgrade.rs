//! `operator storage downgrade`: changes a data directory back to the earlier format.

use keepfast_server::config::Environment;

use super::config_files;
use crate::args::Command;
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
    flags: &[config_files::FLAGS],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let paths = config_files::paths(cx)?;
    let downgraded = keepfast_server::downgrade_storage(&paths, &Environment::of_process());
    let path = downgraded.map_err(|error| CommandError::usage(error.to_string()))?;
    let path = path.ok_or_else(|| CommandError::usage("The configured storage has no data directory."))?;
    terminal::success(&format!("Success! Changed the format of {}.", path.display()));
    Ok(0)
}
