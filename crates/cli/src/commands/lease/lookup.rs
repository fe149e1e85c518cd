//! `lease lookup`: prints the properties of a lease.

use keepfast_client::{Method, Request};
use serde_json::json;

use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "lookup",
    usage: "ID",
    about: "Show the properties of a lease.",
    details: "",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let id = cx.path(0);
    let request = Request::new(Method::Put, "sys/leases/lookup").with_body(json!({ "lease_id": id }));
    let secret = cx.session()?.call(&format!("error looking up lease id {id}"), &request)?;
    cx.output.secret(&secret.ok_or_else(|| CommandError::failed(format!("No lease found: {id}")))?)
}
