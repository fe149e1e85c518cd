//! `secrets tune`, `auth tune`: tunes a mount.

use keepfast_client::{Method, Request, duration};
use serde_json::{Map, Value, json};

use super::settings::{SHARED, TOKEN_TYPE, config, options};
use super::{ENGINES, Kind, METHODS};
use crate::args::{self, Command, Flag, FlagSet, Words};
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const SECRETS: Command = Command {
    name: "tune",
    usage: "PATH",
    about: "Tune a mounted secrets engine. Other settings are unchanged.",
    details: "",
    min: 1,
    max: Some(1),
    flags: &[HTTP, SHARED],
    run: |cx| run(cx, &ENGINES),
};

pub(crate) const AUTH: Command = Command {
    name: "tune",
    usage: "PATH",
    about: "Tune a mounted auth method. Other settings are unchanged.",
    details: "",
    min: 1,
    max: Some(1),
    flags: &[HTTP, SHARED, FlagSet { title: "Command", flags: LOCKOUT }],
    run: |cx| run(cx, &METHODS),
};

const LOCKOUT: &[Flag] = &[
    TOKEN_TYPE,
    Flag::new(
        "user-lockout-counter-reset-duration",
        args::Kind::Duration,
        "Time after which the counter of failed logins is reset.",
    ),
    Flag::new("user-lockout-disable", args::Kind::Bool, "Disable the user lockout."),
    Flag::new("user-lockout-duration", args::Kind::Duration, "The duration of a lockout."),
    Flag::new("user-lockout-threshold", args::Kind::Int, "The number of failed logins before a lockout."),
];

fn run(cx: &Cx, kind: &Kind) -> Outcome {
    let path = cx.path(0);
    let mut body = config(&cx.words);
    body.extend(cx.words.text("description").map(|text| ("description".to_owned(), json!(text))));
    body.extend(options(&cx.words).map(|options| ("options".to_owned(), options)));
    body.extend(lockout(&cx.words).map(|lockout| ("user_lockout_config".to_owned(), lockout)));
    let request =
        Request::new(Method::Post, format!("sys/mounts/{}{path}/tune", kind.prefix)).with_body(Value::Object(body));
    cx.session()?.call(&format!("Error tuning {} {path}/", kind.noun), &request)?;
    terminal::success(&format!("Success! Tuned the {} at: {path}/", kind.noun));
    Ok(0)
}

fn lockout(words: &Words) -> Option<Value> {
    let time = |flag: &str| words.duration(flag).map(|time| json!(duration::format(time)));
    let given = [
        ("lockout_threshold", words.int("user-lockout-threshold").map(|count| json!(count.to_string()))),
        ("lockout_duration", time("user-lockout-duration")),
        ("lockout_counter_reset_duration", time("user-lockout-counter-reset-duration")),
        ("lockout_disable", words.truth("user-lockout-disable").map(Value::from)),
    ];
    let given: Map<String, Value> =
        given.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))).collect();
    (!given.is_empty()).then_some(Value::Object(given))
}
