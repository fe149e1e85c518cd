//! `lease revoke`: the end of a leased secret, or of many.

use keepfast_client::{Method, Request};
use serde_json::json;

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::halt::{Halt, Outcome};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "revoke",
    usage: "ID",
    about: "Revoke a leased secret, or all below a prefix.",
    details: "
The server queues the work and keeps trying, unless -sync is given.

    keepfast lease revoke database/creds/readonly/2f6a614c...
    keepfast lease revoke -prefix database/creds/readonly
",
    min: 1,
    max: Some(1),
    flags: &[
        HTTP,
        FlagSet {
            title: "Command",
            flags: &[
                Flag::aliased(
                    "force",
                    "f",
                    Kind::Bool,
                    "Forget the leases even when the secrets cannot be revoked. Needs -prefix.",
                ),
                Flag::new("prefix", Kind::Bool, "The argument is the beginning of lease ids."),
                Flag::new("sync", Kind::Bool, "Wait until it is done, or has failed."),
            ],
        },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let id = cx.path(0);
    let sync = cx.words.on("sync");
    let put = |path: String| Request::new(Method::Put, path);
    let (context, request, done) = match (cx.words.on("force"), cx.words.on("prefix")) {
        (true, false) => return Err(Halt::usage("Specifying -force requires also specifying -prefix")),
        (true, true) => {
            terminal::warning("Warning! What the leases stood for may live on in other systems; remove it there.");
            (
                "force revoking leases with prefix",
                put(format!("sys/leases/revoke-force/{id}")),
                "Force revoked any leases with prefix",
            )
        }
        (false, true) => (
            "revoking leases with prefix",
            put(format!("sys/leases/revoke-prefix/{id}")).with_body(json!({ "sync": sync })),
            "Revoked any leases with prefix",
        ),
        (false, false) => (
            "revoking lease",
            put(format!("sys/leases/revoke/{id}")).with_body(json!({ "sync": sync })),
            "Revoked lease",
        ),
    };
    cx.session()?.call(&format!("Error {context} {id}"), &request)?;
    if sync || cx.words.on("force") {
        terminal::success(&format!("Success! {done}: {}", cx.argument(0).trim()));
    } else {
        terminal::success("All revocation operations queued successfully!");
    }
    Ok(0)
}
