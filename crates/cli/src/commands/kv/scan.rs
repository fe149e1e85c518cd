//! `kv scan`: the names of keys, at every level.

use super::place::Place;
use crate::args::{Command, FlagSet};
use crate::commands::listing;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP, MOUNT};
use crate::halt::{Halt, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "scan",
    usage: "[PATH]",
    about: "List the names of keys at every level below a path.",
    details: "
    keepfast kv scan -mount=secret
    keepfast kv scan -mount=secret app
",
    min: 0,
    max: Some(1),
    flags: &[HTTP, FORMAT, listing::FLAGS, FlagSet { title: "KV", flags: &[MOUNT] }],
    run,
};

fn run(cx: &Cx) -> Outcome {
    if cx.words.arguments.is_empty() && !cx.words.has("mount") {
        return Err(Halt::usage("Not enough arguments (expected 1, got 0)"));
    }
    let session = cx.session()?;
    let place = Place::find(cx, &session)?;
    listing::show(cx, &session, "scan", &place.api("metadata"))
}
