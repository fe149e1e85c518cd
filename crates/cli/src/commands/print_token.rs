//! `print token`: prints the current token.

use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::FORMAT;
use crate::session::address;
use crate::{terminal, token_file};

pub(crate) const COMMAND: Command = Command {
    name: "token",
    usage: "",
    about: "Print the current token, from the environment or the last login.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[FORMAT],
    run: print,
};

fn print(cx: &Cx) -> Outcome {
    let address = address(&cx.words).map_err(|error| CommandError::failed(error.to_string()))?;
    let token = token_file::current(&address).map_err(|error| CommandError::failed(error.to_string()))?;
    if let Some(token) = token {
        terminal::line(token.expose());
    }
    Ok(0)
}
