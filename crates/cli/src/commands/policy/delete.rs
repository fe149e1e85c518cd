//! `policy delete`: deletes a policy.

use keepfast_client::{Method, Request};

use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "delete",
    usage: "NAME",
    about: "Delete a policy. Tokens with it lose its capabilities at once.",
    details: "",
    min: 1,
    max: Some(1),
    flags: &[HTTP],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let name = cx.path(0).to_lowercase();
    cx.session()?
        .call(&format!("Error deleting {name}"), &Request::new(Method::Delete, format!("sys/policies/acl/{name}")))?;
    terminal::success(&format!("Success! Deleted policy: {name}"));
    Ok(0)
}
