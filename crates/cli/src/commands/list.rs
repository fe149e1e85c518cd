//! `list`: lists the names at a path.

use super::listing;
use crate::args::Command;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "list",
    usage: "PATH",
    about: "List the names at a path, one level.",
    details: "
Names that have others below them end in a slash.

    keepfast list auth/approle/role
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT, listing::FLAGS],
    run: |cx| listing::show(cx, &cx.session()?, "list", &cx.path(0)),
};
