//! `operator unseal`: submits one key share.

use keepfast_client::{Method, Request};
use serde_json::json;

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::Outcome;
use crate::commands::status;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::prompt;

pub(crate) const COMMAND: Command = Command {
    name: "unseal",
    usage: "[KEY]",
    about: "Submit one unseal key share; a quorum unseals the server.",
    details: "
Without an argument, the command prompts for the share, which keeps it out of
the shell's history.
",
    min: 0,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet {
            title: "Command",
            flags: &[
                Flag::new("migrate", Kind::Bool, "The share is for a migration to another seal."),
                Flag::new("reset", Kind::Bool, "Discard the submitted shares."),
            ],
        },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let session = cx.session()?;
    let (context, body) = if cx.words.on("reset") {
        ("Error resetting unseal process", json!({ "reset": true }))
    } else {
        let key = match cx.words.arguments.first() {
            Some(key) => keepfast_client::SecretString::new(key.trim().to_owned()),
            None => prompt::hidden("Unseal Key", cx.words.on("non-interactive"))?,
        };
        ("Error unsealing", json!({ "key": key.expose(), "migrate": cx.words.on("migrate"), "reset": false }))
    };
    let request = Request { may_wrap: false, ..Request::new(Method::Put, "sys/unseal").with_body(body) };
    let status = session.require(context, request, "sealed")?.data.unwrap_or_default();
    status::show(cx, &session, status)
}
