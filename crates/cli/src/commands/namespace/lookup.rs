//! `namespace lookup`: prints the properties of a namespace.

use keepfast_client::{Method, Request};

use super::{api_path, print_data};
use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};

pub(crate) const COMMAND: Command = Command {
    name: "lookup",
    usage: "NAME",
    about: "Show the properties of a namespace below the current one.",
    details: "
    keepfast namespace lookup team
    keepfast namespace lookup -namespace=team app
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, OUTPUT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let context = "Error looking up namespace";
    let request = Request::new(Method::Get, api_path(cx, context)?);
    match cx.session()?.call(context, &request)? {
        Some(secret) => print_data(cx, &secret),
        None => Err(CommandError::failed("Namespace not found")),
    }
}
