//! `policy read`: prints the text of a policy.

use keepfast_client::{Method, Request};
use serde_json::json;

use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "read",
    usage: "NAME",
    about: "Print the text of a policy.",
    details: "",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let name = cx.path(0).to_lowercase();
    let request = Request::new(Method::Get, format!("sys/policies/acl/{name}"));
    let secret = cx.session()?.call(&format!("Error reading policy named {name}"), &request)?;
    let text = secret
        .as_ref()
        .and_then(|secret| secret.text("policy"))
        .filter(|text| !text.is_empty())
        .ok_or_else(|| CommandError::failed(format!("No policy named: {name}")))?;
    if cx.output.is_table() {
        terminal::line(text.trim());
    } else {
        cx.output.document(json!({ "policy": text }));
    }
    Ok(0)
}
