//! `kv destroy`: removing versions for good.

use super::versions;
use crate::args::Command;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "destroy",
    usage: "KEY",
    about: "Remove versions of a key for good.",
    details: "
    keepfast kv destroy -mount=secret -versions=1,2 app/db
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT, versions::FLAGS],
    run: |cx| versions::act(cx, "destroy", "Destroy"),
};
