//! Records the responses of OpenBao: each step without an expectation gets one, with matchers for varying values.
//! A developer reviews it.

use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::http::Response;
use crate::play::{Play, Variables};
use crate::run::Target;
use crate::scenario::Loaded;

/// The maximum width of a line.
const WIDTH: usize = 120;

/// Adds the missing expectations to a scenario file. Steps must begin with `  - `, as the README demands.
pub fn record(target: &Target, loaded: &Loaded) -> Result<usize> {
    let recorded = target.with_client(loaded.scenario.needs, |client, root| -> Result<Vec<Option<String>>> {
        let mut play = Play::begin(client, root, &loaded.scenario, false)?;
        let mut texts = Vec::new();
        for step in &loaded.scenario.steps {
            let response = play.send(step, |_, _| true)?;
            let captured = play.capture(step, &response);
            if let Err(error) = captured {
                eprintln!("{}: {error:#}: {}", loaded.name, String::from_utf8_lossy(&response.body));
            }
            texts.push(step.expect.is_none().then(|| expectation(&response, &play.variables)));
        }
        play.end();
        Ok(texts)
    })?;
    let texts = recorded.context("a server of its own is needed")??;
    let count = texts.iter().flatten().count();
    let text = std::fs::read_to_string(&loaded.file)?;
    std::fs::write(&loaded.file, insert(&text, &texts)?)?;
    Ok(count)
}

/// Appends each text to its step.
fn insert(file: &str, texts: &[Option<String>]) -> Result<String> {
    let (head, steps) = file.split_once("\nsteps:\n").context("no steps")?;
    let mut blocks: Vec<String> = Vec::new();
    let mut between = String::new();
    for line in steps.lines() {
        if line.starts_with("  - ") {
            blocks.push(format!("{between}{line}\n"));
            between.clear();
        } else if line.trim().is_empty() || line.starts_with("  #") {
            between.push_str(line);
            between.push('\n');
        } else {
            let block = blocks.last_mut().context("a line before the first step")?;
            block.push_str(&std::mem::take(&mut between));
            block.push_str(line);
            block.push('\n');
        }
    }
    if blocks.len() != texts.len() {
        bail!("{} steps were read and {} are in the file", texts.len(), blocks.len());
    }
    let mut out = format!("{head}\nsteps:\n");
    for (block, text) in blocks.iter().zip(texts) {
        out.push_str(block);
        out.push_str(text.as_deref().unwrap_or_default());
    }
    Ok(out)
}

/// The `expect:` lines of a response.
fn expectation(response: &Response, variables: &Variables) -> String {
    let mut expect = Map::from_iter([("status".to_owned(), json!(response.status))]);
    match response.json() {
        Some(body) => describe(&mask(&body, variables), &mut expect),
        None if response.body.is_empty() => drop(expect.insert("empty".to_owned(), true.into())),
        None => drop(expect.insert("text".to_owned(), String::from_utf8_lossy(&response.body).into())),
    }
    if response.status != 500 {
        return member("expect", &Value::Object(expect), 4);
    }
    // OpenBao returns a 5xx for an error of the client: Keepfast must return a 4xx.
    let ours = json!({"status": "4xx", "errors": ["<string>"]});
    let differs = json!({"reason": "a client error is not a server error", "peer": expect});
    member("expect", &ours, 4) + &member("differs", &differs, 4)
}

/// A member of a step, on one line if it fits.
fn member(name: &str, value: &Value, indent: usize) -> String {
    let line = format!("{}{name}: {}\n", " ".repeat(indent), flow(value));
    if line.chars().count() <= WIDTH {
        line
    } else {
        format!("{}{name}:\n{}", " ".repeat(indent), block(value, indent + 2))
    }
}

