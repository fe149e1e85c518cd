//! `kv list`: lists the names of keys.

use super::key_path::KeyPath;
use crate::args::{Command, FlagSet};
use crate::command_error::{CommandError, Outcome};
use crate::commands::listing;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP, MOUNT};

pub(crate) const COMMAND: Command = Command {
    name: "list",
    usage: "[PATH]",
    about: "List the names of keys, one level.",
    details: "
    keepfast kv list -mount=secret
    keepfast kv list -mount=secret app
",
    min: 0,
    max: Some(1),
    flags: &[HTTP, FORMAT, listing::FLAGS, FlagSet { title: "KV", flags: &[MOUNT] }],
    run,
};

fn run(cx: &Cx) -> Outcome {
    show(cx, "list")
}

/// Lists or scans the names below a path; `operation` is `list` or `scan`.
pub(super) fn show(cx: &Cx, operation: &str) -> Outcome {
    if cx.words.arguments.is_empty() && !cx.words.has("mount") {
        return Err(CommandError::usage("Not enough arguments (expected 1, got 0)"));
    }
    let session = cx.session()?;
    let key_path = KeyPath::find(cx, &session)?;
    listing::show(cx, &session, operation, &key_path.api("metadata"))
}
