//! The steps that a running peer was asked, and what it answered, asked of ours (`record.py` wrote the files).
//!
//! Where we answer otherwise on purpose, the step says so in `ours` and the reason in `why`. `keep` names the accessor of
//! an answer, and later steps say `$name`. Times and random ids are left out, and so is what core adds.

use std::collections::BTreeMap;

use keepfast_framework::reply::Login;
use keepfast_framework::testing::{Answer, Bench};
use keepfast_framework::{Error, Operation, Timestamp};
use serde_json::{Map, Value, json};

/// Asks every step of `file` and compares.
pub(crate) async fn compare(bench: &Bench, file: &str) {
    let mut kept: BTreeMap<String, String> = BTreeMap::new();
    let mut faults = Vec::new();
    for (line, step) in file.lines().enumerate() {
        let step: Value = serde_json::from_str(step).unwrap();
        let mut asked: Vec<String> =
            step["do"].as_array().unwrap().iter().map(|p| p.as_str().unwrap().to_owned()).collect();
        for (name, accessor) in &kept {
            asked.iter_mut().for_each(|part| *part = part.replace(&format!("${name}"), accessor));
        }
        let operation = operation(&asked[0]);
        let body = asked.get(2).map(String::as_str).unwrap_or_default();
        let answer = bench.call_raw(operation, &path(operation, &asked[1]), body).await;
        if let (Some(name), Ok(answer)) = (step["keep"].as_str(), &answer) {
            kept.insert(name.to_owned(), answer.data()["secret_id_accessor"].as_str().unwrap().to_owned());
        }
        assert_eq!(
            step.get("ours").is_some(),
            step.get("why").is_some(),
            "line {}: a difference without a reason",
            line + 1
        );
        let (expected, answer) = (step.get("ours").unwrap_or(&step["peer"]), shown(answer));
        if answer != *expected {
            faults.push(format!("line {}: {}\n  expected {expected}\n  answered {answer}", line + 1, step["do"]));
        }
        assert!(step.get("ours").is_none_or(|ours| *ours != step["peer"]), "line {}: no difference", line + 1);
    }
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
}

fn operation(method: &str) -> Operation {
    match method {
        "GET" => Operation::Read,
        "POST" => Operation::Update,
        "DELETE" => Operation::Delete,
        "LIST" => Operation::List,
        other => panic!("{other}"),
    }
}

/// The path within the mount as core hands it over: that of a list ends in `/`.
fn path(operation: Operation, path: &str) -> String {
    match path.split_once('?') {
        _ if operation != Operation::List => path.to_owned(),
        None => format!("{path}/"),
        Some((path, query)) => format!("{path}/?{query}"),
    }
}

/// An answer as the files have it.
fn shown(answer: Result<Answer, Error>) -> Value {
    let answer = match answer {
        Err(error) if error.public().is_empty() => return json!({ "status": error.status().0 }),
        Err(error) => return blanked(json!({ "status": error.status().0, "errors": [error.public()] })),
        Ok(answer) => answer,
    };
    let mut out = Map::new();
    let empty = answer.outcome.is_empty() && answer.warnings.is_empty();
    let status = answer.outcome.status.map_or(if empty { 204 } else { 200 }, |status| status.0);
    out.insert("status".into(), status.into());
    if !answer.data().is_null() {
        out.insert("data".into(), answer.data());
    }
    if let Some(raw) = &answer.outcome.raw {
        out.insert("status".into(), raw.status.0.into());
        out.insert("data".into(), serde_json::from_slice::<Value>(&raw.body).unwrap()["data"].clone());
    }
    if let Some(login) = &answer.outcome.login {
        out.insert("auth".into(), auth(login));
    }
    if !answer.warnings.is_empty() {
        out.insert("warnings".into(), json!(answer.warnings));
    }
    blanked(Value::Object(out))
}

/// What the token will show, with the policy that core adds.
fn auth(login: &Login) -> Value {
    let mut policies = login.policies.clone();
    if !login.terms.no_default_policy {
        policies.push("default".to_owned());
    }
    policies.sort();
    policies.dedup();
    json!({ "metadata": login.metadata, "num_uses": login.terms.num_uses, "token_policies": policies })
}

/// Without times and random ids. The time that means "never" stays.
fn blanked(value: Value) -> Value {
    match value {
        Value::String(text) if text.starts_with("0001-") => Value::String(text),
        Value::String(text) if Timestamp::parse_rfc3339(&text).is_some() => "TIME".into(),
        Value::String(text) => Value::String(without_uuids(&text)),
        Value::Array(items) => items.into_iter().map(blanked).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, blanked(value))).collect(),
        other => other,
    }
}

fn without_uuids(text: &str) -> String {
    let is_uuid = |part: &str| part.len() == 36 && part.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    text.split_inclusive('"')
        .map(|part| {
            if is_uuid(part.trim_end_matches('"')) {
                part.replace(part.trim_end_matches('"'), "UUID")
            } else {
                part.to_owned()
            }
        })
        .collect()
}
