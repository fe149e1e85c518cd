//! `kv list`: the names of keys.

use super::place::Place;
use crate::args::{Command, FlagSet};
use crate::commands::listing;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP, MOUNT};
use crate::halt::{Halt, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "list",
    usage: "[PATH]",
    about: "List the names of keys, one level of them.",
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

/// Lists or scans the names below a path: `operation` is `list` or `scan`.
pub(super) fn show(cx: &Cx, operation: &str) -> Outcome {
    if cx.words.arguments.is_empty() && !cx.words.has("mount") {
        return Err(Halt::usage("Not enough arguments (expected 1, got 0)"));
    }
    let session = cx.session()?;
    let place = Place::find(cx, &session)?;
    listing::show(cx, &session, operation, &place.api("metadata"))
}
