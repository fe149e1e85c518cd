//! `print token`: the token that commands present.

use crate::args::Command;
use crate::cx::Cx;
use crate::flags::FORMAT;
use crate::halt::{Halt, Outcome};
use crate::session::address;
use crate::{terminal, token_file};

pub(crate) const COMMAND: Command = Command {
    name: "token",
    usage: "",
    about: "Print the token that commands would present, from the environment or the last login.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[FORMAT],
    run: print,
};

fn print(cx: &Cx) -> Outcome {
    let address = address(&cx.words).map_err(|error| Halt::failed(error.to_string()))?;
    let token = token_file::current(&address).map_err(|error| Halt::failed(error.to_string()))?;
    if let Some(token) = token {
        terminal::line(token.expose());
    }
    Ok(0)
}
