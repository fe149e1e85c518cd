//! `print token`: the token that commands present.

use crate::args::Command;
use crate::halt::Outcome;
use crate::{terminal, token_file};

pub(crate) const COMMAND: Command = Command {
    name: "token",
    usage: "",
    about: "Print the token that commands would present, from the environment or the last login.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[],
    run: |_| print(),
};

fn print() -> Outcome {
    if let Some(token) = token_file::current() {
        terminal::line(token.expose());
    }
    Ok(0)
}
