//! Flags and requests of the commands that take unseal key shares one by one.

use keepfast_client::{Method, Request, SecretString};
use serde_json::{Map, Value, json};

use crate::args::{Flag, Kind};
use crate::command_error::CommandError;
use crate::cx::Cx;
use crate::prompt;
use crate::session::Session;

pub(super) const INIT: Flag = Flag::new("init", Kind::Bool, "Start the operation. Only one can be in progress.");
pub(super) const CANCEL: Flag =
    Flag::new("cancel", Kind::Bool, "Cancel the operation and discard the submitted shares.");
pub(super) const STATUS: Flag = Flag::new("status", Kind::Bool, "Only show the progress.");
pub(super) const NONCE: Flag = Flag::new("nonce", Kind::Text, "The nonce of -init. Default: the server's current one.");

/// Sends a request that is never wrapped, and returns the data.
pub(super) fn ask(
    session: &Session,
    context: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<Map<String, Value>, CommandError> {
    let request = Request { may_wrap: false, ..Request::new(method, path) };
    let request = match body {
        Some(body) => request.with_body(body),
        None => request,
    };
    if request.method == Method::Delete {
        return Ok(session.call(context, &request)?.and_then(|secret| secret.data).unwrap_or_default());
    }
    Ok(session.require_any(context, request, &["nonce", "started", "complete"])?.data.unwrap_or_default())
}

/// The share and its nonce: from the arguments, standard input (`-`) or a prompt.
pub(super) fn share(cx: &Cx, present: &Map<String, Value>, nonce: &str) -> Result<Value, CommandError> {
    let known = present.get(nonce).and_then(Value::as_str).unwrap_or_default();
    let nonce = cx.words.text("nonce").unwrap_or(known).trim();
    let key = match cx.words.arguments.first().map(|key| key.trim()) {
        Some("-") => {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line);
            read.map_err(|error| CommandError::usage(format!("Cannot read the key: {error}")))?;
            SecretString::new(line.trim().to_owned())
        }
        Some(key) => SecretString::new(key.to_owned()),
        None => prompt::hidden("Unseal Key", cx.words.on("non-interactive"))?,
    };
    Ok(json!({ "key": key.expose(), "nonce": nonce }))
}

/// A number in a response as text.
pub(super) fn number(data: &Map<String, Value>, name: &str) -> String {
    data.get(name).and_then(Value::as_i64).unwrap_or_default().to_string()
}

/// A boolean in a response.
pub(super) fn boolean(data: &Map<String, Value>, name: &str) -> bool {
    data.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// A text in a response.
pub(super) fn text(data: &Map<String, Value>, name: &str) -> String {
    data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
