//! `patch`: merges data into the value at a path.

use keepfast_client::Method;

use super::write::{FORCE, send};
use crate::args::Command;
use crate::flags::{HTTP, OUTPUT};

pub(crate) const COMMAND: Command = Command {
    name: "patch",
    usage: "PATH [DATA K=V...]",
    about: "Change some fields of the value at a path with a JSON merge patch.",
    details: "
Data has the form of \"write\". A field that is null in a JSON object is removed.

    keepfast patch secret/metadata/app max_versions=5
",
    min: 1,
    max: None,
    flags: &[HTTP, OUTPUT, FORCE],
    run: |cx| send(cx, Method::Patch),
};
