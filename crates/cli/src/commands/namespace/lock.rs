//! `namespace lock`: locks the API of a namespace.

use keepfast_client::{Method, Request};

use super::{lock_path, print_data};
use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "lock",
    usage: "[PATH]",
    about: "Lock the API of a namespace and of all namespaces below it.",
    details: "
Without an argument, the current namespace is locked. The response is the key
that unlocks it; the server does not return this key again.

    keepfast namespace lock team/app
    keepfast namespace lock -namespace=team
",
    min: 0,
    max: Some(1),
    flags: &[HTTP, OUTPUT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let request = Request::new(Method::Put, lock_path(cx, "lock"));
    let secret = cx.session()?.require("Error locking namespace", request, "unlock_key")?;
    let key = secret.text("unlock_key").filter(|_| cx.output.is_table() && cx.output.field().is_none());
    let Some(key) = key else { return print_data(cx, &secret) };
    cx.output.warnings(&secret);
    terminal::line(&format!("Unlock Key: {key}\n\n{LOCKED}"));
    Ok(0)
}

const LOCKED: &str = "The namespace is locked. Store the unlock key: \"namespace unlock\" needs it.
Without the key, only a token with the capability sudo unlocks the namespace.";
