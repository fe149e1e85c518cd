//! `operator step-down`: makes the leader of a cluster step down.

use keepfast_client::{Method, Request};

use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "step-down",
    usage: "",
    about: "Make the leader of a cluster step down.",
    details: "
Another node becomes the leader. A server without a cluster stays as it is.

    keepfast operator step-down
",
    min: 0,
    max: Some(0),
    flags: &[HTTP],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let session = cx.session()?;
    session.call("Error stepping down", &Request::new(Method::Put, "sys/step-down"))?;
    terminal::success(&format!("Success! Stepped down: {}", session.address().base()));
    Ok(0)
}
