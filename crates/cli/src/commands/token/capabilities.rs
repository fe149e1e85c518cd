//! `token capabilities`: prints the capabilities of a token at a path.

use keepfast_client::{Method, Request};
use serde_json::{Value, json};

use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::plain;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "capabilities",
    usage: "[TOKEN] PATH",
    about: "Show the capabilities of a token at a path, by default of the current token.",
    details: "
    keepfast token capabilities secret/data/app
",
    min: 1,
    max: Some(2),
    flags: &[HTTP, FORMAT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let (token, path) = match cx.words.arguments.as_slice() {
        [token, path] => (Some(token), path),
        _ => (None, &cx.words.arguments[0]),
    };
    let request = match token {
        Some(token) => {
            Request::new(Method::Post, "sys/capabilities").with_body(json!({ "token": token.trim(), "path": path }))
        }
        None => Request::new(Method::Post, "sys/capabilities-self").with_body(json!({ "path": path })),
    };
    let request = Request { may_wrap: false, ..request };
    let secret = cx.session()?.require("Error listing capabilities", request, "capabilities")?;
    let found = secret.data_field("capabilities");
    let mut capabilities: Vec<String> = found.and_then(Value::as_array).into_iter().flatten().map(plain).collect();
    capabilities.sort();
    if cx.output.is_table() {
        terminal::line(&capabilities.join(", "));
    } else {
        cx.output.document(capabilities.into());
    }
    Ok(0)
}
