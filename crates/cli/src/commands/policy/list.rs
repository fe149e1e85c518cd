//! `policy list`: lists the names of policies.

use keepfast_client::{Method, Request};

use crate::args::Command;
use crate::command_error::Outcome;
use crate::commands::listing::names;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "list",
    usage: "",
    about: "List the names of policies.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let request = Request::new(Method::Get, "sys/policies/acl").with_query("list", "true");
    let secret = cx.session()?.require("Error listing policies", request, "keys")?;
    let names = names(&secret).unwrap_or_default();
    if cx.output.is_table() {
        names.iter().for_each(|name| terminal::line(name));
    } else {
        cx.output.document(names.into());
    }
    Ok(0)
}
