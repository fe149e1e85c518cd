//! `kv metadata delete`: deletes a key with all its versions.

use keepfast_client::{Method, Request};

use super::super::key_path::KeyPath;
use crate::args::{Command, FlagSet};
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{HTTP, MOUNT};

pub(crate) const COMMAND: Command = Command {
    name: "delete",
    usage: "KEY",
    about: "Delete a key with its metadata and all its versions permanently.",
    details: "
    keepfast kv metadata delete -mount=secret app/db
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FlagSet { title: "Command", flags: &[MOUNT] }],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let session = cx.session()?;
    let key_path = KeyPath::find(cx, &session)?;
    key_path.need_versions("Metadata")?;
    let path = key_path.api("metadata");
    session.call(&format!("Error deleting {path}"), &Request::new(Method::Delete, &path))?;
    cx.output.success(&format!("Success! Data deleted (if it existed) at: {path}"));
    Ok(0)
}
