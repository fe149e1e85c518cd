//! `audit enable`: adds an audit device, on servers that permit this through the API.

use std::io;

use keepfast_client::{Method, Request};
use serde_json::{Value, json};

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::{data, terminal};

pub(crate) const COMMAND: Command = Command {
    name: "enable",
    usage: "TYPE [K=V...]",
    about: "Enable an audit device, on a server that permits this through the API.",
    details: "
Audit devices are declared in the configuration file. A server lets this command
create one only with unsafe_allow_api_audit_creation = true.

    keepfast audit enable file file_path=/var/log/audit.log
",
    min: 1,
    max: None,
    flags: &[
        HTTP,
        FlagSet {
            title: "Command",
            flags: &[
                Flag::new("description", Kind::Text, "A description of the device."),
                Flag::new("local", Kind::Bool, "Do not replicate the device."),
                Flag::new("path", Kind::Text, "The name of the device. Default: its type."),
            ],
        },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let kind = cx.argument(0).trim();
    let path = cx.words.text("path").unwrap_or(kind).trim_matches('/');
    let options = data::parse(cx.arguments_from(1), &mut io::stdin())?;
    if options.values().any(|value| !value.is_string()) {
        return Err(CommandError::usage("The options of an audit device must be texts"));
    }
    let body = json!({
        "type": kind,
        "description": cx.words.text("description").unwrap_or_default(),
        "options": Value::Object(options),
        "local": cx.words.on("local"),
    });
    let request = Request::new(Method::Put, format!("sys/audit/{path}")).with_body(body);
    cx.session()?.call("Error enabling audit device", &request)?;
    terminal::success(&format!("Success! Enabled the {kind} audit device at: {path}/"));
    Ok(0)
}
