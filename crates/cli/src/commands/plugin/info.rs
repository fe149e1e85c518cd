//! `plugin info`: prints the properties of a plugin.

use keepfast_client::{Method, Request};

use super::check_type;
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};

pub(crate) const COMMAND: Command = Command {
    name: "info",
    usage: "TYPE NAME",
    about: "Show the properties of a plugin.",
    details: "
    keepfast plugin info database postgresql-database-plugin
",
    min: 2,
    max: Some(2),
    flags: &[
        HTTP,
        OUTPUT,
        FlagSet {
            title: "Command",
            flags: &[Flag::new("version", Kind::Text, "The version, when there are several.")],
        },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let (kind, name) = (cx.argument(0).trim().to_lowercase(), cx.argument(1).trim().to_lowercase());
    check_type(&kind)?;
    let mut request = Request::new(Method::Get, format!("sys/plugins/catalog/{kind}/{name}"));
    if let Some(version) = cx.words.text("version") {
        request = request.with_query("version", version);
    }
    let secret = cx.session()?.call(&format!("Error reading plugin named {name}"), &request)?;
    let not_found = || CommandError::failed(format!("No value found for plugin {name:?}"));
    cx.output.secret(&secret.ok_or_else(not_found)?)
}
