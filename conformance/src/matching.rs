//! Compares a response with an expectation: literal JSON with matchers such as `<string>` for varying values.

use regex::Regex;
use serde_json::{Map, Value};

use crate::http::Response;
use crate::scenario::Expect;

/// The key that permits more members than those listed.
const MORE: &str = "<more>";
/// The key of a list in any order.
const SET: &str = "<set>";

/// All differences between `response` and `expect`; empty when they match.
pub fn differences(expect: &Expect, response: &Response) -> Vec<String> {
    let mut out = Vec::new();
    if !expect.status.holds(response.status) {
        out.push(format!("status: expected {}, got {}", expect.status, response.status));
    }
    for (name, expected) in &expect.headers {
        let actual = response.header(name).map(|v| Value::String(v.to_owned()));
        compare(&format!("header {name}"), expected, actual.as_ref(), &mut out);
    }
    if let Some(text) = &expect.text {
        let actual = Value::String(String::from_utf8_lossy(&response.body).into_owned());
        compare("text", &Value::String(text.clone()), Some(&actual), &mut out);
    } else if expect.empty {
        if !response.body.is_empty() {
            out.push(format!("body: expected none, got {}", String::from_utf8_lossy(&response.body).trim()));
        }
    } else if let Some(expected) = expected_body(expect, response) {
        match response.json() {
            Some(actual) => compare("", &expected, Some(&actual), &mut out),
            None => out.push(format!("body: expected JSON, got {:?}", String::from_utf8_lossy(&response.body))),
        }
    }
    out
}

