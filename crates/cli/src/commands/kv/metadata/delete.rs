//! `kv metadata delete`: a key with all its versions.

use keepfast_client::{Method, Request};

use super::super::place::Place;
use crate::args::{Command, FlagSet};
use crate::cx::Cx;
use crate::flags::{HTTP, MOUNT};
use crate::halt::Outcome;

pub(crate) const COMMAND: Command = Command {
    name: "delete",
    usage: "KEY",
    about: "Remove a key, all its versions and what is kept about it, for good.",
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
    let place = Place::find(cx, &session)?;
    place.need_versions("Metadata")?;
    let path = place.api("metadata");
    session.call(&format!("Error deleting {path}"), &Request::new(Method::Delete, &path))?;
    cx.output.success(&format!("Success! Data deleted (if it existed) at: {path}"));
    Ok(0)
}
