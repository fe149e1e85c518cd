//! `lease renew`: a longer life for a secret.

use keepfast_client::{Method, Request};
use serde_json::json;

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::halt::{Halt, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "renew",
    usage: "ID",
    about: "Extend the life of a leased secret.",
    details: "",
    min: 1,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet {
            title: "Command",
            flags: &[Flag::aliased("increment", "i", Kind::Duration, "How long to ask for; the server may give less.")],
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
    cx.output.secret(&secret.ok_or_else(|| Halt::failed(format!("Error renewing {id}: the server gave no answer")))?)
}
