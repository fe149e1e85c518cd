//! `kv rollback`: an old version made the newest again.

use keepfast_client::{Method, Request};
use serde_json::{Value, json};

use super::place::Place;
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP, MOUNT};
use crate::halt::{Halt, Outcome};
use crate::session::told;

pub(crate) const COMMAND: Command = Command {
    name: "rollback",
    usage: "KEY",
    about: "Write an old version of a key again, as its newest.",
    details: "
    keepfast kv rollback -mount=secret -version=2 app/db
",
    min: 1,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet { title: "Command", flags: &[MOUNT, Flag::new("version", Kind::Int, "The version to write again.")] },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let version = match cx.words.int("version") {
        None => return Err(Halt::usage("Version flag must be specified")),
        Some(version) if version < 1 => {
            return Err(Halt::usage(format!("Invalid value {version} for the version flag")));
        }
        Some(version) => version,
    };
    let session = cx.session()?;
    let place = Place::find(cx, &session)?;
    if !place.versioned {
        return Err(Halt::failed("K/V engine mount must be version 2 for rollback support"));
    }
    let path = place.api("data");
    let read = |request: Request| {
        let found =
            session.preflight(request).map_err(|error| told(&format!("Error doing pre-read at {path}"), &error))?;
        found.ok_or_else(|| Halt::failed(format!("No value found at {path}")))
    };
    let newest = read(Request::new(Method::Get, &path))?;
    let newest = newest.data_field("metadata").and_then(|metadata| metadata.get("version")).and_then(Value::as_i64);
    let old = read(Request::new(Method::Get, &path).with_query("version", version.to_string()))?;
    let Some(value) = old.data_field("data").filter(|value| !value.is_null()) else {
        return Err(Halt::failed(format!(
            "Version {version} of {path} is deleted or destroyed; there is nothing to write again"
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
