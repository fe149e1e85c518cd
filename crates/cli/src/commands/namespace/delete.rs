//! `namespace delete`: deletes a namespace.

use keepfast_client::{Method, Request};

use super::{api_path, print_warnings};
use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "delete",
    usage: "NAME",
    about: "Delete a namespace with its mounts, tokens and leases.",
    details: "
A namespace that contains others is not deleted. A namespace that does not exist
is not an error.

    keepfast namespace delete team
    keepfast namespace delete -namespace=team app
",
    min: 1,
    max: Some(1),
    flags: &[HTTP],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let context = "Error deleting namespace";
    let request = Request::new(Method::Delete, api_path(cx, context)?);
    let response = cx.session()?.call(context, &request)?;
    let name = cx.path(0);
    match response.as_ref() {
        Some(secret) if secret.wrap_info.is_some() => return cx.output.secret(secret),
        // The server revokes the leases of the namespace after its response.
        Some(secret) if secret.text("status").is_some() => {
            terminal::success(&format!("Success! Namespace deletion scheduled: {name}/"));
        }
        response if print_warnings(response) => {}
        _ => terminal::success(&format!("Success! Namespace deleted: {name}/")),
    }
    Ok(0)
}
