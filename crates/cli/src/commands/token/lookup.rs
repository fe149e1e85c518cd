//! `token lookup`: prints the properties of a token.

use keepfast_client::{Method, Request};
use serde_json::json;

use super::ACCESSOR;
use crate::args::{Command, FlagSet};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};

pub(crate) const COMMAND: Command = Command {
    name: "lookup",
    usage: "[TOKEN | ACCESSOR]",
    about: "Show the properties of a token, by default of the current token.",
    details: "",
    min: 0,
    max: Some(1),
    flags: &[HTTP, OUTPUT, FlagSet { title: "Command", flags: &[ACCESSOR] }],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let request = match (cx.words.arguments.first(), cx.words.on("accessor")) {
        (None, true) => return Err(CommandError::usage("Not enough arguments with -accessor (expected 1, got 0)")),
        (None, false) => Request::new(Method::Get, "auth/token/lookup-self"),
        (Some(accessor), true) => {
            Request::new(Method::Post, "auth/token/lookup-accessor").with_body(json!({ "accessor": accessor.trim() }))
        }
        (Some(token), false) => {
            Request::new(Method::Post, "auth/token/lookup").with_body(json!({ "token": token.trim() }))
        }
    };
    cx.output.secret(&cx.session()?.require("Error looking up token", request, "policies")?)
}
