//! `kv metadata get`: prints the metadata of a key.

use keepfast_client::{Method, Request};
use serde_json::{Map, Value};

use super::super::key_path::{KeyPath, print_map};
use crate::args::{Command, FlagSet};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP, MOUNT};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "get",
    usage: "KEY",
    about: "Show the metadata of a key and its versions.",
    details: "
    keepfast kv metadata get -mount=secret app/db
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT, FlagSet { title: "Command", flags: &[MOUNT] }],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let session = cx.session()?;
    let key_path = KeyPath::find(cx, &session)?;
    key_path.need_versions("Metadata")?;
    let path = key_path.api("metadata");
    let secret = session.call(&format!("Error reading {path}"), &Request::new(Method::Get, &path))?;
    let secret = secret.ok_or_else(|| CommandError::failed(format!("No value found at {path}")))?;
    let Some(mut data) = secret.data.clone().filter(|_| cx.output.is_table()) else {
        return cx.output.secret(&secret);
    };
    cx.output.warnings(&secret);
    let versions = data.remove("versions");
    key_path.print_path("Metadata Path", "metadata");
    print_map("Metadata", &data);
    for (number, version) in in_order(versions.as_ref().and_then(Value::as_object)) {
        terminal::line("");
        print_map(&format!("Version {number}"), version);
    }
    Ok(0)
}

fn in_order(versions: Option<&Map<String, Value>>) -> Vec<(u64, &Map<String, Value>)> {
    let mut versions: Vec<_> = versions
        .into_iter()
        .flatten()
        .filter_map(|(number, version)| Some((number.parse().ok()?, version.as_object()?)))
        .collect();
    versions.sort_by_key(|(number, _)| *number);
    versions
}
