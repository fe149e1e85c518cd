//! `policy explain`: prints why policies allow or deny a request.

use std::io;

use keepfast_client::{Method, Request};
use serde_json::{Map, Value, json};

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::data;
use crate::flags::{FORMAT, HTTP};
use crate::output::plain;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "explain",
    usage: "PATH OPERATION [PARAMETER K=V...]",
    about: "Explain why policies allow or deny a request.",
    details: "
Explains the decision for the current token, or for another token, an entity or
a list of policies. The operation is read, create, update, patch, delete, list
or scan. Nothing at the path is read or written. The output has the rule that
decided with its policy, line and column, and the rules that came close.

    keepfast policy explain secret/data/app read
    keepfast policy explain -policies=app,default secret/data/app update cas=1
",
    min: 2,
    max: None,
    flags: &[
        HTTP,
        FORMAT,
        FlagSet {
            title: "Command",
            flags: &[
                Flag::new("token", Kind::Text, "Explain the decision for this token."),
                Flag::new("accessor", Kind::Text, "Explain the decision for the token with this accessor."),
                Flag::new("entity", Kind::Text, "Explain the decision for the entity with this id."),
                Flag::new("policies", Kind::Text, "Explain the decision of these policies, separated by commas."),
            ],
        },
    ],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let mut body = Map::new();
    body.insert("path".to_owned(), cx.argument(0).trim_start_matches('/').into());
    body.insert("operation".to_owned(), cx.argument(1).into());
    for (flag, field) in
        [("token", "token"), ("accessor", "accessor"), ("entity", "entity_id"), ("policies", "policies")]
    {
        body.extend(cx.words.text(flag).map(|value| (field.to_owned(), value.trim().into())));
    }
    let parameters = cx.arguments_from(2);
    if !parameters.is_empty() {
        body.insert("parameters".to_owned(), data::parse(parameters, &mut io::stdin())?.into());
    }
    let request = Request::new(Method::Post, "sys/policies/explain").with_body(Value::Object(body));
    let request = Request { may_wrap: false, ..request };
    let secret = cx.session()?.require("Error explaining the decision", request, "allowed")?;
    let explanation = secret.data.unwrap_or_default();
    if cx.output.is_table() {
        terminal::line(&text(&explanation));
    } else {
        cx.output.document(Value::Object(explanation));
    }
    Ok(0)
}

/// The explanation for people.
fn text(explanation: &Map<String, Value>) -> String {
    let field = |name: &str| explanation.get(name).map(plain).unwrap_or_default();
    let list = |name: &str| explanation.get(name).and_then(Value::as_array).into_iter().flatten();
    let decision = if explanation.get("allowed") == Some(&json!(true)) { "Allowed" } else { "Denied" };
    let mut lines = vec![format!("{decision}: {} {}", field("operation"), field("path")), field("explanation")];
    for rule in list("rules") {
        lines.push(format!("  {}", rule_text(rule)));
    }
    if list("near").next().is_some() {
        lines.push("Rules that came close:".to_owned());
    }
    for rule in list("near") {
        let reason = match rule.get("reason").and_then(Value::as_str).unwrap_or_default() {
            "less_specific" => "less specific",
            "expired" => "expired",
            "letter_case" => "differs in letter case",
            "final_slash" => "differs in the final slash",
            "kv_data_prefix" => "differs in \"data/\" of KV version 2",
            "no_final_wildcard" => "matches only its own path: it does not end in *",
            other => other,
        };
        lines.push(format!("  {} ({reason})", rule_text(rule)));
    }
    lines.extend(list("notes").map(|note| format!("Note: {}", plain(note))));
    lines.join("\n")
}

/// A rule in one line: `app:3:6: path "secret/data/*" { capabilities = [read] }`.
fn rule_text(rule: &Value) -> String {
    let field = |name: &str| rule.get(name).map(plain).unwrap_or_default();
    let names = rule.get("capabilities").and_then(Value::as_array).into_iter().flatten();
    let capabilities: Vec<String> = names.map(plain).collect();
    format!(
        "{}:{}:{}: path {:?} {{ capabilities = [{}] }}",
        field("policy"),
        field("line"),
        field("column"),
        field("path"),
        capabilities.join(", ")
    )
}
