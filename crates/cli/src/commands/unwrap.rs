//! `unwrap`: unwraps a wrapping token.

use keepfast_client::SecretString;

use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};

pub(crate) const COMMAND: Command = Command {
    name: "unwrap",
    usage: "[TOKEN]",
    about: "Unwrap a wrapping token, which works once.",
    details: "
Without an argument, the current token is the wrapping token.

    keepfast unwrap hvs.CAES...
",
    min: 0,
    max: Some(1),
    flags: &[HTTP, OUTPUT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let token = cx.words.arguments.first().map(|token| SecretString::new(token.trim().to_owned()));
    match cx.session()?.unwrap(token.as_ref())? {
        Some(secret) => cx.output.secret(&secret),
        None => Err(CommandError::failed("Could not find wrapped response")),
    }
}
