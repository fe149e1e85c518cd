//! `lease quarantine`: prints or sets the lease quarantine of a restored or copied server.

use keepfast_client::{Method, Request};
use serde_json::json;

use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "quarantine",
    usage: "[begin|end]",
    about: "Show, begin or end the lease quarantine.",
    details: "
A server with a restored, copied or moved data directory revokes and rotates nothing until you end the quarantine: its
leases may belong to the original server, which may still run. End the quarantine when the original never runs again.

    keepfast lease quarantine
    keepfast lease quarantine end
",
    min: 0,
    max: Some(1),
    flags: &[HTTP, FORMAT],
    run,
};

const PATH: &str = "sys/leases/quarantine";

fn run(cx: &Cx) -> Outcome {
    let set = |enabled: bool, done: &str| {
        let request = Request::new(Method::Put, PATH).with_body(json!({ "enabled": enabled }));
        cx.session()?.call("Error setting the quarantine of leases", &request)?;
        terminal::success(&format!("Success! {done}"));
        Ok(0)
    };
    match cx.arguments_from(0).first().map(String::as_str) {
        None => {
            let request = Request::new(Method::Get, PATH);
            cx.output.secret(&cx.session()?.require("Error reading the quarantine of leases", request, "enabled")?)
        }
        Some("begin") => set(true, "Leases are under quarantine: nothing is revoked or rotated."),
        Some("end") => set(false, "The quarantine of leases has ended."),
        Some(other) => Err(CommandError::usage(format!("Expected begin or end, not {other:?}"))),
    }
}
