//! `operator raft join`: makes a node that is not initialized join a cluster.

use keepfast_client::{Method, Request};
use serde_json::json;

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::{plain, with_header};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "join",
    usage: "[LEADER_API_ADDR]",
    about: "Join a node that is not initialized to a cluster.",
    details: "
The node gets the configuration of the seal from the leader. Then unseal it with
the key shares of the cluster: it proves to the leader that it has the root key,
and becomes a member. A certificate or key that begins with @ is read from a file.

    keepfast operator raft join https://leader.example.com:8200
    keepfast operator raft join -leader-ca-cert=@ca.pem https://10.0.0.1:8200
",
    min: 0,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet {
            title: "Command",
            flags: &[
                Flag::new("auto-join-port", Kind::Int, "Not supported: addresses are not discovered from a cloud."),
                Flag::new("auto-join-scheme", Kind::Text, "Not supported: addresses are not discovered from a cloud."),
                Flag::new("leader-ca-cert", Kind::Text, "The CA of the certificate of the leader, in PEM format."),
                Flag::new("leader-client-cert", Kind::Text, "A client certificate for the leader, in PEM format."),
                Flag::new("leader-client-key", Kind::Text, "The private key of the client certificate, in PEM format."),
                Flag::new(
                    "leader-tls-servername",
                    Kind::Text,
                    "The host name in the certificate of the leader. Default: the host of its address.",
                ),
                Flag::new("non-voter", Kind::Bool, "Join without a vote."),
                Flag::new("retry", Kind::Bool, "Try again, in the background, until the leader responds."),
            ],
        },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let argument = cx.argument(0).trim();
    // An argument that is no address is a configuration for discovery, which the server refuses.
    let (leader, auto_join) = if argument.contains("provider=") { ("", argument) } else { (argument, "") };
    let body = json!({
        "auto_join": auto_join,
        "auto_join_scheme": cx.words.text("auto-join-scheme").unwrap_or_default(),
        "auto_join_port": cx.words.int("auto-join-port").unwrap_or_default(),
        "leader_api_addr": leader,
        "leader_ca_cert": pem(cx, "leader-ca-cert")?,
        "leader_client_cert": pem(cx, "leader-client-cert")?,
        "leader_client_key": pem(cx, "leader-client-key")?,
        "leader_tls_servername": cx.words.text("leader-tls-servername").unwrap_or_default(),
        "non_voter": cx.words.on("non-voter"),
        "retry": cx.words.on("retry"),
    });
    let request = Request { may_wrap: false, ..Request::new(Method::Post, "sys/storage/raft/join").with_body(body) };
    let response = cx.session()?.require("Error joining the node to the Raft cluster", request, "joined")?;
    let joined = response.data_field("joined").cloned().unwrap_or_default();
    if cx.output.is_table() {
        terminal::line(&with_header(&["Key", "Value"], &[vec!["Joined".to_owned(), plain(&joined)]]));
    } else {
        cx.output.document(json!({ "joined": joined }));
    }
    Ok(0)
}

/// The text of a flag, or the content of the file that it names after an @.
fn pem(cx: &Cx, flag: &str) -> Result<String, CommandError> {
    let text = cx.words.text(flag).unwrap_or_default();
    let Some(path) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    std::fs::read_to_string(path).map_err(|error| CommandError::usage(format!("-{flag}: cannot read {path}: {error}")))
}
