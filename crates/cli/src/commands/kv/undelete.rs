//! `kv undelete`: restores deleted versions.

use super::versions;
use crate::args::Command;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "undelete",
    usage: "KEY",
    about: "Restore deleted versions of a key.",
    details: "
    keepfast kv undelete -mount=secret -versions=3 app/db
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT, versions::FLAGS],
    run: |cx| versions::act(cx, "undelete", "Undelete"),
};
