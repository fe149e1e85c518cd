//! `path-help`: the server's own help about a path.

use keepfast_client::{Method, Request};

use crate::args::Command;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::halt::{Halt, Outcome};
use crate::output::sorted;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "path-help",
    usage: "PATH",
    about: "Show the server's help about a path.",
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
    let answer = session.raw("Error retrieving help", &request)?;
    let nothing = || Halt::failed(format!("No help found at {path}"));
    if answer.status == 404 {
        return Err(session.refused("Error retrieving help", &request, &answer));
    }
    let body: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|_| nothing())?;
    match body.get("help").and_then(serde_json::Value::as_str) {
        Some(text) if cx.output.is_table() => terminal::line(text.trim_end()),
        Some(_) => cx.output.document(sorted(&body)),
        None => return Err(nothing()),
    }
    Ok(0)
}
