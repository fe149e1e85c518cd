//! `secrets disable`, `auth disable`: unmounts an engine and deletes its data.

use keepfast_client::{Method, Request};

use super::{ENGINES, Kind, METHODS};
use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const SECRETS: Command = Command {
    name: "disable",
    usage: "PATH",
    about: "Unmount a secrets engine, revoke its leases and delete its data.",
    details: "",
    min: 1,
    max: Some(1),
    flags: &[HTTP],
    run: |cx| run(cx, &ENGINES),
};

pub(crate) const AUTH: Command = Command {
    name: "disable",
    usage: "PATH",
    about: "Unmount an auth method and revoke its tokens.",
    details: "",
    min: 1,
    max: Some(1),
    flags: &[HTTP],
    run: |cx| run(cx, &METHODS),
};

fn run(cx: &Cx, kind: &Kind) -> Outcome {
    let path = cx.path(0);
    let request = Request::new(Method::Delete, format!("{}/{path}", kind.api));
    cx.session()?.call(&format!("Error disabling {} at {path}/", kind.noun), &request)?;
    terminal::success(&format!("Success! Disabled the {} (if it existed) at: {path}/", kind.noun));
    Ok(0)
}
