//! `kv undelete`: bringing deleted versions back.

use super::versions;
use crate::args::Command;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "undelete",
    usage: "KEY",
    about: "Bring deleted versions of a key back.",
    details: "
    keepfast kv undelete -mount=secret -versions=3 app/db
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT, versions::FLAGS],
    run: |cx| versions::act(cx, "undelete", "Undelete"),
};
