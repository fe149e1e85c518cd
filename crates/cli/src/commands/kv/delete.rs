//! `kv delete`: deletes the value of a key, which a versioned engine can undelete.

use keepfast_client::{Method, Request};
use serde_json::json;

use super::key_path::KeyPath;
use super::versions;
use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};

pub(crate) const COMMAND: Command = Command {
    name: "delete",
    usage: "KEY",
    about: "Delete the value of a key, or some versions of it.",
    details: "
A versioned engine keeps deleted versions until they are destroyed; \"kv undelete\"
restores them.

    keepfast kv delete -mount=secret app/db
    keepfast kv delete -mount=secret -versions=1,2 app/db
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, OUTPUT, versions::FLAGS],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let session = cx.session()?;
    let key_path = KeyPath::find(cx, &session)?;
    let versions = versions::named(cx);
    let request = if key_path.versioned && !versions.is_empty() {
        Request::new(Method::Put, key_path.api("delete")).with_body(json!({ "versions": versions }))
    } else {
        Request::new(Method::Delete, key_path.api("data"))
    };
    let path = key_path.api("data");
    match session.call(&format!("Error deleting {path}"), &request)? {
        Some(secret) if !cx.output.is_table() => cx.output.secret(&secret),
        response => {
            response.iter().for_each(|secret| cx.output.warnings(secret));
            cx.output.success(&format!("Success! Data deleted (if it existed) at: {path}"));
            Ok(0)
        }
    }
}
