//! `operator generate-root`: creates a root token with a quorum of the shares.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use keepfast_client::{Method, SecretString};
use keepfast_crypto::random;
use serde_json::{Map, Value, json};

use super::pgp_keys;
use super::shares::{self, CANCEL, INIT, NONCE, STATUS, boolean, number, text};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::columns;
use crate::session::Session;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "generate-root",
    usage: "[KEY]",
    about: "Create a root token with a quorum of unseal key shares.",
    details: "
The token is encoded with a one-time password (OTP), which -init creates and prints
once. Each share holder then submits a share; the last one gets the encoded token.

    keepfast operator generate-root -init
    keepfast operator generate-root
    keepfast operator generate-root -decode=ENCODED -otp=OTP

With -init -pgp-key=FILE, the token is encrypted to a PGP public key instead:

    echo ENCODED | base64 -d | gpg -d
",
    min: 0,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet {
            title: "Command",
            flags: &[
                INIT,
                CANCEL,
                STATUS,
                NONCE,
                Flag::new("otp", Kind::Text, "The one-time password, for -init and -decode."),
                Flag::new("generate-otp", Kind::Bool, "Print a one-time password for -init."),
                Flag::new(
                    "pgp-key",
                    Kind::Text,
                    "A file with a PGP public key, for -init: the token is encrypted to it, and there is no OTP.",
                ),
                Flag::new("decode", Kind::Text, "The encoded token to decode with the one-time password."),
            ],
        },
    ],
    run,
};

const ATTEMPT: &str = "sys/generate-root-token/attempt";
const UPDATE: &str = "sys/generate-root-token/update";
/// The fields in the order of Vault's command line.
const FIELDS: &[&str] = &[
    "nonce",
    "started",
    "progress",
    "required",
    "complete",
    "encoded_token",
    "encoded_root_token",
    "pgp_fingerprint",
    "otp",
    "otp_length",
];

fn run(cx: &Cx) -> Outcome {
    if let Some(encoded) = cx.words.text("decode") {
        return decode(cx, encoded);
    }
    let session = cx.session()?;
    let status = || shares::ask(&session, "Error getting root generation status", Method::Get, ATTEMPT, None);
    if cx.words.on("generate-otp") {
        let length = status()?.get("otp_length").and_then(Value::as_u64).unwrap_or_default();
        terminal::raw(&random::base62(usize::try_from(length).unwrap_or_default()));
        return Ok(0);
    }
    if cx.words.on("cancel") {
        shares::ask(&session, "Error canceling root token generation", Method::Delete, ATTEMPT, None)?;
        cx.output.success("Success! Root token generation canceled (if it was started)");
        return Ok(0);
    }
    if cx.words.on("init") {
        return begin(cx, &session);
    }
    let present = status()?;
    if cx.words.on("status") {
        return show(cx, &present);
    }
    if !boolean(&present, "started") {
        return Err(CommandError::usage(
            "No root generation is in progress. Start one with \"operator generate-root -init\".",
        ));
    }
    let body = shares::share(cx, &present, "nonce")?;
    show(cx, &shares::ask(&session, "Error posting unseal key", Method::Put, UPDATE, Some(body))?)
}

fn begin(cx: &Cx, session: &Session) -> Outcome {
    let otp = cx.words.text("otp").unwrap_or_default();
    let key = pgp_keys::one(cx, "pgp-key")?;
    if !otp.is_empty() && !key.is_empty() {
        return Err(CommandError::usage("Error initializing: cannot specify both -otp and -pgp-key"));
    }
    let body = json!({ "otp": otp, "pgp_key": key });
    let started = shares::ask(session, "Error initializing root generation", Method::Put, ATTEMPT, Some(body))?;
    if cx.output.is_table() && !text(&started, "otp").is_empty() {
        terminal::warning("The OTP below is printed once. Decoding the token needs it; keep it apart from the shares.");
    }
    show(cx, &started)
}

fn decode(cx: &Cx, encoded: &str) -> Outcome {
    let Some(otp) = cx.words.text("otp").filter(|otp| !otp.is_empty()) else {
        return Err(CommandError::usage("Missing otp: use -otp to supply it"));
    };
    let decoded = STANDARD_NO_PAD.decode(encoded.trim().trim_end_matches('='));
    let decoded = decoded.map_err(|_| CommandError::usage("Error decoding root token: it is not base64"))?;
    if decoded.len() != otp.len() {
        return Err(CommandError::usage("Error decoding root token: the token and the OTP have different lengths"));
    }
    let plain: Vec<u8> = decoded.iter().zip(otp.as_bytes()).map(|(a, b)| a ^ b).collect();
    let token = SecretString::new(String::from_utf8_lossy(&plain).into_owned());
    if cx.output.is_table() {
        terminal::raw(token.expose());
    } else {
        cx.output.document(json!({ "token": token.expose() }));
    }
    Ok(0)
}

fn show(cx: &Cx, data: &Map<String, Value>) -> Outcome {
    if !cx.output.is_table() {
        cx.output.document(document(data));
        return Ok(0);
    }
    let nonce = Some(text(data, "nonce")).filter(|nonce| !nonce.is_empty()).unwrap_or_else(|| "n/a".to_owned());
    let mut rows = vec![
        ("Nonce", nonce),
        ("Started", boolean(data, "started").to_string()),
        ("Progress", format!("{}/{}", number(data, "progress"), number(data, "required"))),
        ("Complete", boolean(data, "complete").to_string()),
    ];
    for (title, field) in [("PGP Fingerprint", "pgp_fingerprint"), ("Encoded Token", "encoded_token"), ("OTP", "otp")] {
        let value = text(data, field);
        if !value.is_empty() {
            rows.push((title, value));
        }
    }
    if data.contains_key("otp_length") {
        rows.push(("OTP Length", number(data, "otp_length")));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(title, value)| vec![title.to_owned(), value]).collect();
    terminal::line(&columns(&rows));
    Ok(0)
}

/// All fields, including those that the server omits.
fn document(data: &Map<String, Value>) -> Value {
    let empty = |name: &str| match name {
        "started" | "complete" => Value::from(false),
        "progress" | "required" | "otp_length" => Value::from(0),
        _ => Value::from(""),
    };
    let fields = FIELDS.iter().map(|name| {
        // The same value under its deprecated name.
        let from = if *name == "encoded_root_token" { "encoded_token" } else { *name };
        ((*name).to_owned(), data.get(from).cloned().unwrap_or_else(|| empty(name)))
    });
    Value::Object(fields.collect())
}
