//! `namespace list`: lists the children of the current namespace.

use super::{LISTING, print_names};
use crate::args::Command;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "list",
    usage: "",
    about: "List the namespaces below the current one, one level.",
    details: "
    keepfast namespace list
    keepfast namespace list -namespace=team
",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT, LISTING],
    run: |cx| print_names(cx, "list", "Error listing namespaces"),
};
