//! `namespace …`: commands for namespaces.

mod create;
mod delete;
mod list;
mod lock;
mod lookup;
mod patch;
mod scan;
mod unlock;

use keepfast_client::{Method, Request, Secret};
use serde_json::{Map, Value};

use super::listing;
use crate::args::{Flag, FlagSet, Kind, Node};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::output::sorted;
use crate::terminal;

pub(super) const COMMANDS: &[Node] = &[
    Node::Leaf(&create::COMMAND),
    Node::Leaf(&delete::COMMAND),
    Node::Leaf(&list::COMMAND),
    Node::Leaf(&lock::COMMAND),
    Node::Leaf(&lookup::COMMAND),
    Node::Leaf(&patch::COMMAND),
    Node::Leaf(&scan::COMMAND),
    Node::Leaf(&unlock::COMMAND),
];

const CUSTOM_METADATA: Flag =
    Flag::new("custom-metadata", Kind::Pairs, "Custom metadata of the namespace; may be repeated.");

/// The flags of listings of namespaces, which have no pages.
const LISTING: FlagSet = FlagSet {
    title: "Command",
    flags: &[Flag::new("detailed", Kind::Bool, "Show the id, the custom metadata and the state of each namespace.")],
};

/// The API path of the namespace that the first argument names.
fn api_path(cx: &Cx, context: &str) -> Result<String, CommandError> {
    let name = cx.path(0);
    if name.is_empty() {
        return Err(CommandError::failed(format!("{context}: name must not be empty")));
    }
    Ok(format!("sys/namespaces/{name}"))
}

/// The API path of an operation on the API lock; without an argument, on the lock of the current namespace.
fn lock_path(cx: &Cx, operation: &str) -> String {
    format!("sys/namespaces/api-lock/{operation}/{}", cx.path(0))
}

/// Prints the data of a response. Like OpenBao, JSON and YAML have it without the envelope.
fn print_data(cx: &Cx, secret: &Secret) -> Outcome {
    let Some(data) = secret.data.as_ref().filter(|_| secret.wrap_info.is_none()) else {
        return cx.output.secret(secret);
    };
    if let Some(name) = cx.output.field() {
        return cx.output.field_of(data, name, "map");
    }
    if cx.output.is_table() {
        return cx.output.secret(secret);
    }
    cx.output.document(sorted(&Value::Object(data.clone())));
    Ok(0)
}

/// Prints the warnings of a response that has nothing else, such as that of a namespace which does not exist.
/// Returns whether there are any.
fn print_warnings(response: Option<&Secret>) -> bool {
    let warnings = response.and_then(|secret| secret.warnings.as_deref()).unwrap_or_default();
    for warning in warnings {
        let mut letters = warning.chars();
        let first = letters.next().into_iter().flat_map(char::to_uppercase);
        terminal::warning(&first.chain(letters).collect::<String>());
    }
    !warnings.is_empty()
}

/// Lists the namespaces below the current one and prints them; `operation` is `list` or `scan`.
fn print_names(cx: &Cx, operation: &str, context: &str) -> Outcome {
    let request = Request::new(Method::Get, "sys/namespaces").with_query(operation, "true");
    let secret = cx.session()?.call(context, &request)?.unwrap_or_default();
    if secret.wrap_info.is_some() {
        return cx.output.secret(&secret);
    }
    let Some(mut names) = listing::names(&secret) else {
        if cx.output.is_table() {
            return Err(CommandError::failed("No namespaces found"));
        }
        cx.output.document(Value::Object(Map::new()));
        return Ok(2);
    };
    // The server returns them in no order.
    names.sort();
    let infos = secret.data_field("key_info").filter(|_| cx.words.on("detailed"));
    match infos.and_then(Value::as_object) {
        Some(infos) if cx.output.is_table() => terminal::line(&listing::detailed(&names, infos)),
        Some(infos) => cx.output.document(sorted(&Value::Object(infos.clone()))),
        None => cx.output.names("Keys", &names),
    }
    Ok(0)
}
