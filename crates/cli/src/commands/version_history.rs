//! `version-history`: lists the server versions that have used this storage.

use keepfast_client::{Method, Request};
use serde_json::Value;

use super::listing;
use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::{plain, with_header};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "version-history",
    usage: "",
    about: "List the server versions that have used this storage.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let request = Request::new(Method::Get, "sys/version-history").with_query("list", "true");
    let secret = cx.session()?.require("Error reading version history", request, "keys")?;
    if !cx.output.is_table() {
        return cx.output.secret(&secret);
    }
    let infos = secret.data_field("key_info");
    let cell = |version: &str, field: &str| {
        infos
            .and_then(|infos| infos.get(version)?.get(field))
            .filter(|v| **v != Value::Null)
            .map(plain)
            .unwrap_or_default()
    };
    let rows: Vec<Vec<String>> = listing::names(&secret)
        .unwrap_or_default()
        .into_iter()
        .map(|version| {
            let (installed, committed) = (cell(&version, "timestamp_installed"), cell(&version, "commit_date"));
            vec![version, installed, committed]
        })
        .collect();
    terminal::line(&with_header(&["Version", "Installation Time", "Commit Date"], &rows));
    Ok(0)
}