/// Selects the short form of a body.
fn describe(body: &Value, expect: &mut Map<String, Value>) {
    const ENVELOPE: [&str; 8] =
        ["request_id", "lease_id", "renewable", "lease_duration", "data", "warnings", "wrap_info", "auth"];
    let Value::Object(members) = body else {
        expect.insert("body".to_owned(), body.clone());
        return;
    };
    if members.len() == 1 && members.contains_key("errors") {
        expect.insert("errors".to_owned(), members["errors"].clone());
        return;
    }
    let enveloped = ENVELOPE.iter().all(|key| members.contains_key(*key));
    let data = members.get("data").and_then(Value::as_object);
    let extra: Vec<_> = members.keys().filter(|key| !ENVELOPE.contains(&key.as_str())).collect();
    let mirrored = !extra.is_empty() && data.is_some_and(|d| extra.iter().all(|k| d.contains_key(*k)));
    if !enveloped || (!extra.is_empty() && !mirrored) {
        expect.insert("body".to_owned(), body.clone());
        return;
    }
    let defaults = [("lease_id", json!("")), ("renewable", json!(false)), ("lease_duration", json!(0))];
    for (key, default) in defaults.into_iter().chain(["warnings", "wrap_info", "auth"].map(|key| (key, Value::Null))) {
        if members[key] != default {
            expect.insert(key.to_owned(), members[key].clone());
        }
    }
    if !members["data"].is_null() || expect.len() == 1 {
        expect.insert("data".to_owned(), members["data"].clone());
    }
    if mirrored {
        expect.insert("mirrored".to_owned(), true.into());
    }
}

/// Replaces varying values of a response by matchers, and known values by their variables.
pub fn mask(value: &Value, variables: &Variables) -> Value {
    mask_at("", value, variables)
}

