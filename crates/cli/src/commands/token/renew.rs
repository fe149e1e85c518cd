//! `token renew`: renews a token.

use keepfast_client::{Method, Request};
use serde_json::{Map, Value};

use super::ACCESSOR;
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "renew",
    usage: "[TOKEN | ACCESSOR]",
    about: "Renew a token, by default the current token.",
    details: "",
    min: 0,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet {
            title: "Command",
            flags: &[
                ACCESSOR,
                Flag::aliased("increment", "i", Kind::Duration, "The requested TTL; the server may grant less."),
            ],
        },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let mut body = Map::new();
    if let Some(increment) = cx.words.duration("increment") {
        body.insert("increment".to_owned(), increment.as_secs().into());
    }
    let (path, field) = match (cx.words.arguments.first(), cx.words.on("accessor")) {
        (None, true) => return Err(CommandError::usage("Not enough arguments with -accessor (expected 1, got 0)")),
        (None, false) => ("auth/token/renew-self", None),
        (Some(accessor), true) => ("auth/token/renew-accessor", Some(("accessor", accessor))),
        (Some(token), false) => ("auth/token/renew", Some(("token", token))),
    };
    body.extend(field.map(|(name, value)| (name.to_owned(), Value::from(value.trim()))));
    let request = Request::new(Method::Put, path).with_body(Value::Object(body));
    let secret = cx.session()?.call("Error renewing token", &request)?;
    cx.output.secret(&secret.ok_or_else(|| CommandError::failed("Error renewing token: the server returned no data"))?)
}
