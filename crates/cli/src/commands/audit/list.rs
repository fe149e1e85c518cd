//! `audit list`: lists the audit devices.

use keepfast_client::{Method, Request};
use serde_json::{Map, Value};

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::{plain, sorted, with_header};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "list",
    usage: "",
    about: "List the audit devices.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet { title: "Command", flags: &[Flag::new("detailed", Kind::Bool, "Show options too.")] },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let request = Request::new(Method::Get, "sys/audit");
    let devices = sorted(&Value::Object(cx.session()?.require_map("Error listing audits", request)?));
    if !cx.output.is_table() {
        cx.output.document(devices);
        return Ok(0);
    }
    let Some(devices) = devices.as_object().filter(|devices| !devices.is_empty()) else {
        terminal::line("No audit devices are enabled.");
        return Ok(2);
    };
    terminal::line(&table(devices, cx.words.on("detailed")));
    Ok(0)
}

fn table(devices: &Map<String, Value>, detailed: bool) -> String {
    let text = |device: &Value, field: &str| device.get(field).map(plain).unwrap_or_default();
    let row = |(path, device): (&String, &Value)| {
        let mut row = vec![path.clone(), text(device, "type"), text(device, "description")];
        if detailed {
            let local = device.get("local").and_then(Value::as_bool).unwrap_or(false);
            let options = device.get("options").and_then(Value::as_object).into_iter().flatten();
            let options: Vec<String> = options.map(|(key, value)| format!("{key}={}", plain(value))).collect();
            row.extend([if local { "local" } else { "replicated" }.to_owned(), options.join(" ")]);
        }
        row
    };
    let rows: Vec<Vec<String>> = devices.iter().map(row).collect();
    let header: &[&str] = if detailed {
        &["Path", "Type", "Description", "Replication", "Options"]
    } else {
        &["Path", "Type", "Description"]
    };
    with_header(header, &rows)
}
