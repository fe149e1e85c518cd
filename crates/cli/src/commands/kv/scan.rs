//! `kv scan`: lists the names of keys at every level.

use super::list;
use crate::args::{Command, FlagSet};
use crate::command_error::Outcome;
use crate::commands::listing;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP, MOUNT};

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
    list::show(cx, "scan")
}
