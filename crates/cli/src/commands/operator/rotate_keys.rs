//! `operator rotate-keys` and its older name `rekey`: creates new unseal keys or recovery keys with a quorum of the old ones.

use keepfast_client::{Method, Request};
use serde_json::{Map, Value, json};

use super::pgp_keys::{self, PGP_KEYS};
use super::shares::{self, CANCEL, INIT, NONCE, STATUS, boolean, number, text};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::{plain, with_header};
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "rotate-keys",
    usage: "[KEY]",
    about: "Create new unseal keys or recovery keys with a quorum of the old ones.",
    details: "
-init sets the number of new shares. Each holder of an old share then submits it;
the last one gets the new shares, which are printed once. With -init -verify, the
old shares are valid until a quorum of new ones is submitted with -verify.

    keepfast operator rotate-keys -init -key-shares=5 -key-threshold=3 -verify
    keepfast operator rotate-keys
    keepfast operator rotate-keys -verify

With PGP keys, each new share is encrypted to one of them. -backup stores the
encrypted shares in case that the response with them is lost:

    keepfast operator rotate-keys -init -n=2 -t=2 -pgp-keys=a.asc,b.asc -backup
    keepfast operator rotate-keys -backup-retrieve
    keepfast operator rotate-keys -backup-delete

On a server that a seal unseals, recovery keys are the quorum: -target=recovery
creates new ones, and the default target rotates the root key only.
",
    min: 0,
    max: Some(1),
    flags: &[HTTP, FORMAT, FLAGS],
    run,
};

/// The command under its name in Vault.
pub(crate) const REKEY: Command = Command { name: "rekey", ..COMMAND };

const FLAGS: FlagSet = FlagSet {
    title: "Command",
    flags: &[
        INIT,
        CANCEL,
        STATUS,
        NONCE,
        Flag::aliased("key-shares", "n", Kind::Int, "The number of new shares. Default: 5."),
        Flag::aliased("key-threshold", "t", Kind::Int, "The number of new shares that unseal the server. Default: 3."),
        Flag::new("target", Kind::Text, "What is rotated: barrier (the default) or recovery."),
        PGP_KEYS,
        Flag::new("backup", Kind::Bool, "With -init and -pgp-keys: store the encrypted shares as well."),
        Flag::new("backup-retrieve", Kind::Bool, "Print the stored shares."),
        Flag::new("backup-delete", Kind::Bool, "Delete the stored shares."),
        Flag::new(
            "verify",
            Kind::Bool,
            "With -init: require verification of the new shares. Else: submit a new share.",
        ),
    ],
};

const SHARES: i64 = 5;
const THRESHOLD: i64 = 3;
const READ: &str = "Error reading rotate status";

fn run(cx: &Cx) -> Outcome {
    let session = cx.session()?;
    let verify = cx.words.on("verify");
    let target = match cx.words.text("target").unwrap_or("barrier") {
        "barrier" | "root" => "root",
        "recovery" => "recovery",
        other => return Err(CommandError::usage(format!("Unknown target: {other}"))),
    };
    let path = |step: &str| format!("sys/rotate/{target}/{step}");
    let ask = |context: &str, method, path: &str, body| shares::ask(&session, context, method, path, body);
    if cx.words.on("backup-delete") {
        ask("Error deleting the backup of shares", Method::Delete, &path("backup"), None)?;
        cx.output.success("Success! Deleted the backup of shares (if it existed)");
        return Ok(0);
    }
    if cx.words.on("backup-retrieve") {
        let request = Request { may_wrap: false, ..Request::new(Method::Get, path("backup")) };
        return cx.output.secret(&session.require("Error reading the backup of shares", request, "keys")?);
    }
    if cx.words.on("init") {
        let given = |name: &str, default| cx.words.int(name).filter(|number| *number != 0).unwrap_or(default);
        let body = json!({
            "secret_shares": given("key-shares", SHARES),
            "secret_threshold": given("key-threshold", THRESHOLD),
            "require_verification": verify,
            "pgp_keys": pgp_keys::list(cx, PGP_KEYS.name)?,
            "backup": cx.words.on("backup"),
        });
        let response = ask("Error initializing rotation", Method::Put, &path("init"), Some(body))?;
        // The first recovery keys need no quorum.
        return if response.contains_key("keys") { show_new_shares(cx, &response) } else { show(cx, &response) };
    }
    let (present, update) = if verify { (path("verify"), path("verify")) } else { (path("init"), path("update")) };
    let (present, update) = (present.as_str(), update.as_str());
    if cx.words.on("cancel") {
        ask("Error canceling rotation", Method::Delete, present, None)?;
        cx.output.success("Success! Canceled rotation (if it was started)");
        return Ok(0);
    }
    let status = ask(READ, Method::Get, present, None)?;
    if cx.words.on("status") {
        return show(cx, &status);
    }
    let body = shares::share(cx, &status, "nonce")?;
    let response = ask("Error posting unseal key", Method::Put, update, Some(body))?;
    if response.contains_key("keys") { show_new_shares(cx, &response) } else { show(cx, &response) }
}

