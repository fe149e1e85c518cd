//! `delete`: deletes the value at a path.

use std::io;

use keepfast_client::{Method, Request};

use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::data;
use crate::flags::{HTTP, OUTPUT};

pub(crate) const COMMAND: Command = Command {
    name: "delete",
    usage: "PATH [K=V...]",
    about: "Delete secrets or configuration at a path.",
    details: "
The engine at the path defines the effect. A path without a value is not an
error.

    keepfast delete auth/approle/role/app
",
    min: 1,
    max: None,
    flags: &[HTTP, OUTPUT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let path = cx.path(0);
    let mut request = Request::new(Method::Delete, &path);
    request.query = data::parse_query(cx.arguments_from(1), &mut io::stdin())?;
    match cx.session()?.call(&format!("Error deleting {path}"), &request)? {
        Some(secret) if cx.output.field().is_some() || !cx.output.is_table() || secret.data.is_some() => {
            cx.output.secret(&secret)
        }
        response => {
            response.iter().for_each(|secret| cx.output.warnings(secret));
            cx.output.success(&format!("Success! Data deleted (if it existed) at: {path}"));
            Ok(0)
        }
    }
}
