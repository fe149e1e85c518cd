//! `operator rotate`: rotates the encryption key.

use keepfast_client::{Method, Request};

use crate::args::Command;
use crate::command_error::Outcome;
use crate::commands::status::show_key;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "rotate",
    usage: "",
    about: "Rotate the encryption key. Older data stays readable.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let session = cx.session()?;
    session.call("Error rotating key", &Request::new(Method::Post, "sys/rotate"))?;
    cx.output.success("Success! Rotated key\n");
    show_key(cx, &session)
}
