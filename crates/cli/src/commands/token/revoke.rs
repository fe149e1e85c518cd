//! `token revoke`: revokes a token.

use keepfast_client::{Method, Request};
use serde_json::json;

use super::ACCESSOR;
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "revoke",
    usage: "[TOKEN | ACCESSOR | PATH]",
    about: "Revoke a token, its children and their leases.",
    details: "
    keepfast token revoke -self
    keepfast token revoke -accessor 2463UfWu...
    keepfast token revoke -mode=path auth/approle/login
",
    min: 0,
    max: None,
    flags: &[
        HTTP,
        FlagSet {
            title: "Command",
            flags: &[
                ACCESSOR,
                Flag::new("mode", Kind::Text, "orphan: keep the children. path: revoke all tokens of an auth path."),
                Flag::new("self", Kind::Bool, "Revoke the current token."),
            ],
        },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let request = request(cx)?;
    cx.session()?.call("Error revoking token", &request)?;
    terminal::success("Success! Revoked token (if it existed)");
    Ok(0)
}

fn request(cx: &Cx) -> Result<Request, CommandError> {
    let (itself, accessor, mode) =
        (cx.words.on("self"), cx.words.on("accessor"), cx.words.text("mode").unwrap_or_default());
    let count = cx.words.arguments.len();
    match (itself, count) {
        (true, 0) | (false, 1) => {}
        (true, _) => {
            return Err(CommandError::usage(format!("Too many arguments with -self (expected 0, got {count})")));
        }
        (false, 0) => return Err(CommandError::usage("Not enough arguments (expected 1 or -self, got 0)")),
        (false, _) => {
            return Err(CommandError::usage(format!("Too many arguments (expected 1 or -self, got {count})")));
        }
    }
    let given = cx.argument(0).trim();
    // An empty variable in a script must not revoke the current token.
    if !itself && given.is_empty() {
        return Err(CommandError::usage("The token, accessor or path to revoke is empty"));
    }
    let put = |path: &str| Request::new(Method::Put, path);
    Ok(match (itself, accessor, mode) {
        (true, false, "") => put("auth/token/revoke-self"),
        (true, ..) => return Err(CommandError::usage("Cannot use -self with -accessor or -mode")),
        (false, true, "") => {
            Request::new(Method::Post, "auth/token/revoke-accessor").with_body(json!({ "accessor": given }))
        }
        (false, true, _) => return Err(CommandError::usage("Cannot use -accessor with -mode")),
        (false, false, "") => put("auth/token/revoke").with_body(json!({ "token": given })),
        (false, false, "orphan") => put("auth/token/revoke-orphan").with_body(json!({ "token": given })),
        (false, false, "path") => put(&format!("sys/leases/revoke-prefix/{given}")),
        (false, false, other) => {
            return Err(CommandError::usage(format!("Invalid mode: {other:?}; supported are orphan and path")));
        }
    })
}