/// The complete body of the short forms; `None` when the body is not specified.
fn expected_body(expect: &Expect, response: &Response) -> Option<Value> {
    if let Some(body) = &expect.body {
        return Some(body.clone());
    }
    if let Some(errors) = &expect.errors {
        return Some(serde_json::json!({ "errors": errors }));
    }
    let enveloped = [&expect.data, &expect.auth, &expect.wrap_info, &expect.warnings];
    if enveloped.iter().all(|part| part.is_none()) {
        return None;
    }
    let or_null = |part: &Option<Value>| part.clone().unwrap_or(Value::Null);
    let mut body = serde_json::json!({
        "request_id": "<string>",
        "lease_id": expect.lease_id.clone().unwrap_or_else(|| "".into()),
        "renewable": expect.renewable.clone().unwrap_or_else(|| false.into()),
        "lease_duration": expect.lease_duration.clone().unwrap_or_else(|| 0.into()),
        "data": or_null(&expect.data),
        "warnings": or_null(&expect.warnings),
        "wrap_info": or_null(&expect.wrap_info),
        "auth": or_null(&expect.auth),
    });
    // Vault has it since 1.16, OpenBao does not; clients must not depend on it.
    if response.json().is_some_and(|b| b.get("mount_type").is_some()) {
        body["mount_type"] = "<string>".into();
    }
    if let (true, Some(Value::Object(data)), Some(object)) = (expect.mirrored, &expect.data, body.as_object_mut()) {
        for (key, value) in data {
            object.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    Some(body)
}

/// Appends the differences between `actual` (`None` when absent) and `expected` to `out`. `at` is the path.
pub fn compare(at: &str, expected: &Value, actual: Option<&Value>, out: &mut Vec<String>) {
    let place = if at.is_empty() { "body" } else { at };
    if let Value::String(pattern) = expected
        && let Some(holds) = matcher(pattern, actual)
    {
        if !holds {
            out.push(format!("{place}: expected {pattern}, got {}", display(actual)));
        }
        return;
    }
    match (expected, actual) {
        (Value::Object(wanted), Some(Value::Object(found))) => compare_objects(at, wanted, found, out),
        (Value::Object(wanted), Some(Value::Array(found))) if wanted.contains_key(SET) => {
            compare_sets(place, &wanted[SET], found, out);
        }
        (Value::Array(wanted), Some(Value::Array(found))) => {
            if wanted.len() != found.len() {
                out.push(format!("{place}: expected {} items, got {}", wanted.len(), display(actual)));
                return;
            }
            for (index, (w, f)) in wanted.iter().zip(found).enumerate() {
                compare(&join(at, &index.to_string()), w, Some(f), out);
            }
        }
        (_, Some(found)) if found == expected => {}
        _ => out.push(format!("{place}: expected {expected}, got {}", display(actual))),
    }
}

fn compare_objects(at: &str, wanted: &Map<String, Value>, found: &Map<String, Value>, out: &mut Vec<String>) {
    for (key, expected) in wanted.iter().filter(|(key, _)| *key != MORE) {
        compare(&join(at, key), expected, found.get(key), out);
    }
    if wanted.contains_key(MORE) {
        return;
    }
    for (key, value) in found.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
        out.push(format!("{}: expected it absent, got {}", join(at, key), display(Some(value))));
    }
}

/// Compares two lists in any order: every expected item takes the first actual one that it matches.
fn compare_sets(place: &str, wanted: &Value, found: &[Value], out: &mut Vec<String>) {
    let wanted = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut left: Vec<&Value> = found.iter().collect();
    for item in wanted {
        let met = left.iter().position(|candidate| {
            let mut misses = Vec::new();
            compare(place, item, Some(candidate), &mut misses);
            misses.is_empty()
        });
        match met {
            Some(index) => drop(left.remove(index)),
            None => {
                out.push(format!("{place}: no item like {item} in {}", display(Some(&Value::Array(found.to_vec())))))
            }
        }
    }
    for item in left {
        out.push(format!("{place}: unexpected item {item}"));
    }
}

/// Whether `actual` matches a `<…>` pattern; `None` when the string is not a matcher and means itself.
fn matcher(pattern: &str, actual: Option<&Value>) -> Option<bool> {
    let inner = pattern.strip_prefix('<')?.strip_suffix('>')?;
    let text = actual.and_then(Value::as_str);
    let like = |regex: &str| text.is_some_and(|t| Regex::new(regex).is_ok_and(|r| r.is_match(t)));
    let number = actual.and_then(Value::as_f64);
    Some(match inner {
        "any" => actual.is_some(),
        "optional" => true,
        "absent" => actual.is_none(),
        "string" => text.is_some(),
        "nonempty" => text.is_some_and(|t| !t.is_empty()),
        "number" => number.is_some(),
        "positive" => number.is_some_and(|n| n > 0.0),
        "bool" => actual.is_some_and(Value::is_boolean),
        "list" => actual.is_some_and(Value::is_array),
        "map" => actual.is_some_and(Value::is_object),
        "unix" => number.is_some_and(|n| (1.7e9..1e11).contains(&n)),
        "time" => like(r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"),
        "uuid" => like("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"),
        // Tokens of OpenBao begin with `s.` and `b.`, those of Vault and Keepfast with `hvs.` and `hvb.`.
        "token" => like(r"^(hvs|s)\.[A-Za-z0-9_-]{20,}$"),
        "batch" => like(r"^(hvb|b)\.[A-Za-z0-9_-]{20,}$"),
        "accessor" => like("^[A-Za-z0-9]{24}$"),
        _ => parametrised(inner, text, number)?,
    })
}

/// The matchers with an argument after a colon.
fn parametrised(inner: &str, text: Option<&str>, number: Option<f64>) -> Option<bool> {
    let (kind, argument) = inner.split_once(':')?;
    match kind {
        "re" => Some(text.is_some_and(|t| Regex::new(argument).is_ok_and(|r| r.is_match(t)))),
        "contains" => Some(text.is_some_and(|t| t.contains(argument))),
        // The remaining time of a TTL that started a moment ago.
        "ttl" => {
            let full: f64 = argument.trim().parse().ok()?;
            Some(number.is_some_and(|n| n <= full && n >= full - 30.0))
        }
        _ => None,
    }
}

fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

fn display(value: Option<&Value>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(value) => {
            let mut text = value.to_string();
            if text.chars().count() > 300 {
                text = text.chars().take(300).collect::<String>() + "…";
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn misses(expected: Value, actual: Value) -> usize {
        let mut out = Vec::new();
        compare("", &expected, Some(&actual), &mut out);
        out.len()
    }

    #[test]
    fn literals_are_equal_and_objects_complete() {
        assert_eq!(misses(json!({"a": 1}), json!({"a": 1})), 0);
        assert_eq!(misses(json!({"a": 1}), json!({"a": "1"})), 1);
        assert_eq!(misses(json!({"a": 1}), json!({"a": 1, "b": 2})), 1);
        assert_eq!(misses(json!({"a": 1, "<more>": true}), json!({"a": 1, "b": 2})), 0);
        assert_eq!(misses(json!({"a": null}), json!({})), 1, "null is not absent");
    }

    #[test]
    fn matchers_accept_and_reject_values() {
        assert_eq!(misses(json!({"a": "<absent>"}), json!({})), 0);
        assert_eq!(misses(json!({"a": "<absent>"}), json!({"a": null})), 1);
        assert_eq!(misses(json!("<ttl:60>"), json!(59)), 0);
        assert_eq!(misses(json!("<ttl:60>"), json!(61)), 1);
        assert_eq!(misses(json!("<uuid>"), json!("x")), 1);
        assert_eq!(misses(json!("<re:^a+$>"), json!("aaa")), 0);
        assert_eq!(misses(json!("<unknown>"), json!("<unknown>")), 0, "no matcher: itself");
    }

    #[test]
    fn sets_ignore_only_the_order() {
        assert_eq!(misses(json!({"<set>": [1, "<string>"]}), json!(["x", 1])), 0);
        assert_eq!(misses(json!({"<set>": [1]}), json!([1, 1])), 1);
        assert_eq!(misses(json!({"<set>": [1, 2]}), json!([1, 3])), 2);
    }
}
