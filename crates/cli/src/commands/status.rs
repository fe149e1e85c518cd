//! `status`: prints the seal status and the leader of a server.

use keepfast_client::{Method, Request};
use serde_json::{Map, Value};

use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};
use crate::output::{columns, plain, with_header};
use crate::session::Session;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "status",
    usage: "",
    about: "Show whether the server is initialized, unsealed and the leader.",
    details: "
The exit code is 0 when the server is unsealed, 2 when it is sealed, 1 on errors.
",
    min: 0,
    max: Some(0),
    flags: &[HTTP, OUTPUT],
    run,
};

/// The fields in the order of Vault's command line.
const ORDER: &[&str] = &[
    "type",
    "initialized",
    "sealed",
    "t",
    "n",
    "progress",
    "nonce",
    "version",
    "commit_date",
    "migration",
    "cluster_name",
    "cluster_id",
    "recovery_seal",
    "recovery_seal_type",
    "storage_type",
    "build_date",
    "ha_enabled",
    "is_self",
    "active_time",
    "leader_address",
    "leader_cluster_address",
    "raft_committed_index",
    "raft_applied_index",
    "sealed_reason",
    "lease_quarantine",
];
/// Fields that only a leader or only its followers return.
const HA_FIELDS: &[&str] = &[
    "is_self",
    "active_time",
    "leader_address",
    "leader_cluster_address",
    "raft_committed_index",
    "raft_applied_index",
];

fn run(cx: &Cx) -> Outcome {
    let session = cx.session().map_err(|error| error.with_code(1))?;
    let mut request = Request::new(Method::Get, "sys/seal-status");
    request.may_wrap = false;
    let status =
        session.require("Error checking seal status", request, "sealed").map_err(|error| error.with_code(1))?;
    let status = status.data.unwrap_or_default();
    let sealed = is_sealed(&status);
    show(cx, &session, status)?;
    Ok(if sealed { 2 } else { 0 })
}

/// Prints a seal status with the fields of the leader.
pub(super) fn show(cx: &Cx, session: &Session, mut status: Map<String, Value>) -> Outcome {
    // An old or restricted server may refuse `sys/leader`; the seal status is printed without it.
    let leader = session.preflight(Request::new(Method::Get, "sys/leader")).ok().flatten();
    if let Some(leader) = leader.and_then(|secret| secret.data) {
        let enabled = leader.get("ha_enabled").and_then(Value::as_bool).unwrap_or(false);
        status.insert("ha_enabled".to_owned(), enabled.into());
        let fields = leader.into_iter().filter(|(key, value)| {
            enabled && !is_sealed(&status) && HA_FIELDS.contains(&key.as_str()) && !is_nothing(value)
        });
        let fields: Vec<_> = fields.collect();
        status.extend(fields);
    }
    if let Some(name) = cx.output.field() {
        return cx.output.field_of(&status, name, "seal status");
    }
    status.entry("build_date").or_insert_with(|| Value::from(""));
    if cx.output.is_table() {
        terminal::line(&with_header(&["Key", "Value"], &rows(&status)));
    } else {
        let known = ORDER.iter().filter_map(|key| Some(((*key).to_owned(), status.get(*key)?.clone())));
        cx.output.document(Value::Object(known.collect()));
    }
    Ok(0)
}

fn is_sealed(status: &Map<String, Value>) -> bool {
    status.get("sealed").and_then(Value::as_bool).unwrap_or(true)
}

/// Whether a field of the leader is empty.
fn is_nothing(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false))
        || value.as_str().is_some_and(|text| text.is_empty() || text.starts_with("0001-01-01"))
        || value.as_u64() == Some(0)
}

