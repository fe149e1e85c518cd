//! `policy lint`: finds rules that probably do not do what their author expects.

use std::path::Path;

use keepfast_client::{Method, Request};
use keepfast_server::engine_tables;
use keepfast_server::policy_analysis::lint;
use serde_json::json;

use super::known_mounts::known_mounts;
use super::source;
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "lint",
    usage: "PATH|NAME",
    about: "Find rules of a policy that probably do not do what they should.",
    details: "
Checks a policy file, stdin when the path is -, or the policy of this name on
the server when no such file exists. With a token that may read sys/mounts and
sys/auth it also finds paths without a mount and paths of KV version 2 without
data/ or metadata/. -offline uses no server. The exit code is 0 without
findings, 1 with findings.

    keepfast policy lint app.hcl
    keepfast policy lint -format=json app
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT, FlagSet { title: "Command", flags: &[OFFLINE] }],
    run,
};

/// The flag for a command that uses no server.
pub(super) const OFFLINE: Flag = Flag::new("offline", Kind::Bool, "Do not read mounts and policies from a server.");

fn run(cx: &Cx) -> Outcome {
    let is_offline = cx.words.on("offline");
    let given = cx.argument(0);
    let text = if given == "-" || is_offline || Path::new(given).exists() { source(given)? } else { stored(cx)? };
    let mounts = if is_offline { None } else { known_mounts(cx)? };
    let report = lint(&text, &engine_tables(mounts));
    if cx.output.is_table() {
        for finding in &report.findings {
            let path = if finding.path.is_empty() { String::new() } else { format!(" path {:?}:", finding.path) };
            let (line, column, check) = (finding.line, finding.column, finding.check);
            terminal::line(&format!("{given}:{line}:{column}: {check}:{path} {}", finding.message));
        }
        if report.truncated {
            terminal::warning("The policy has more rules or findings than this command checks or prints.");
        }
        if report.findings.is_empty() {
            terminal::success(&format!("Success! No findings in policy: {given}"));
        }
    } else {
        let findings = report.findings.iter().map(|finding| {
            json!({
                "check": finding.check,
                "line": finding.line,
                "column": finding.column,
                "path": finding.path,
                "message": finding.message,
            })
        });
        cx.output.document(json!({ "findings": findings.collect::<Vec<_>>(), "truncated": report.truncated }));
    }
    Ok(u8::from(!report.findings.is_empty()))
}

/// The text of the policy on the server.
fn stored(cx: &Cx) -> Result<String, CommandError> {
    let name = cx.path(0).to_lowercase();
    let request = Request::new(Method::Get, format!("sys/policies/acl/{name}"));
    let secret = cx.session()?.call(&format!("Error reading policy named {name}"), &request)?;
    let text = secret.as_ref().and_then(|secret| secret.text("policy")).filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or_else(|| CommandError::failed(format!("No policy file or policy named: {name}")))
}
