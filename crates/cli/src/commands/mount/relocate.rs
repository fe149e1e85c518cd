//! `secrets move`, `auth move`: moves a mount to another path.

use std::time::Duration;

use keepfast_client::{Method, Request};
use serde_json::{Value, json};

use super::{ENGINES, Kind, METHODS};
use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::session::request_error;
use crate::terminal;

pub(crate) const SECRETS: Command = Command {
    name: "move",
    usage: "SOURCE DESTINATION",
    about: "Move a secrets engine to another path and revoke its leases.",
    details: "",
    min: 2,
    max: Some(2),
    flags: &[HTTP],
    run: |cx| run(cx, &ENGINES),
};

pub(crate) const AUTH: Command = Command {
    name: "move",
    usage: "SOURCE DESTINATION",
    about: "Move an auth method to another path and revoke its tokens.",
    details: "",
    min: 2,
    max: Some(2),
    flags: &[HTTP],
    run: |cx| run(cx, &METHODS),
};

/// The interval between checks of the migration status.
const INTERVAL: Duration = Duration::from_millis(500);

fn run(cx: &Cx, kind: &Kind) -> Outcome {
    let place = |path: String| format!("{}{}/", kind.prefix, path.trim_start_matches(kind.prefix));
    let (from, to) = (place(cx.path(0)), place(cx.path(1)));
    let session = cx.session()?;
    let context = format!("Error moving {} {from} to {to}", kind.noun);
    let request = Request::new(Method::Post, "sys/remount").with_body(json!({ "from": from, "to": to }));
    let response = session.call(&context, &Request { may_wrap: false, ..request })?;
    let id = response.as_ref().and_then(|secret| secret.text("migration_id")).unwrap_or_default().to_owned();
    terminal::line(&format!("Started moving {} {from} to {to}, with migration ID {id}", kind.noun));
    loop {
        let response = session.preflight(Request::new(Method::Get, format!("sys/remount/status/{id}")));
        let response =
            response.map_err(|error| request_error(&format!("Error checking migration status of {id}"), &error))?;
        let info = response.as_ref().and_then(|secret| secret.data_field("migration_info"));
        match info.and_then(|info| info.get("status")).and_then(Value::as_str) {
            Some("success") => break,
            Some("in-progress") => session.pause(INTERVAL),
            other => {
                return Err(CommandError::failed(format!(
                    "{context}: the migration ended as {}",
                    other.unwrap_or("unknown")
                )));
            }
        }
    }
    terminal::success(&format!("Success! Finished moving {} {from} to {to}, with migration ID {id}", kind.noun));
    Ok(0)
}
