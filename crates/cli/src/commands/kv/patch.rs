//! `kv patch`: some fields of a key, the others kept.

use std::io;

use keepfast_client::{Error, Method, Request, Secret};
use serde_json::{Map, Value, json};

use super::place::{Place, show_written};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::cx::Cx;
use crate::data;
use crate::flags::{HTTP, MOUNT, OUTPUT};
use crate::halt::{Halt, Outcome};
use crate::session::{Session, told};

pub(crate) const COMMAND: Command = Command {
    name: "patch",
    usage: "KEY [DATA K=V...]",
    about: "Change some fields of a key's value. Only where versions are kept.",
    details: "
The change is made by the server in one step; where a policy allows reading and
writing but not patching, it is made here and written back with check-and-set.

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
    Flag::new("cas", Kind::Int, "Change only if this is the newest version."),
    Flag::new(
        "method",
        Kind::Text,
        "patch: only by the server; rw: only by reading and writing. Default: whichever is allowed.",
    ),
    Flag::new("remove-data", Kind::List, "A field to remove; may be repeated."),
];

fn run(cx: &Cx) -> Outcome {
    let (arguments, removed) = (cx.arguments_from(1), cx.words.list("remove-data"));
    if arguments.is_empty() && removed.is_empty() {
        return Err(Halt::usage("Must supply data"));
    }
    let mut changes = data::parse(arguments, &mut io::stdin())?;
    changes.extend(removed.into_iter().map(|field| (field.to_owned(), Value::Null)));
    let session = cx.session()?;
    let place = Place::find(cx, &session)?;
    if !place.versioned {
        return Err(Halt::failed("K/V engine mount must be version 2 for patch support"));
    }
    let answer = match cx.words.text("method") {
        None => patch_or_rewrite(cx, &session, &place, changes)?,
        Some("patch") => session.call(&context(&place), &by_server(cx, &place, &changes))?,
        Some("rw") => rewrite(cx, &session, &place, changes)?,
        Some(other) => return Err(Halt::failed(format!("Unsupported method provided to -method flag: {other}"))),
    };
    show_written(cx, &place, answer)
}

fn context(place: &Place) -> String {
    format!("Error writing data to {}", place.api("data"))
}

fn by_server(cx: &Cx, place: &Place, changes: &Map<String, Value>) -> Request {
    let mut body = json!({ "data": changes });
    if let Some(cas) = cx.words.int("cas").filter(|cas| *cas > 0) {
        body["options"] = json!({ "cas": cas });
    }
    Request::new(Method::Patch, place.api("data")).with_body(body)
}

/// Lets the server do it, else does it here, if patching is what is forbidden or unknown.
fn patch_or_rewrite(
    cx: &Cx,
    session: &Session,
    place: &Place,
    changes: Map<String, Value>,
) -> Result<Option<Secret>, Halt> {
    let request = by_server(cx, place, &changes);
    match session.attempt(&request)? {
        Ok(answer) => Ok(answer),
        Err(error) if matches!(error.status(), Some(403 | 405)) => rewrite(cx, session, place, changes),
        Err(error) => Err(told(&context(place), &error)),
    }
}

/// Reads, changes, and writes back unless somebody else wrote in between.
fn rewrite(cx: &Cx, session: &Session, place: &Place, changes: Map<String, Value>) -> Result<Option<Secret>, Halt> {
    let path = place.api("data");
    let reading = |error: Error| told(&format!("Error doing pre-read at {path}"), &error);
    let found = session.preflight(Request::new(Method::Get, &path)).map_err(reading)?;
    let found = found.ok_or_else(|| Halt::failed(format!("No value found at {path}")))?;
    let newest = found.data_field("metadata").and_then(|metadata| metadata.get("version")).and_then(Value::as_i64);
    let Some(mut value) = found.data_field("data").and_then(Value::as_object).cloned() else {
        return Err(Halt::failed(format!("No data found at {path}")));
    };
    for (field, change) in changes {
        match change {
            Value::Null => drop(value.remove(&field)),
            change => drop(value.insert(field, change)),
        }
    }
    let cas = cx.words.int("cas").filter(|cas| *cas > 0).or(newest);
    let request = Request::new(Method::Put, &path).with_body(json!({ "data": value, "options": { "cas": cas } }));
    session.call(&context(place), &request)
}
