//! `kv destroy`: destroys versions permanently.

use super::versions;
use crate::args::Command;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "destroy",
    usage: "KEY",
    about: "Destroy versions of a key permanently.",
    details: "
    keepfast kv destroy -mount=secret -versions=1,2 app/db
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT, versions::FLAGS],
    run: |cx| versions::act(cx, "destroy", "Destroy"),
};
