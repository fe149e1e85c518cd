//! `token create`: creates a token.

use keepfast_client::{Method, Request, duration};
use serde_json::{Map, Value};

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};

pub(crate) const COMMAND: Command = Command {
    name: "create",
    usage: "",
    about: "Create a token, by default a child of the current token with the same policies.",
    details: "
    keepfast token create -policy=app -ttl=1h
    keepfast token create -role=ci
",
    min: 0,
    max: Some(0),
    flags: &[HTTP, OUTPUT, FlagSet { title: "Command", flags: FLAGS }],
    run,
};

const FLAGS: &[Flag] = &[
    Flag::new("display-name", Kind::Text, "The display name in the audit log."),
    Flag::new("entity-alias", Kind::Text, "The alias of the token's entity; needs -role."),
    Flag::new("explicit-max-ttl", Kind::Duration, "The maximum TTL, including renewals."),
    Flag::new("id", Kind::Text, "The token id, instead of a random one. Needs sudo."),
    Flag::new("metadata", Kind::Pairs, "Metadata in the audit log; may be repeated."),
    Flag::new("no-default-policy", Kind::Bool, "Omit the policy named default."),
    Flag::new(
        "orphan",
        Kind::Bool,
        "Create the token without a parent, so that it outlives the current token. Needs sudo.",
    ),
    Flag::new("period", Kind::Duration, "The TTL of every renewal of a periodic token. Needs sudo."),
    Flag::new("policy", Kind::List, "A policy; may be repeated."),
    Flag::new("renewable", Kind::Bool, "Whether the token can be renewed. Default: true."),
    Flag::new("role", Kind::Text, "The token role; it may override other flags."),
    Flag::new("ttl", Kind::Duration, "The initial TTL."),
    Flag::new("type", Kind::Text, "service or batch. Default: service."),
    Flag::new("use-limit", Kind::Int, "The number of uses of the token. Default: unlimited."),
];

/// Flags and their text fields in the request.
const TEXTS: &[(&str, &str)] =
    &[("display-name", "display_name"), ("entity-alias", "entity_alias"), ("id", "id"), ("type", "type")];
const DURATIONS: &[(&str, &str)] = &[("explicit-max-ttl", "explicit_max_ttl"), ("period", "period"), ("ttl", "ttl")];
const TRUTHS: &[(&str, &str)] =
    &[("no-default-policy", "no_default_policy"), ("orphan", "no_parent"), ("renewable", "renewable")];

fn run(cx: &Cx) -> Outcome {
    let path = match cx.words.text("role") {
        Some(role) => format!("auth/token/create/{role}"),
        None => "auth/token/create".to_owned(),
    };
    let request = Request::new(Method::Post, path).with_body(Value::Object(body(cx)));
    let secret = cx.session()?.call("Error creating token", &request)?;
    cx.output.secret(&secret.ok_or_else(|| CommandError::failed("Error creating token: the server returned no token"))?)
}

fn body(cx: &Cx) -> Map<String, Value> {
    let words = &cx.words;
    let mut body = Map::new();
    let mut add = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(field.to_owned(), value);
        }
    };
    for (flag, field) in TEXTS {
        add(field, words.text(flag).map(Value::from));
    }
    for (flag, field) in DURATIONS {
        add(field, words.duration(flag).map(|time| duration::format(time).into()));
    }
    for (flag, field) in TRUTHS {
        add(field, words.truth(flag).map(Value::from));
    }
    add("num_uses", words.int("use-limit").map(Value::from));
    add("policies", words.has("policy").then(|| words.list("policy").into()));
    add("meta", words.has("metadata").then(|| Value::Object(words.pairs("metadata"))));
    body
}
