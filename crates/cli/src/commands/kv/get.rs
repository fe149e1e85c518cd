//! `kv get`: prints the value of a key.

use keepfast_client::{Method, Request, Secret};
use serde_json::{Map, Value};

use super::key_path::{KeyPath, print_map};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{HTTP, MOUNT, OUTPUT};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "get",
    usage: "KEY",
    about: "Show the value of a key.",
    details: "
    keepfast kv get -mount=secret app/db
    keepfast kv get -mount=secret -field=password app/db
    keepfast kv get -mount=secret -version=3 app/db
",
    min: 1,
    max: Some(1),
    flags: &[
        HTTP,
        OUTPUT,
        FlagSet {
            title: "Command",
            flags: &[MOUNT, Flag::new("version", Kind::Int, "The version to show. Default: the newest.")],
        },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let session = cx.session()?;
    let key_path = KeyPath::find(cx, &session)?;
    let path = key_path.api("data");
    let mut request = Request::new(Method::Get, &path);
    if let Some(version) = cx.words.int("version").filter(|version| key_path.versioned && *version > 0) {
        request = request.with_query("version", version.to_string());
    }
    let secret = session.call(&format!("Error reading {path}"), &request)?;
    let secret = secret.ok_or_else(|| CommandError::failed(format!("No value found at {path}")))?;
    show(cx, &key_path, &secret)
}

/// Prints the value of a key.
pub(in crate::commands) fn show(cx: &Cx, key_path: &KeyPath, secret: &Secret) -> Outcome {
    if secret.wrap_info.is_some() {
        return cx.output.secret(secret);
    }
    let value = value(key_path, secret);
    if let Some(name) = cx.output.field() {
        let value = value.ok_or_else(|| CommandError::failed(format!("No data found at {}", key_path.api("data"))))?;
        // "data" and "metadata" name the parts of the response, unless the value has a field of that name.
        if key_path.versioned && !value.contains_key(name) && matches!(name, "data" | "metadata") {
            return cx.output.secret(secret);
        }
        return cx.output.field_of(value, name, if key_path.versioned { "map" } else { "secret" });
    }
    if !cx.output.is_table() {
        return cx.output.secret(secret);
    }
    cx.output.warnings(secret);
    if key_path.versioned {
        key_path.print_path("Secret Path", "data");
        if let Some(metadata) = secret.data_field("metadata").and_then(Value::as_object) {
            print_map("Metadata", metadata);
            terminal::line("");
        }
    }
    if let Some(value) = value {
        print_map("Data", value);
    }
    Ok(0)
}

/// The fields of the key's value.
fn value<'a>(key_path: &KeyPath, secret: &'a Secret) -> Option<&'a Map<String, Value>> {
    if key_path.versioned { secret.data_field("data").and_then(Value::as_object) } else { secret.data.as_ref() }
}
