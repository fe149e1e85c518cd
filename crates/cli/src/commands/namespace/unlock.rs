//! `namespace unlock`: unlocks the API of a namespace.

use keepfast_client::{Method, Request};
use serde_json::json;

use super::{lock_path, print_warnings};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "unlock",
    usage: "[PATH]",
    about: "Unlock the API of a namespace.",
    details: "
Without an argument, the current namespace is unlocked. Without -unlock-key, the
token needs the capability sudo.

    keepfast namespace unlock -unlock-key=... team/app
    keepfast namespace unlock -namespace=team
",
    min: 0,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet { title: "Command", flags: &[Flag::new("unlock-key", Kind::Text, "The key from \"namespace lock\".")] },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let key = cx.words.text("unlock-key").unwrap_or_default();
    let request = Request::new(Method::Put, lock_path(cx, "unlock")).with_body(json!({ "unlock_key": key }));
    let response = cx.session()?.call("Error unlocking namespace", &request)?;
    match response.as_ref() {
        Some(secret) if secret.wrap_info.is_some() => return cx.output.secret(secret),
        response if print_warnings(response) => {}
        _ => cx.output.success("Namespace unlocked successfully!"),
    }
    Ok(0)
}
