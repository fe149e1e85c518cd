//! `kv get`: the value of a key.

use keepfast_client::{Method, Request, Secret};
use serde_json::{Map, Value};

use super::place::{Place, print_map};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::cx::Cx;
use crate::flags::{HTTP, MOUNT, OUTPUT};
use crate::halt::{Halt, Outcome};
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
    let place = Place::find(cx, &session)?;
    let path = place.api("data");
    let mut request = Request::new(Method::Get, &path);
    if let Some(version) = cx.words.int("version").filter(|version| place.versioned && *version > 0) {
        request = request.with_query("version", version.to_string());
    }
    let secret = session.call(&format!("Error reading {path}"), &request)?;
    let secret = secret.ok_or_else(|| Halt::failed(format!("No value found at {path}")))?;
    show(cx, &place, &secret)
}

fn show(cx: &Cx, place: &Place, secret: &Secret) -> Outcome {
    if secret.wrap_info.is_some() {
        return cx.output.secret(secret);
    }
    let value = value(place, secret);
    if let Some(name) = cx.output.field() {
        let value = value.ok_or_else(|| Halt::failed(format!("No data found at {}", place.api("data"))))?;
        // The whole value can be asked for by the name of what holds it, unless it has a field of that name.
        if place.versioned && !value.contains_key(name) && matches!(name, "data" | "metadata") {
            return cx.output.secret(secret);
        }
        return cx.output.field_of(value, name, if place.versioned { "map" } else { "secret" });
    }
    if !cx.output.is_table() {
        return cx.output.secret(secret);
    }
    cx.output.warnings(secret);
    if place.versioned {
        place.print_path("Secret Path", "data");
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

/// The key's own fields.
fn value<'a>(place: &Place, secret: &'a Secret) -> Option<&'a Map<String, Value>> {
    if place.versioned { secret.data_field("data").and_then(Value::as_object) } else { secret.data.as_ref() }
}
