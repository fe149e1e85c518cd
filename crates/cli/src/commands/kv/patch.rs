//! `kv patch`: changes some fields of a key's value.

use std::io;

use keepfast_client::{Error, Method, Request, Secret};
use serde_json::{Map, Value, json};

use super::key_path::{KeyPath, show_written};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::data;
use crate::flags::{HTTP, MOUNT, OUTPUT};
use crate::session::{Session, request_error};

pub(crate) const COMMAND: Command = Command {
    name: "patch",
    usage: "KEY [DATA K=V...]",
    about: "Change some fields of a key's value, in a versioned engine.",
    details: "
The server patches in one step. Where a policy allows reading and writing but not
patching, the command reads, changes and writes the value with check-and-set.

    keepfast kv patch -mount=secret app/db password=-
    keepfast kv patch -mount=secret -remove-data=user app/db
",
    min: 1,
    max: None,
    flags: &[HTTP, OUTPUT, FlagSet { title: "Command", flags: FLAGS }],
    run,
};

const FLAGS: &[Flag] = &[
    MOUNT,
    Flag::new("cas", Kind::Int, "Patch only if this is the current version."),
    Flag::new("method", Kind::Text, "patch: use the PATCH method; rw: read and write. Default: patch, else rw."),
    Flag::new("remove-data", Kind::List, "A field to remove; may be repeated."),
];

fn run(cx: &Cx) -> Outcome {
    let (arguments, removed) = (cx.arguments_from(1), cx.words.list("remove-data"));
    if arguments.is_empty() && removed.is_empty() {
        return Err(CommandError::usage("Must supply data"));
    }
    let mut changes = data::parse(arguments, &mut io::stdin())?;
    changes.extend(removed.into_iter().map(|field| (field.to_owned(), Value::Null)));
    let session = cx.session()?;
    let key_path = KeyPath::find(cx, &session)?;
    if !key_path.versioned {
        return Err(CommandError::failed("K/V engine mount must be version 2 for patch support"));
    }
    let response = match cx.words.text("method") {
        None => patch_or_rewrite(cx, &session, &key_path, changes)?,
        Some("patch") => session.call(&context(&key_path), &by_server(cx, &key_path, &changes))?,
        Some("rw") => rewrite(cx, &session, &key_path, changes)?,
        Some(other) => {
            return Err(CommandError::failed(format!("Unsupported method provided to -method flag: {other}")));
        }
    };
    show_written(cx, &key_path, response)
}

fn context(key_path: &KeyPath) -> String {
    format!("Error writing data to {}", key_path.api("data"))
}

fn by_server(cx: &Cx, key_path: &KeyPath, changes: &Map<String, Value>) -> Request {
    let mut body = json!({ "data": changes });
    if let Some(cas) = cx.words.int("cas").filter(|cas| *cas > 0) {
        body["options"] = json!({ "cas": cas });
    }
    Request::new(Method::Patch, key_path.api("data")).with_body(body)
}

/// Sends a patch. When patching is forbidden or not supported, reads and writes the value.
fn patch_or_rewrite(
    cx: &Cx,
    session: &Session,
    key_path: &KeyPath,
    changes: Map<String, Value>,
) -> Result<Option<Secret>, CommandError> {
    let request = by_server(cx, key_path, &changes);
    match session.attempt(&request)? {
        Ok(response) => Ok(response),
        Err(error) if matches!(error.status(), Some(403 | 405)) => rewrite(cx, session, key_path, changes),
        Err(error) => Err(request_error(&context(key_path), &error)),
    }
}

/// Reads, changes and writes the value with check-and-set.
fn rewrite(
    cx: &Cx,
    session: &Session,
    key_path: &KeyPath,
    changes: Map<String, Value>,
) -> Result<Option<Secret>, CommandError> {
    let path = key_path.api("data");
    let reading = |error: Error| request_error(&format!("Error doing pre-read at {path}"), &error);
    let found = session.preflight(Request::new(Method::Get, &path)).map_err(reading)?;
    let found = found.ok_or_else(|| CommandError::failed(format!("No value found at {path}")))?;
    let newest = found.data_field("metadata").and_then(|metadata| metadata.get("version")).and_then(Value::as_i64);
    let Some(mut value) = found.data_field("data").and_then(Value::as_object).cloned() else {
        return Err(CommandError::failed(format!("No data found at {path}")));
    };
    for (field, change) in changes {
        match change {
            Value::Null => drop(value.remove(&field)),
            change => drop(value.insert(field, change)),
        }
    }
    let cas = cx.words.int("cas").filter(|cas| *cas > 0).or(newest);
    let request = Request::new(Method::Put, &path).with_body(json!({ "data": value, "options": { "cas": cas } }));
    session.call(&context(key_path), &request)
}