fn mask_at(key: &str, value: &Value, variables: &Variables) -> Value {
    match value {
        Value::String(text) => mask_text(key, text, variables).into(),
        Value::Number(number) => mask_number(key, number.as_i64()).unwrap_or_else(|| value.clone()),
        Value::Array(items) => items.iter().map(|item| mask_at(key, item, variables)).collect(),
        Value::Object(members) => {
            let masked = members.iter().map(|(k, v)| (named(k, variables), mask_at(k, v, variables)));
            masked.collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

fn mask_number(key: &str, number: Option<i64>) -> Option<Value> {
    let number = number?;
    if (1_700_000_000..100_000_000_000).contains(&number) {
        return Some("<unix>".into());
    }
    // A TTL may have lost a second or two since it was set.
    let running = matches!(key, "ttl" | "secret_id_ttl" | "lease_duration") && number > 9;
    let full = (number + 9) / 10 * 10;
    (running && full - number <= 3)
        .then(|| if full == number && key != "ttl" { number.into() } else { format!("<ttl:{full}>").into() })
}

fn mask_text(key: &str, text: &str, variables: &Variables) -> String {
    static FORMS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let form = |regex: &str, mask: &'static str| Regex::new(regex).ok().map(|r| (r, mask));
        [
            form("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "<uuid>"),
            form(r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$", "<time>"),
            form(r"^(hvs|s)\.[A-Za-z0-9_-]{20,}$", "<token>"),
            form(r"^(hvb|b)\.[A-Za-z0-9_-]{20,}$", "<batch>"),
            form("^hmac-sha256:[0-9a-f]{64}$", "<re:^hmac-sha256:[0-9a-f]{64}$>"),
            form(r"^-----BEGIN [A-Z ]+-----\n", "<re:^-----BEGIN [A-Z ]+-----\\n>"),
            form("^vault:v1:", "<re:^vault:v1:.+>"),
            form("^vault:v2:", "<re:^vault:v2:.+>"),
            form("^vault:v3:", "<re:^vault:v3:.+>"),
            form("^vault-cluster-[0-9a-f]{8}$", "<nonempty>"),
            form("^failed to (decode|parse) JSON", "<contains:JSON>"),
            form("^Invalid path for a versioned K/V", "<contains:Invalid path for a versioned K/V secrets engine>"),
        ]
        .into_iter()
        .flatten()
        .collect()
    });
    let named = named(text, variables);
    if named != text {
        return named;
    }
    // The rest of OpenBao's text comes from its JSON library.
    if let Some((field, _)) =
        text.split_once("error converting input for field \"").and_then(|(_, rest)| rest.split_once('"'))
    {
        return format!("<contains:error converting input for field \"{field}\">");
    }
    if key == "accessor" && text.len() == 24 {
        return "<accessor>".to_owned();
    }
    if key.ends_with("accessor") && text.rsplit_once('_').is_some_and(|(_, id)| id.len() == 8) {
        return format!("<re:^{}_[0-9a-f]{{8}}$>", text.rsplit_once('_').map_or("", |(kind, _)| kind));
    }
    if key == "public_key" && text.len() == 44 {
        return "<re:^[A-Za-z0-9+/]{43}=$>".to_owned();
    }
    if key.ends_with("version") && text.contains(".bao") || key == "version" && text.split('.').count() == 3 {
        return "<string>".to_owned();
    }
    FORMS.iter().find(|(form, _)| form.is_match(text)).map_or_else(|| text.to_owned(), |(_, mask)| (*mask).to_owned())
}

/// Replaces the values of variables in a text by their names; short values are not replaced.
fn named(text: &str, variables: &Variables) -> String {
    let mut values: Vec<_> = variables.iter().filter_map(|(n, v)| v.as_str().map(|v| (n, v))).collect();
    values.retain(|(_, value)| value.len() >= 8);
    values.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    let mut out = text.to_owned();
    for (name, value) in values {
        out = out.replace(value, &format!("{{{{{name}}}}}"));
    }
    out
}

/// One line of YAML.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let inner: Vec<_> = members.iter().map(|(k, v)| format!("{}: {}", scalar(k), flow(v))).collect();
            format!("{{{}}}", inner.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Lines of YAML; a value that fits stays on one line.
fn block(value: &Value, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let entry = |lead: String, value: &Value| {
        let line = format!("{margin}{lead}{}", flow(value));
        let nested =
            matches!(value, Value::Object(m) if !m.is_empty()) || matches!(value, Value::Array(a) if !a.is_empty());
        if line.chars().count() <= WIDTH || !nested {
            line + "\n"
        } else {
            format!("{margin}{}\n{}", lead.trim_end(), block(value, indent + 2))
        }
    };
    match value {
        Value::Object(members) => members.iter().map(|(k, v)| entry(format!("{}: ", scalar(k)), v)).collect(),
        Value::Array(items) => items.iter().map(|item| entry("- ".to_owned(), item)).collect(),
        other => format!("{margin}{}\n", flow(other)),
    }
}

/// A string as YAML: bare where it is unambiguous, else quoted as JSON.
fn scalar(text: &str) -> String {
    static BARE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("^[A-Za-z_<][A-Za-z0-9_./ <>-]*$").ok());
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let bare = BARE.as_ref().is_some_and(|r| r.is_match(text))
        && !words.contains(&text.to_ascii_lowercase().as_str())
        && !text.ends_with(' ');
    if bare { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn recorded_values_are_read_back() {
        let value =
            json!({"a": ["x: y", "{{kv}}/", "no", "", "1"], "b": {"long": "l".repeat(130), "more": [1, null, {}]}});
        let text = format!("v:\n{}", block(&value, 2));
        let back: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back["v"], value);
        let back: Value = serde_saphyr::from_str(&flow(&value)).unwrap();
        assert_eq!(back, value);
    }

    #[test]
    fn masks_varying_values() {
        let variables = Variables::from([("kv".to_owned(), "kv-12345678".into())]);
        let body =
            json!({"path": "kv-12345678/a", "id": "2c6bd1b6-6be2-915b-19f9-07a20bd4271d", "ttl": 3599, "n": 3599});
        assert_eq!(
            mask(&body, &variables),
            json!({"path": "{{kv}}/a", "id": "<uuid>", "ttl": "<ttl:3600>", "n": 3599})
        );
    }
}
