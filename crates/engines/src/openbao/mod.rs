//! Compares responses with those of OpenBao, which `record.py` recorded in the `.jsonl` files.
//!
//! If Keepfast differs on purpose, `ours` is its response and `why` the reason. `keep` is a field of the response's
//! data whose value replaces `$field` in later steps.

use std::collections::BTreeMap;

use keepfast_framework::testing::{Bench, BenchResponse};
use keepfast_framework::{Error, Operation, Outcome};
use serde_json::{Map, Value, json};

fn operation(method: &str, path: &str) -> Operation {
    match method {
        "GET" if path.contains("list=true") => Operation::List,
        "GET" if path.contains("scan=true") => Operation::Scan,
        "GET" => Operation::Read,
        "POST" => Operation::Update,
        "PATCH" => Operation::Patch,
        "DELETE" => Operation::Delete,
        "LIST" => Operation::List,
        "SCAN" => Operation::Scan,
        other => panic!("{other}"),
    }
}

/// The path within the mount in core's form: that of a list ends in `/`, that of the root is empty.
fn path(operation: Operation, path: &str) -> String {
    let (path, query) = path.split_once('?').map_or((path, String::new()), |(path, query)| (path, format!("?{query}")));
    match path {
        "" | "/" => query,
        path if operation.lists() && !path.ends_with('/') => format!("{path}/{query}"),
        path => format!("{path}{query}"),
    }
}

/// A response in the form of the files, without what core adds.
fn recorded_form(answer: Result<BenchResponse, Error>) -> Value {
    let mut out = Map::new();
    match answer {
        Err(error) => {
            out.insert("status".into(), error.status().0.into());
            if !error.public().is_empty() {
                out.insert("errors".into(), json!([error.public()]));
            }
        }
        Ok(answer) => {
            let empty = answer.outcome.is_empty() && answer.login.is_none() && answer.warnings.is_empty();
            let status = answer.status().map_or(if empty { 204 } else { 200 }, |s| s.0);
            out.insert("status".into(), status.into());
            if !answer.data().is_null() {
                let mut data = answer.data();
                blank_times(&mut data);
                out.insert("data".into(), data);
            }
            if let Outcome::Raw(raw) = &answer.outcome {
                out.insert("status".into(), raw.status.0.into());
                out.insert("data".into(), serde_json::from_slice::<Value>(&raw.body).unwrap()["data"].clone());
            }
            if let Some(login) = &answer.login {
                out.insert("login".into(), json!({"metadata": login.metadata, "policies": login.policies}));
            }
            if answer.hint_ttl() != 0 {
                out.insert("lease_duration".into(), answer.hint_ttl().into());
            }
            if !answer.warnings.is_empty() {
                out.insert("warnings".into(), json!(answer.warnings));
            }
        }
    }
    let mut out = Value::Object(out);
    blank_uuids(&mut out);
    out
}

// recursion: bounded by serde_json, which reads 128 levels
fn blank_times(value: &mut Value) {
    match value {
        Value::String(text) if keepfast_framework::Timestamp::parse_rfc3339(text).is_some() => *text = "TIME".into(),
        Value::Array(items) => items.iter_mut().for_each(blank_times),
        Value::Object(members) => members.values_mut().for_each(blank_times),
        _ => {}
    }
}

/// Random ids are whole values or, in errors, quoted.
// recursion: bounded by serde_json, which reads 128 levels
fn blank_uuids(value: &mut Value) {
    let is_uuid = |part: &str| part.len() == 36 && part.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    match value {
        Value::String(text) => {
            *text =
                text.split('"').map(|part| if is_uuid(part) { "UUID" } else { part }).collect::<Vec<_>>().join("\"");
        }
        Value::Array(items) => items.iter_mut().for_each(blank_uuids),
        Value::Object(members) => members.values_mut().for_each(blank_uuids),
        _ => {}
    }
}

/// Sends the requests in `file` to an engine and compares the responses.
pub(crate) async fn compare(mut bench: Bench, file: &str) {
    bench.remote = Some(std::net::Ipv4Addr::LOCALHOST.into());
    let mut differences = Vec::new();
    let mut kept: BTreeMap<String, String> = BTreeMap::new();
    for (line, step) in file.lines().enumerate() {
        let step: Value = serde_json::from_str(step).unwrap();
        let request = step["do"].as_array().unwrap().iter().map(|part| part.as_str().unwrap());
        let request: Vec<String> = request.map(|part| filled(part, &kept)).collect();
        let operation = operation(&request[0], &request[1]);
        let body = request.get(2).map(String::as_str).unwrap_or_default();
        bench.clock.advance(std::time::Duration::from_millis(1));
        let answer = bench.call_raw(operation, &path(operation, &request[1]), body).await;
        if let (Some(field), Ok(answer)) = (step["keep"].as_str(), &answer) {
            kept.insert(field.to_owned(), answer.data()[field].as_str().unwrap().to_owned());
        }
        let answer = recorded_form(answer);
        assert_eq!(
            step.get("ours").is_some(),
            step.get("why").is_some(),
            "line {}: `ours` and `why` belong together",
            line + 1
        );
        let expected = step
            .get("ours")
            .unwrap_or(&step["openbao"])
            .to_string()
            .replace("OpenBao CLI, use 'bao", "Keepfast CLI, use 'keepfast");
        if answer != serde_json::from_str::<Value>(&expected).unwrap() {
            differences.push(format!("line {}: {}\n  expected {expected}\n  returned {answer}", line + 1, step["do"]));
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// A part of a step with the kept values inserted.
fn filled(part: &str, kept: &BTreeMap<String, String>) -> String {
    kept.iter().fold(part.to_owned(), |part, (field, value)| part.replace(&format!("${field}"), value))
}
