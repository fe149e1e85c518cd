//! `path-help`: prints the server's help for a path.

use keepfast_client::{Method, Request};

use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::sorted;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "path-help",
    usage: "PATH",
    about: "Show the server's help for a path.",
    details: "
    keepfast path-help secret
    keepfast path-help auth/approle/role/app
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let path = cx.path(0);
    let mut request = Request::new(Method::Get, &path).with_query("help", "1");
    request.may_wrap = false;
    let session = cx.session()?;
    let response = session.raw("Error retrieving help", &request)?;
    let not_found = || CommandError::failed(format!("No help found at {path}"));
    if response.status == 404 {
        return Err(session.refused("Error retrieving help", &request, &response));
    }
    let body: serde_json::Value = serde_json::from_slice(&response.body).map_err(|_| not_found())?;
    match body.get("help").and_then(serde_json::Value::as_str) {
        Some(text) if cx.output.is_table() => terminal::line(text.trim_end()),
        Some(_) => cx.output.document(sorted(&body)),
        None => return Err(not_found()),
    }
    Ok(0)
}
