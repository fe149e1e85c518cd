//! The listing of names, shared by `list`, `scan` and the `kv` commands.

use keepfast_client::{Method, Request, Secret};
use serde_json::{Map, Value};

use crate::args::{Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::output::{plain, with_header};
use crate::session::Session;
use crate::terminal;

/// The flags of listings.
pub(super) const FLAGS: FlagSet = FlagSet {
    title: "Command",
    flags: &[
        Flag::new("after", Kind::Text, "Only names after this one, which need not exist."),
        Flag::new("detailed", Kind::Bool, "Show the properties of each name, if the server returns them."),
        Flag::new("limit", Kind::Int, "The maximum number of names."),
    ],
};

/// Lists the names below a path and prints them; `operation` is `list` or `scan`.
pub(super) fn show(cx: &Cx, session: &Session, operation: &str, path: &str) -> Outcome {
    let mut request = Request::new(Method::Get, path).with_query(operation, "true");
    if cx.words.has("after") || cx.words.has("limit") {
        request = request.with_query("after", cx.words.text("after").unwrap_or_default());
    }
    if let Some(limit) = cx.words.int("limit") {
        request = request.with_query("limit", limit.to_string());
    }
    let doing = if operation == "list" { "listing" } else { "scanning" };
    let Some(secret) = session.call(&format!("Error {doing} {path}"), &request)? else {
        return no_entries(cx, operation, path);
    };
    if secret.wrap_info.is_some() {
        return cx.output.secret(&secret);
    }
    // The server returns a scan in storage order, level by level.
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let names = names(&secret).map(|names| if operation == "scan" { sorted(names) } else { names });
    let Some(names) = names else {
        if !cx.output.is_table() || secret.warnings.as_ref().is_none_or(Vec::is_empty) {
            return no_entries(cx, operation, path);
        }
        cx.output.warnings(&secret);
        return Ok(0);
    };
    if cx.output.is_table() {
        cx.output.warnings(&secret);
    }
    let infos = secret.data_field("key_info").and_then(Value::as_object).filter(|_| cx.words.on("detailed"));
    match infos {
        Some(infos) if cx.output.is_table() => terminal::line(&detailed(&names, infos)),
        Some(_) => return cx.output.secret(&secret),
        None if cx.words.on("detailed") && !cx.output.is_table() => return cx.output.secret(&secret),
        None => cx.output.names("Keys", &names),
    }
    Ok(0)
}

/// The names in a response; `None` when there are none.
pub(super) fn names(secret: &Secret) -> Option<Vec<String>> {
    let names = secret.data_field("keys")?.as_array()?;
    Some(names.iter().map(plain).collect())
}

/// Prints an empty document or a message for people, with the same exit code.
fn no_entries(cx: &Cx, operation: &str, path: &str) -> Outcome {
    if cx.output.is_table() {
        let what = if operation == "list" { "value" } else { "entries" };
        return Err(CommandError::failed(format!("No {what} found at {path}")));
    }
    cx.output.document(Value::Object(Map::new()));
    Ok(2)
}

/// A table with a column for every field of any name.
pub(super) fn detailed(names: &[String], infos: &Map<String, Value>) -> String {
    let fields: std::collections::BTreeSet<&str> =
        infos.values().filter_map(Value::as_object).flat_map(Map::keys).map(String::as_str).collect();
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| {
            let info = infos.get(name);
            let cells = fields.iter().map(|field| info.and_then(|info| info.get(field)).map(plain).unwrap_or_default());
            std::iter::once(name.clone()).chain(cells).collect()
        })
        .collect();
    let header: Vec<&str> = std::iter::once("Keys").chain(fields.iter().copied()).collect();
    with_header(&header, &rows)
}
