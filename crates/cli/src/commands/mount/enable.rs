//! `secrets enable`, `auth enable`: mounts an engine or auth method.

use keepfast_client::{Method, Request};
use serde_json::{Map, Value};

use super::settings::{SHARED, TOKEN_TYPE, config, options};
use super::{ENGINES, Kind, METHODS};
use crate::args::{self, Command, Flag, FlagSet};
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const SECRETS: Command = Command {
    name: "enable",
    usage: "TYPE",
    about: "Mount a secrets engine, by default at the path of its type.",
    details: "
    keepfast secrets enable -path=secret -version=2 kv
",
    min: 1,
    max: Some(1),
    flags: &[
        HTTP,
        SHARED,
        FlagSet { title: "Command", flags: &[PATH, LOCAL, SEAL_WRAP, EXTERNAL_ENTROPY, FORCE_NO_CACHE] },
    ],
    run: |cx| run(cx, &ENGINES),
};

pub(crate) const AUTH: Command = Command {
    name: "enable",
    usage: "TYPE",
    about: "Mount an auth method, by default at the path of its type.",
    details: "
    keepfast auth enable approle
    keepfast auth enable -path=people userpass
",
    min: 1,
    max: Some(1),
    flags: &[
        HTTP,
        SHARED,
        FlagSet { title: "Command", flags: &[PATH, LOCAL, SEAL_WRAP, EXTERNAL_ENTROPY, TOKEN_TYPE] },
    ],
    run: |cx| run(cx, &METHODS),
};

const PATH: Flag = Flag::new("path", args::Kind::Text, "The mount path. Default: its type.");
const LOCAL: Flag = Flag::new("local", args::Kind::Bool, "Do not replicate the mount.");
const SEAL_WRAP: Flag = Flag::new("seal-wrap", args::Kind::Bool, "Encrypt all its values under the wrap key as well.");
const EXTERNAL_ENTROPY: Flag =
    Flag::new("external-entropy-access", args::Kind::Bool, "Permit the use of an external source of randomness.");
const FORCE_NO_CACHE: Flag = Flag::new("force-no-cache", args::Kind::Bool, "Do not cache its data.");

fn run(cx: &Cx, kind: &Kind) -> Outcome {
    let engine = cx.argument(0).trim();
    let path = cx.words.text("path").unwrap_or(engine).trim_matches('/');
    let request = Request::new(Method::Post, format!("{}/{path}", kind.api)).with_body(Value::Object(body(cx, engine)));
    let context =
        if kind.prefix.is_empty() { "Error enabling".to_owned() } else { format!("Error enabling {engine} auth") };
    cx.session()?.call(&context, &request)?;
    let what =
        if kind.prefix.is_empty() { format!("the {engine} {}", kind.noun) } else { format!("{engine} {}", kind.noun) };
    terminal::success(&format!("Success! Enabled {what} at: {path}/"));
    Ok(0)
}

fn body(cx: &Cx, engine: &str) -> Map<String, Value> {
    let mut config = config(&cx.words);
    if let Some(uncached) = cx.words.truth("force-no-cache") {
        config.insert("force_no_cache".to_owned(), uncached.into());
    }
    let mut body = Map::new();
    body.insert("type".to_owned(), engine.into());
    body.insert("description".to_owned(), cx.words.text("description").unwrap_or_default().into());
    body.insert("config".to_owned(), Value::Object(config));
    for (flag, field) in
        [("local", "local"), ("seal-wrap", "seal_wrap"), ("external-entropy-access", "external_entropy_access")]
    {
        body.insert(field.to_owned(), cx.words.on(flag).into());
    }
    body.extend(options(&cx.words).map(|options| ("options".to_owned(), options)));
    body
}
