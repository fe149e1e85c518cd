//! `token create`: a new token.

use keepfast_client::{Method, Request, duration};
use serde_json::{Map, Value};

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};
use crate::halt::{Halt, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "create",
    usage: "",
    about: "Create a token, by default a child of the token in use with the same policies.",
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
    Flag::new("display-name", Kind::Text, "A name that shows in the audit log."),
    Flag::new("entity-alias", Kind::Text, "The alias of the entity the token belongs to; needs -role."),
    Flag::new("explicit-max-ttl", Kind::Duration, "A lifetime that no renewal exceeds."),
    Flag::new("id", Kind::Text, "The token itself, instead of a random one. Needs sudo."),
    Flag::new("metadata", Kind::Pairs, "A remark that shows in the audit log; may be repeated."),
    Flag::new("no-default-policy", Kind::Bool, "Leave out the policy called default."),
    Flag::new("orphan", Kind::Bool, "Give the token no parent, so that it outlives the token in use. Needs sudo."),
    Flag::new("period", Kind::Duration, "Let every renewal last so long, without end. Needs sudo."),
    Flag::new("policy", Kind::List, "A policy; may be repeated."),
    Flag::new("renewable", Kind::Bool, "Whether the token can be renewed. Default: true."),
    Flag::new("role", Kind::Text, "The token role to create it by; the role may override other flags."),
    Flag::new("ttl", Kind::Duration, "The first lifetime."),
    Flag::new("type", Kind::Text, "service or batch. Default: service."),
    Flag::new("use-limit", Kind::Int, "How often the token can be used. Default: without limit."),
];

/// Flags that are a text here and a field there.
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
    cx.output.secret(&secret.ok_or_else(|| Halt::failed("Error creating token: the server gave none"))?)
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
