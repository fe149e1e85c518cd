//! The small languages that clients write: statements, templates, schedules, password policies, denied parameters.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_core::for_tests::{FilterTemplate, is_denied, password_after};
use keepfast_engines::fuzzing::{
    Sql, check_statements, fill_statements, is_name_of_template, next_of_schedule, places, username,
};
use keepfast_framework::clock::Timestamp;
use keepfast_framework::text_limits::{TEMPLATE_BYTES, VALUE_CHARACTERS};
use serde_json::{Value, json};

/// Splits an input at its last line.
fn lines(data: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(data).ok()?;
    Some(text.rsplit_once('\n').unwrap_or((text, "")))
}

/// Statements, and a value on the last line: never a panic; a value that is filled in stays in its literal, identifier or
/// comment.
pub fn statement(data: &[u8]) {
    let Some((text, value)) = lines(data) else { return };
    let _ = check_statements(Value::from(text));
    let _ = check_statements(json!([text, value]));
    let _ = serde_json::from_str(text).map(check_statements);
    // The ends are letters, because what stands beside a bare placeholder may become one word with it.
    let hostile = format!("q{value}q");
    for sql in [Sql::Postgres, Sql::MySql] {
        let filled = |value: &str| fill_statements(sql, &[text.to_owned()], &[("name", value), ("password", value)]);
        let (Ok(plain), Ok(hostile)) = (filled("qq"), filled(&hostile)) else { continue };
        assert_eq!(plain.len(), hostile.len());
        for (plain, hostile) in plain.iter().zip(&hostile) {
            assert_eq!(places(sql, plain), places(sql, hostile), "{sql:?}: {plain} and {hostile}");
        }
    }
}

/// Templates of user names and common names: never a panic, never a value beyond its limit.
pub fn template(data: &[u8]) {
    let Some((text, name)) = lines(data) else { return };
    let result = username(text, name, "role", Timestamp::from_unix(1_795_435_347));
    let Ok(result) = result else { return };
    assert!(text.len() <= TEMPLATE_BYTES && result.chars().count() <= VALUE_CHARACTERS);
    let _ = is_name_of_template(text, &result);
    let _ = is_name_of_template(text, name);
}

/// Templates of `list_scan_response_keys_filter_path`: never a panic, never a path beyond its limit.
pub fn keys_filter(data: &[u8]) {
    let Some((text, key)) = lines(data) else { return };
    let Some(filter) = FilterTemplate::parse(text) else { return };
    assert!(text.len() <= TEMPLATE_BYTES);
    for path in ["secret/metadata/", key] {
        let Some(result) = filter.render(path, key) else { continue };
        assert!(result.chars().count() <= VALUE_CHARACTERS);
        assert_eq!(filter.render(path, key), Some(result), "the path depends on its values alone");
    }
}

/// Schedules: never a panic; the next time is later, on a whole minute, and the first one.
pub fn schedule(data: &[u8]) {
    let Some((text, at)) = lines(data) else { return };
    let at = at.trim().parse().unwrap_or(1_795_435_347);
    for at in [Timestamp::EPOCH, Timestamp::from_unix(at), Timestamp::from_nanos(at), Timestamp::from_unix(-at)] {
        let Ok(next) = next_of_schedule(text, at) else { return };
        let Some(next) = next else { continue };
        assert!(
            next > at && (next.unix() % 60 == 0 || next == Timestamp::from_nanos(i64::MAX)),
            "{next:?} after {at:?}"
        );
        let before = Timestamp::from_unix(next.unix() - 1);
        assert_eq!(next_of_schedule(text, before), Ok(Some(next)), "the first time after {at:?}");
    }
}

/// Password policies: never a panic; an accepted policy generates passwords of a bounded length without control characters.
pub fn password_policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(password) = password_after(text) else { return };
    assert!((4..=100).contains(&password.chars().count()) && !password.chars().any(char::is_control));
}

/// Denied parameters, as the denied value, the value of a request and a last line of wrappings: never a panic; a denied
/// scalar is denied in each list, object, JSON text and base64 text around it.
pub fn denied_parameter(data: &[u8]) {
    let Some((values, wrappings)) = lines(data) else { return };
    let (denied, given) = values.split_once('\n').unwrap_or((values, values));
    let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let (denied, given) = (value(denied), value(given));
    let _ = [true, false].map(|is_declared| is_denied(&denied, &given, is_declared));
    assert!(is_denied(&given, &given, false) && is_denied(&given, &given, true), "a value is itself");
    // A float is not always the same number once it is read again.
    if denied.is_array() || denied.is_object() || denied.is_f64() {
        return;
    }
    let mut wrapped = denied.clone();
    for wrapping in wrappings.chars().take(40) {
        wrapped = match (wrapping, wrapped) {
            ('l', value) => json!([value]),
            ('o', value) => json!({ "a": value, "b": 1 }),
            (_, Value::String(text)) => Value::from(STANDARD.encode(json!([text]).to_string())),
            (_, value @ (Value::Array(_) | Value::Object(_))) => Value::from(value.to_string()),
            (_, value) => json!([value]),
        };
        if wrapped.as_str().is_some_and(|text| text.len() > 4_000) {
            break;
        }
    }
    assert!(is_denied(&denied, &wrapped, true), "{denied} in {wrapped}");
}
