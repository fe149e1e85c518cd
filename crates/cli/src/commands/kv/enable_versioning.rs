//! `kv enable-versioning`: upgrades an engine of version 1 to version 2.

use keepfast_client::{Method, Request};
use serde_json::json;

use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "enable-versioning",
    usage: "PATH",
    about: "Enable versions in a key-value engine. This cannot be undone.",
    details: "
    keepfast kv enable-versioning secret
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let path = cx.path(0);
    let request = Request::new(Method::Post, format!("sys/mounts/{path}/tune"))
        .with_body(json!({ "options": { "version": "2" } }));
    cx.session()?.call(&format!("Error tuning secrets engine {path}/"), &request)?;
    cx.output.success(&format!("Success! Tuned the secrets engine at: {path}/"));
    Ok(0)
}
