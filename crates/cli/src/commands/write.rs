//! `write`: writes data to a path.

use std::io;

use keepfast_client::{Method, Request};
use serde_json::Value;

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};
use crate::{data, mfa};

/// The flag that permits a write without data.
pub(super) const FORCE: FlagSet = FlagSet {
    title: "Command",
    flags: &[Flag::aliased("force", "f", Kind::Bool, "Also write without data; some paths need none.")],
};

pub(crate) const COMMAND: Command = Command {
    name: "write",
    usage: "PATH [DATA K=V...]",
    about: "Write data or configuration to a path.",
    details: "
A value @FILE is read from a file, a value - from stdin. An argument @FILE or -
is a JSON object.

    keepfast write auth/approle/role/app token_policies=app token_ttl=20m
    keepfast write sys/policies/acl/app policy=@app.hcl
    keepfast write -f auth/approle/role/app/secret-id
",
    min: 1,
    max: None,
    flags: &[HTTP, OUTPUT, FORCE],
    run: |cx| send(cx, Method::Put),
};

/// Sends data to a path, as a write or as a patch.
pub(super) fn send(cx: &Cx, method: Method) -> Outcome {
    let path = cx.path(0);
    let arguments = cx.arguments_from(1);
    if arguments.is_empty() && !cx.words.on("force") {
        return Err(CommandError::usage("Must supply data or use -force"));
    }
    let data = data::parse(arguments, &mut io::stdin())?;
    let request = Request::new(method, &path).with_body(Value::Object(data));
    match cx.session()?.call(&format!("Error writing data to {path}"), &request)? {
        Some(secret) => cx.output.secret(&mfa::complete(cx, secret)?),
        None => {
            cx.output.success(&format!("Success! Data written to: {path}"));
            Ok(0)
        }
    }
}