fn rows(status: &Map<String, Value>) -> Vec<Vec<String>> {
    let text = |key: &str| status.get(key).map(plain).unwrap_or_default();
    let truth = |key: &str| status.get(key).and_then(Value::as_bool).unwrap_or(false);
    let recovery = truth("recovery_seal");
    let mut rows: Vec<(&str, String)> = Vec::new();
    let mut add = |name, value| rows.push((name, value));
    add("Seal Type", text("type"));
    if recovery {
        add("Recovery Seal Type", text("recovery_seal_type"));
    }
    add("Initialized", text("initialized"));
    add("Sealed", text("sealed"));
    add(if recovery { "Total Recovery Shares" } else { "Total Shares" }, text("n"));
    add("Threshold", text("t"));
    if is_sealed(status) {
        add("Unseal Progress", format!("{}/{}", text("progress"), text("t")));
        add("Unseal Nonce", text("nonce"));
    }
    if truth("migration") {
        add("Seal Migration in Progress", text("migration"));
    }
    add("Version", text("version"));
    let mut add_known = |name, key| {
        let value = text(key);
        if !value.is_empty() {
            rows.push((name, value));
        }
    };
    add_known("Commit Date", "commit_date");
    add_known("Build Date", "build_date");
    add_known("Storage Type", "storage_type");
    add_known("Cluster Name", "cluster_name");
    add_known("Cluster ID", "cluster_id");
    add_known("HA Enabled", "ha_enabled");
    add_known("Lease Quarantine", "lease_quarantine");
    if truth("ha_enabled") && !is_sealed(status) {
        let leads = truth("is_self");
        let cluster = text("leader_cluster_address");
        rows.push(("HA Cluster", if cluster.is_empty() { "n/a".to_owned() } else { cluster }));
        rows.push(("HA Mode", if leads { "active" } else { "standby" }.to_owned()));
        let (name, key) =
            if leads { ("Active Since", "active_time") } else { ("Active Node Address", "leader_address") };
        if !text(key).is_empty() {
            rows.push((name, text(key)));
        }
    }
    for (name, key) in [("Raft Committed Index", "raft_committed_index"), ("Raft Applied Index", "raft_applied_index")]
    {
        if status.contains_key(key) {
            rows.push((name, text(key)));
        }
    }
    rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
}

/// Prints the term, install time and use of the encryption key, for `operator key-status` and `operator rotate`.
pub(super) fn show_key(cx: &Cx, session: &Session) -> Outcome {
    let mut request = Request::new(Method::Get, "sys/key-status");
    request.may_wrap = false;
    let key = session.require("Error reading key status", request, "term")?.data.unwrap_or_default();
    let text = |name: &str| key.get(name).map(plain).unwrap_or_default();
    if !cx.output.is_table() {
        let fields = ["term", "install_time", "encryptions"]
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), key.get(*name)?.clone())));
        cx.output.document(Value::Object(fields.collect()));
        return Ok(0);
    }
    let rows = [
        ("Key Term", text("term")),
        ("Install Time", short_time(&text("install_time"))),
        ("Encryption Count", text("encryptions")),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    terminal::line(&columns(&rows));
    Ok(0)
}

/// `2026-11-23T11:05:46.6Z` as `23 Nov 26 11:05 UTC`; other texts are unchanged.
fn short_time(time: &str) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts = || {
        let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
        let mut date = date.split('-');
        let (year, month, day) = (date.next()?.get(2..)?, date.next()?.parse::<usize>().ok()?, date.next()?);
        Some(format!("{day} {} {year} {} UTC", MONTHS.get(month.checked_sub(1)?)?, clock.get(..5)?))
    };
    parts().unwrap_or_else(|| time.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use serde_json::json;

    #[test]
    fn install_times_are_shortened() {
        assert_eq!(short_time("2026-11-23T11:05:46.622421362Z"), "23 Nov 26 11:05 UTC");
        assert_eq!(short_time("2026-11-23T11:05:46+01:00"), "2026-11-23T11:05:46+01:00");
    }

    #[test]
    fn a_sealed_server_shows_its_progress() {
        let status = json!({"type": "shamir", "initialized": true, "sealed": true, "t": 2, "n": 3, "progress": 1, "nonce": "", "version": "1"});
        let shown: Vec<String> = rows(status.as_object().unwrap()).iter().map(|row| row.join("=")).collect();
        assert!(
            shown.contains(&"Unseal Progress=1/2".to_owned()) && shown.contains(&"Total Shares=3".to_owned()),
            "{shown:?}"
        );
    }
}
