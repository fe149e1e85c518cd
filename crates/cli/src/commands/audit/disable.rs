//! `audit disable`: removes an audit device.

use keepfast_client::{Method, Request};

use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "disable",
    usage: "PATH",
    about: "Disable an audit device, on a server that permits this through the API.",
    details: "",
    min: 1,
    max: Some(1),
    flags: &[HTTP],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let path = cx.path(0);
    let request = Request::new(Method::Delete, format!("sys/audit/{path}"));
    cx.session()?.call("Error disabling audit device", &request)?;
    terminal::success(&format!("Success! Disabled audit device (if it was enabled) at: {path}/"));
    Ok(0)
}
