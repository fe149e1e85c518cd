//! `kv rollback`: writes an old version as the current one.

use keepfast_client::{Method, Request};
use serde_json::{Value, json};

use super::key_path::KeyPath;
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP, MOUNT};
use crate::session::request_error;

pub(crate) const COMMAND: Command = Command {
    name: "rollback",
    usage: "KEY",
    about: "Write an old version of a key as its current version.",
    details: "
    keepfast kv rollback -mount=secret -version=2 app/db
",
    min: 1,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet { title: "Command", flags: &[MOUNT, Flag::new("version", Kind::Int, "The version to restore.")] },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let version = match cx.words.int("version") {
        None => return Err(CommandError::usage("Version flag must be specified")),
        Some(version) if version < 1 => {
            return Err(CommandError::usage(format!("Invalid value {version} for the version flag")));
        }
        Some(version) => version,
    };
    let session = cx.session()?;
    let key_path = KeyPath::find(cx, &session)?;
    if !key_path.versioned {
        return Err(CommandError::failed("K/V engine mount must be version 2 for rollback support"));
    }
    let path = key_path.api("data");
    let read = |request: Request| {
        let found = session
            .preflight(request)
            .map_err(|error| request_error(&format!("Error doing pre-read at {path}"), &error))?;
        found.ok_or_else(|| CommandError::failed(format!("No value found at {path}")))
    };
    let newest = read(Request::new(Method::Get, &path))?;
    let newest = newest.data_field("metadata").and_then(|metadata| metadata.get("version")).and_then(Value::as_i64);
    let old = read(Request::new(Method::Get, &path).with_query("version", version.to_string()))?;
    let Some(value) = old.data_field("data").filter(|value| !value.is_null()) else {
        return Err(CommandError::failed(format!(
            "Version {version} of {path} is deleted or destroyed; it cannot be restored"
        )));
    };
    let request = Request::new(Method::Put, &path).with_body(json!({ "data": value, "options": { "cas": newest } }));
    match session.call(&format!("Error writing data to {path}"), &request)? {
        Some(secret) => cx.output.secret(&secret),
        None => {
            cx.output.success(&format!("Success! Data written to: {path}"));
            Ok(0)
        }
    }
}
