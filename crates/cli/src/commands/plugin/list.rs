//! `plugin list`: lists all plugins, or those of one type.

use keepfast_client::{Method, Request};
use serde_json::{Map, Value, json};

use super::{TYPES, check_type};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::{plain, with_header};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "list",
    usage: "[TYPE]",
    about: "List the plugins of the server, or those of one type: auth, database or secret.",
    details: "",
    min: 0,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet { title: "Command", flags: &[Flag::new("detailed", Kind::Bool, "Show more columns in the table.")] },
    ],
    run,
};

/// The fields of a plugin, in order.
const FIELDS: [&str; 5] = ["type", "name", "version", "builtin", "deprecation_status"];

fn run(cx: &Cx) -> Outcome {
    let kind = cx.arguments_from(0).first().map(|kind| kind.trim().to_lowercase());
    if let Some(kind) = &kind {
        check_type(kind)?;
    }
    let request = Request::new(Method::Get, "sys/plugins/catalog");
    let secret = cx.session()?.require("Error listing available plugins", request, "detailed")?;
    let is_wanted = |of: &str| kind.as_deref().is_none_or(|kind| kind == of);
    let catalog = secret.data.unwrap_or_default();
    let details: Vec<&Value> = catalog
        .get("detailed")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|plugin| plugin.get("type").and_then(Value::as_str).is_some_and(is_wanted))
        .collect();
    if cx.output.is_table() {
        terminal::line(&table(&details, kind.is_some(), cx.words.on("detailed")));
    } else {
        cx.output.document(document(&catalog, &details, is_wanted));
    }
    Ok(0)
}

fn table(plugins: &[&Value], of_one_kind: bool, detailed: bool) -> String {
    let columns: &[(&str, &str)] = match (detailed, of_one_kind) {
        (true, _) => {
            &[("Name", "name"), ("Type", "type"), ("Version", "version"), ("Deprecation Status", "deprecation_status")]
        }
        (false, false) => &[("Name", "name"), ("Type", "type"), ("Version", "version")],
        (false, true) => &[("Name", "name"), ("Version", "version")],
    };
    let cell = |plugin: &Value, field: &str| plugin.get(field).map(plain).unwrap_or_default();
    let row = |plugin: &&Value| columns.iter().map(|(_, field)| cell(plugin, field)).collect();
    let header: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    with_header(&header, &plugins.iter().map(row).collect::<Vec<Vec<String>>>())
}

fn document(catalog: &Map<String, Value>, details: &[&Value], is_wanted: impl Fn(&str) -> bool) -> Value {
    let in_order = |plugin: &Value| -> Value {
        FIELDS.iter().filter_map(|field| Some(((*field).to_owned(), plugin.get(*field)?.clone()))).collect()
    };
    let details = json!(details.iter().map(|plugin| in_order(plugin)).collect::<Vec<_>>());
    let names = TYPES.iter().filter(|kind| is_wanted(kind));
    let names = names.filter_map(|kind| Some(((*kind).to_owned(), catalog.get(*kind)?.clone())));
    let mut document: Map<String, Value> = names.collect();
    // "details" is among the types in alphabetical order, as in OpenBao's output.
    let at = document.keys().filter(|kind| kind.as_str() < "details").count();
    document.shift_insert(at, "details".to_owned(), details);
    Value::Object(document)
}
