//! `operator init`: creates the keys, shares and root token of a new server.

use keepfast_client::{Method, Request};
use serde_json::{Map, Value, json};

use super::pgp_keys::{self, PGP_KEYS};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::plain;
use crate::session::Session;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "init",
    usage: "",
    about: "Initialize a server: create its key, the key shares and the root token.",
    details: "
This works once. The shares and the token are printed once; the server stores
neither.

    keepfast operator init -key-shares=5 -key-threshold=3

With PGP keys, each share is encrypted to one of them, and printed in base64:

    keepfast operator init -key-shares=2 -key-threshold=2 -pgp-keys=a.asc,b.asc
    echo SHARE | base64 -d | gpg -d
",
    min: 0,
    max: Some(0),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet {
            title: "Command",
            flags: &[
                Flag::aliased("key-shares", "n", Kind::Int, "The number of key shares. Default: 5."),
                Flag::aliased(
                    "key-threshold",
                    "t",
                    Kind::Int,
                    "The number of shares that unseal the server. Default: 3.",
                ),
                Flag::new(
                    "recovery-shares",
                    Kind::Int,
                    "The number of recovery keys of a server that a seal unseals. Default: 5.",
                ),
                Flag::new(
                    "recovery-threshold",
                    Kind::Int,
                    "The number of recovery keys that are a quorum. Default: 3.",
                ),
                PGP_KEYS,
                Flag::new("recovery-pgp-keys", Kind::Text, "The same for recovery keys."),
                Flag::new(
                    "root-token-pgp-key",
                    Kind::Text,
                    "A file with a PGP public key: the root token is encrypted to it.",
                ),
                Flag::new(
                    "status",
                    Kind::Bool,
                    "Only print whether the server is initialized: exit code 0 if it is, 2 if not, 1 on errors.",
                ),
            ],
        },
    ],
    run,
};

/// The keys that the server returns.
#[derive(Default)]
struct Keys {
    /// Whether they are recovery keys, because a seal unseals the server.
    are_recovery: bool,
    shares: i64,
    threshold: i64,
}

const SHARES: i64 = 5;
const THRESHOLD: i64 = 3;
/// The fields in the order of Vault's command line.
const SEAL_FIELDS: &[(&str, &str)] = &[("unseal_keys_b64", "keys_base64"), ("unseal_keys_hex", "keys")];
const RECOVERY_FIELDS: &[(&str, &str)] =
    &[("recovery_keys_b64", "recovery_keys_base64"), ("recovery_keys_hex", "recovery_keys")];

fn run(cx: &Cx) -> Outcome {
    let session = cx.session()?;
    if cx.words.on("status") {
        return status(cx, &session);
    }
    let pgp = json!({
        "pgp_keys": pgp_keys::list(cx, PGP_KEYS.name)?,
        "recovery_pgp_keys": pgp_keys::list(cx, "recovery-pgp-keys")?,
        "root_token_pgp_key": pgp_keys::one(cx, "root-token-pgp-key")?,
    });
    let given = |name: &str, default| cx.words.int(name).filter(|number| *number != 0).unwrap_or(default);
    let status = session.preflight(Request::new(Method::Get, "sys/seal-status")).ok().flatten();
    let has_seal = status.as_ref().and_then(|status| status.data_field("recovery_seal")).and_then(Value::as_bool);
    let keys = Keys { are_recovery: has_seal.unwrap_or(false), ..Keys::default() };
    let keys = match keys.are_recovery {
        true => {
            Keys { shares: given("recovery-shares", SHARES), threshold: given("recovery-threshold", THRESHOLD), ..keys }
        }
        false => Keys { shares: given("key-shares", SHARES), threshold: given("key-threshold", THRESHOLD), ..keys },
    };
    let other = |name: &str| cx.words.int(name).unwrap_or_default();
    // What does not apply to the seal is refused by the server.
    let mut body = match keys.are_recovery {
        true => json!({
            "recovery_shares": keys.shares, "recovery_threshold": keys.threshold,
            "secret_shares": other("key-shares"), "secret_threshold": other("key-threshold"),
        }),
        false => json!({
            "secret_shares": keys.shares, "secret_threshold": keys.threshold,
            "recovery_shares": other("recovery-shares"), "recovery_threshold": other("recovery-threshold"),
        }),
    };
    for (name, value) in pgp.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let request = Request { may_wrap: false, ..Request::new(Method::Put, "sys/init").with_body(body) };
    let response = session.call("Error initializing", &request)?;
    let data = response
        .and_then(|secret| secret.data)
        .ok_or_else(|| CommandError::failed("Error initializing: the server returned no keys"))?;
    if cx.output.is_table() {
        terminal::line(&text_output(&data, &keys));
    } else {
        cx.output.document(document(&data, &keys));
    }
    Ok(0)
}

fn status(cx: &Cx, session: &Session) -> Outcome {
    let request = Request { may_wrap: false, ..Request::new(Method::Get, "sys/init") };
    let response = session.require("Error checking initialization status", request, "initialized");
    let response = response.map_err(|error| error.with_code(1))?;
    let initialized = response.data_field("initialized").and_then(Value::as_bool).unwrap_or(false);
    if cx.output.is_table() {
        terminal::line(if initialized { "Vault is initialized" } else { "Vault is not initialized" });
    } else {
        cx.output.document(json!({ "Initialized": initialized }));
    }
    Ok(if initialized { 0 } else { 2 })
}

fn text_output(data: &Map<String, Value>, keys: &Keys) -> String {
    let Keys { are_recovery, shares, threshold } = *keys;
    let list = |field: &str| data.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let numbered = |what: &str, keys: Vec<Value>| -> String {
        keys.iter().enumerate().map(|(at, key)| format!("{what} Key {}: {}\n", at + 1, plain(key))).collect()
    };
    let keys = numbered("Unseal", list("keys_base64")) + &numbered("Recovery", list("recovery_keys_base64"));
    let token = data.get("root_token").map(plain).unwrap_or_default();
    if are_recovery {
        return format!(
            "{keys}\nInitial Root Token: {token}\n\n\
             The server unseals itself by its seal. {threshold} of the {shares} recovery keys authorize operations, and unseal the\n\
             server when no seal works (see \"operator seals break-glass\"): whoever has {threshold} of them and the storage reads\n\
             everything. Distribute them to different people: they are not printed again."
        );
    }
    format!(
        "{keys}\nInitial Root Token: {token}\n\n\
         The key is split into {shares} shares, of which {threshold} unseal the server. Distribute them to different people:\n\
         they are not printed again, and without {threshold} of them nothing in this server can be read\n\
         after it is sealed or restarted."
    )
}

fn document(data: &Map<String, Value>, keys: &Keys) -> Value {
    let (unseal, recovery) = match keys.are_recovery {
        true => ((0, 0), (keys.shares, keys.threshold)),
        false => ((keys.shares, keys.threshold), (0, 0)),
    };
    let field = |name: &str| data.get(name).cloned().unwrap_or_default();
    let mut document = Map::new();
    for (name, from) in SEAL_FIELDS {
        document.insert((*name).to_owned(), field(from));
    }
    document.insert("unseal_shares".to_owned(), unseal.0.into());
    document.insert("unseal_threshold".to_owned(), unseal.1.into());
    for (name, from) in RECOVERY_FIELDS {
        document.insert((*name).to_owned(), field(from));
    }
    document.insert("recovery_keys_shares".to_owned(), recovery.0.into());
    document.insert("recovery_keys_threshold".to_owned(), recovery.1.into());
    document.insert("root_token".to_owned(), field("root_token"));
    Value::Object(document)
}
