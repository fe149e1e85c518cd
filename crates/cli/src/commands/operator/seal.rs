//! `operator seal`: seals a server.

use keepfast_client::{Method, Request};

use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "seal",
    usage: "",
    about: "Seal the server: it discards its key and serves no requests until it is unsealed.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP],
    run,
};

fn run(cx: &Cx) -> Outcome {
    cx.session()?.call("Error sealing", &Request::new(Method::Put, "sys/seal"))?;
    terminal::success("Success! Vault is sealed.");
    Ok(0)
}
