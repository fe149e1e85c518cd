//! `namespace scan`: lists all descendants of the current namespace.

use super::{LISTING, print_names};
use crate::args::Command;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "scan",
    usage: "",
    about: "List the namespaces at all levels below the current one.",
    details: "
    keepfast namespace scan
    keepfast namespace scan -namespace=team
",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT, LISTING],
    run: |cx| print_names(cx, "scan", "Error scanning namespaces"),
};
