//! `lease revoke`: revokes one lease, or all with a prefix.

use keepfast_client::{Method, Request};
use serde_json::json;

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "revoke",
    usage: "ID",
    about: "Revoke a lease, or all leases with a prefix.",
    details: "
Without -sync, the server queues the revocation and retries it.

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
                    "Delete the leases even when their revocation fails. Needs -prefix.",
                ),
                Flag::new("prefix", Kind::Bool, "The argument is a prefix of lease ids."),
                Flag::new("sync", Kind::Bool, "Wait until the revocation succeeds or fails."),
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
        (true, false) => return Err(CommandError::usage("Specifying -force requires also specifying -prefix")),
        (true, true) => {
            terminal::warning(
                "Warning! The secrets of these leases may still be valid in other systems; remove them there.",
            );
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
