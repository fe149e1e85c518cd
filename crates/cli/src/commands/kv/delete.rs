//! `kv delete`: a key's value, which a versioned engine keeps for a return.

use keepfast_client::{Method, Request};
use serde_json::json;

use super::place::Place;
use super::versions;
use crate::args::Command;
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};
use crate::halt::Outcome;

pub(crate) const COMMAND: Command = Command {
    name: "delete",
    usage: "KEY",
    about: "Delete a key's value, or some versions of it.",
    details: "
A versioned engine keeps what is deleted until it is destroyed; \"kv undelete\"
brings it back.

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
    let place = Place::find(cx, &session)?;
    let versions = versions::named(cx);
    let request = if place.versioned && !versions.is_empty() {
        Request::new(Method::Put, place.api("delete")).with_body(json!({ "versions": versions }))
    } else {
        Request::new(Method::Delete, place.api("data"))
    };
    let path = place.api("data");
    match session.call(&format!("Error deleting {path}"), &request)? {
        Some(secret) if !cx.output.is_table() => cx.output.secret(&secret),
        answer => {
            answer.iter().for_each(|secret| cx.output.warnings(secret));
            cx.output.success(&format!("Success! Data deleted (if it existed) at: {path}"));
            Ok(0)
        }
    }
}
