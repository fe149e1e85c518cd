//! `scan`: lists the names at all levels below a path.

use super::listing;
use crate::args::Command;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "scan",
    usage: "PATH",
    about: "List the names at a path and at all levels below it.",
    details: "
    keepfast scan secret/metadata
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT, listing::FLAGS],
    run: |cx| listing::show(cx, &cx.session()?, "scan", &cx.path(0)),
};