fn show(cx: &Cx, data: &Map<String, Value>) -> Outcome {
    if !cx.output.is_table() {
        cx.output.document(Value::Object(data.clone()));
        return Ok(0);
    }
    if boolean(data, "complete") {
        terminal::success("Success! The new shares are verified and valid; the old ones are not.");
        return Ok(0);
    }
    let nonce = Some(text(data, "nonce")).filter(|nonce| !nonce.is_empty()).unwrap_or_else(|| "n/a".to_owned());
    let mut rows = vec![("Nonce", nonce), ("Started", boolean(data, "started").to_string())];
    if boolean(data, "started") {
        // Verification needs as many shares as the new threshold.
        let needed = if data.contains_key("required") { "required" } else { "t" };
        rows.push(("Progress", format!("{}/{}", number(data, "progress"), number(data, needed))));
        rows.push(("New Shares", number(data, "n")));
        rows.push(("New Threshold", number(data, "t")));
        if data.contains_key("verification_required") {
            rows.push(("Verification Required", boolean(data, "verification_required").to_string()));
        }
        let proof = text(data, "verification_nonce");
        if !proof.is_empty() {
            rows.push(("Verification Nonce", proof));
        }
        let fingerprints = data.get("pgp_fingerprints").filter(|fingerprints| fingerprints.is_array());
        if let Some(fingerprints) = fingerprints {
            rows.push(("PGP Fingerprints", plain(fingerprints)));
            rows.push(("Backup", boolean(data, "backup").to_string()));
        }
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(title, value)| vec![title.to_owned(), value]).collect();
    terminal::line(&with_header(&["Key", "Value"], &rows));
    Ok(0)
}

fn show_new_shares(cx: &Cx, data: &Map<String, Value>) -> Outcome {
    if !cx.output.is_table() {
        cx.output.document(Value::Object(data.clone()));
        return Ok(0);
    }
    let keys = data.get("keys_base64").and_then(Value::as_array).cloned().unwrap_or_default();
    if keys.is_empty() {
        terminal::success("Success! The root key is rotated; the recovery keys stay valid.");
        return Ok(0);
    }
    let fingerprint = |at: usize| data.get("pgp_fingerprints")?.get(at)?.as_str();
    let line = |(at, key): (usize, &Value)| match fingerprint(at) {
        Some(fingerprint) => format!("Key {} fingerprint: {fingerprint}; value: {}\n", at + 1, plain(key)),
        None => format!("Key {}: {}\n", at + 1, plain(key)),
    };
    let mut out: String = keys.iter().enumerate().map(line).collect();
    out.push_str(&format!("\nOperation nonce: {}\n\n", text(data, "nonce")));
    if boolean(data, "backup") {
        out.push_str("The encrypted shares are stored as well, until they are deleted with -backup-delete.\n\n");
    }
    if boolean(data, "verification_required") {
        let proof = text(data, "verification_nonce");
        out.push_str(&format!(
            "Verification Nonce: {proof}\n\nThe old shares are valid until a quorum of these is submitted:\n\n    operator rotate-keys -verify"
        ));
    } else {
        out.push_str("These shares are valid, and the old ones are not. They are not printed again.");
    }
    terminal::line(&out);
    Ok(0)
}
