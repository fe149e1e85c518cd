//! `operator members`: lists the nodes of the cluster.

use keepfast_client::{Method, Request};
use serde_json::{Value, json};

use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::{plain, with_header};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "members",
    usage: "",
    about: "List the nodes of the cluster.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT],
    run,
};

/// The title and the field of each column.
const COLUMNS: [(&str, &str); 7] = [
    ("Host Name", "hostname"),
    ("API Address", "api_address"),
    ("Cluster Address", "cluster_address"),
    ("Active Node", "active_node"),
    ("Version", "version"),
    ("Upgrade Version", "upgrade_version"),
    ("Last Echo", "last_echo"),
];

fn run(cx: &Cx) -> Outcome {
    let request = Request::new(Method::Get, "sys/ha-status");
    let secret = cx.session()?.require("Error listing the nodes of the cluster", request, "nodes")?;
    let nodes = secret.data_field("nodes").and_then(Value::as_array).cloned().unwrap_or_default();
    if !cx.output.is_table() {
        cx.output.document(json!({ "Nodes": nodes }));
        return Ok(0);
    }
    let cell = |node: &Value, field: &str| {
        let text = node.get(field).filter(|v| !v.is_null()).map(plain).unwrap_or_default();
        if field == "last_echo" { without_fraction(&text) } else { text }
    };
    let row = |node: &Value| COLUMNS.iter().map(|(_, field)| cell(node, field)).collect();
    let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    terminal::line(&with_header(&COLUMNS.map(|(title, _)| title), &rows));
    Ok(0)
}

/// `2026-11-30T15:12:15.81Z` as `2026-11-30T15:12:15Z`; other texts are unchanged.
fn without_fraction(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, rest)) => format!("{seconds}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => time.to_owned(),
    }
}
