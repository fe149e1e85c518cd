//! `policy write`: uploads a policy from a file.

use std::io::{self, Read};

use keepfast_client::{Method, Request};
use serde_json::json;

use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::data;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "write",
    usage: "NAME PATH",
    about: "Upload a policy from a file, or from stdin when the path is -.",
    details: "
    keepfast policy write app app.hcl
",
    min: 2,
    max: Some(2),
    flags: &[HTTP],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let given = cx.path(0);
    let name = given.to_lowercase();
    let policy = source(cx.argument(1))?;
    let request = Request::new(Method::Put, format!("sys/policies/acl/{name}")).with_body(json!({ "policy": policy }));
    let session = cx.session()?;
    if name != given {
        terminal::warning(&format!("Policy name was converted from {given:?} to {name:?}"));
    }
    session.call("Error uploading policy", &request)?;
    terminal::success(&format!("Success! Uploaded policy: {name}"));
    Ok(0)
}

/// The text of a policy file, or of stdin when the path is -.
pub(super) fn source(path: &str) -> Result<String, CommandError> {
    let mut text = String::new();
    let read =
        if path == "-" { io::stdin().read_to_string(&mut text).map(|_| text) } else { std::fs::read_to_string(path) };
    read.map_err(|error| CommandError::failed(format!("Error opening policy file: {}", data::opening(path, &error))))
}
