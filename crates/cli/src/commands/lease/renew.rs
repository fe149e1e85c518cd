//! `lease renew`: renews a lease.

use keepfast_client::{Method, Request};
use serde_json::json;

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "renew",
    usage: "ID",
    about: "Renew a lease.",
    details: "",
    min: 1,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet {
            title: "Command",
            flags: &[Flag::aliased("increment", "i", Kind::Duration, "The requested TTL; the server may grant less.")],
        },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let id = cx.path(0);
    let increment = cx.words.duration("increment").map_or(0, |increment| increment.as_secs());
    let request =
        Request::new(Method::Put, "sys/leases/renew").with_body(json!({ "lease_id": id, "increment": increment }));
    let secret = cx.session()?.call(&format!("Error renewing {id}"), &request)?;
    cx.output.secret(
        &secret.ok_or_else(|| CommandError::failed(format!("Error renewing {id}: the server returned no data")))?,
    )
}
