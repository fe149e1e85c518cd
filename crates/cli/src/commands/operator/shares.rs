//! What the commands have in common that take shares of the unseal key one by one.

use keepfast_client::{Method, Request, SecretString};
use serde_json::{Map, Value, json};

use crate::args::{Flag, Kind};
use crate::cx::Cx;
use crate::halt::Halt;
use crate::prompt;
use crate::session::Session;

pub(super) const INIT: Flag = Flag::new("init", Kind::Bool, "Begin. There can be only one at a time.");
pub(super) const CANCEL: Flag =
    Flag::new("cancel", Kind::Bool, "Forget the shares given so far, and what they were for.");
pub(super) const STATUS: Flag = Flag::new("status", Kind::Bool, "Only show how far it is.");
pub(super) const NONCE: Flag =
    Flag::new("nonce", Kind::Text, "What -init has told; the server is asked for it when it is not given.");

/// What the server answers to a request that is never wrapped.
pub(super) fn ask(
    session: &Session,
    context: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<Map<String, Value>, Halt> {
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

/// The share and the nonce that go with it: from the arguments, standard input (`-`) or the person at the terminal.
pub(super) fn share(cx: &Cx, present: &Map<String, Value>, nonce: &str) -> Result<Value, Halt> {
    let known = present.get(nonce).and_then(Value::as_str).unwrap_or_default();
    let nonce = cx.words.text("nonce").unwrap_or(known).trim();
    let key = match cx.words.arguments.first().map(|key| key.trim()) {
        Some("-") => {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line);
            read.map_err(|error| Halt::usage(format!("Cannot read the key: {error}")))?;
            SecretString::new(line.trim().to_owned())
        }
        Some(key) => SecretString::new(key.to_owned()),
        None => prompt::hidden("Unseal Key", cx.words.on("non-interactive"))?,
    };
    Ok(json!({ "key": key.expose(), "nonce": nonce }))
}

/// A number of an answer as text.
pub(super) fn number(data: &Map<String, Value>, name: &str) -> String {
    data.get(name).and_then(Value::as_i64).unwrap_or_default().to_string()
}

/// Whether an answer says so.
pub(super) fn says(data: &Map<String, Value>, name: &str) -> bool {
    data.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// A text of an answer.
pub(super) fn text(data: &Map<String, Value>, name: &str) -> String {
    data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
